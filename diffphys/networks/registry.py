"""Every network that ships: its name, what it is built of, and its role, which fixes inputs, outputs and loss.

restore     (wiener, measured, noise) -> image
laplace     the same -> image and the log of its Laplace scale
deconvolve  (bank of Wiener images under white priors, wiener, measured, noise) -> image
refine      (first estimate, its data step, wiener, measured, noise) -> image
denoise     (noisy image, its noise) -> image
score       (noisy image, log noise), preconditioned -> image
condition   (what the Wiener image lacks, log noise, wiener, measured, noise), preconditioned -> image
blind_spot  (measured image with hidden voxels, noise) -> measured image
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flax import nnx

from diffphys.networks.hourglass import Hourglass
from diffphys.networks.plain import DILATIONS, Stack, SwinIR
from diffphys.spec import did_you_mean

IRCNN_LEVELS = (0.01, 0.03, 0.1, 0.3)  # noise of the set's members, in units of the image's scale
BANK = 4  # Wiener images of the role "deconvolve"
CHANNELS = {  # role -> inputs, outputs
    "restore": (3, 1),
    "laplace": (3, 2),
    "deconvolve": (3 + BANK, 1),
    "refine": (5, 1),
    "denoise": (2, 1),
    "score": (2, 1),
    "condition": (5, 1),
    "blind_spot": (2, 1),
}


@dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        name: of its weights.
        kind: class that builds it.
        role: see the head of this file.
        ndim: 2 for images, 3 for stacks.
        size: its static options.
        about: what it is, with the paper.
    """

    name: str
    kind: Any
    role: str
    ndim: int
    size: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""

    def build(self, *, seed: int = 0) -> nnx.Module:
        inputs, outputs = CHANNELS[self.role]
        return self.kind(inputs=inputs, outputs=outputs, ndim=self.ndim, rngs=nnx.Rngs(seed), **self.size)

    @property
    def modality(self) -> str:
        return "shg" if self.ndim == 2 else "confocal_3d"


def _pair(name: str, kind: Any, role: str, plane: Mapping[str, Any], volume: Mapping[str, Any], about: str) -> list[Network]:
    return [Network(f"{name}_2d", kind, role, 2, plane, about), Network(f"{name}_3d", kind, role, 3, volume, about)]


def _hourglass(block: str, widths: tuple[int, ...], depths: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {"block": block, "widths": widths, "depths": depths, **more}


UNET_2D, UNET_3D = _hourglass("plain", (48, 96, 160), (1, 1, 2)), _hourglass("plain", (40, 64, 112), (1, 2, 2))
JUDGE_3D = _hourglass("plain", (20, 32, 56), (1, 2, 2))
RESTORMER_2D = _hourglass("transposed", (48, 80, 128), (2, 2, 4))
NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        *_pair("unet", Hourglass, "restore", UNET_2D, UNET_3D, "U-Net (Ronneberger et al., MICCAI 2015; Cicek et al., 2016)"),
        Network("judge_3d", Hourglass, "restore", 3, JUDGE_3D,
                "U-Net of half the width: restores where restorations are only compared, a quarter of the work"),
        *_pair("care", Hourglass, "laplace", UNET_2D, UNET_3D,
               "CARE with a Laplace output (Weigert et al., Nat. Methods 2018)"),
        Network("resunet_2d", Hourglass, "restore", 2, _hourglass("residual", (64, 96, 160), (2, 3, 4)),
                "U-Net of residual blocks (Zhang et al., IEEE GRSL 2018)"),
        *_pair("restormer", Hourglass, "restore", RESTORMER_2D, _hourglass("transposed", (32, 64, 96), (2, 2, 3)),
               "Restormer (Zamir et al., CVPR 2022)"),
        Network("restormer_plus_2d", Hourglass, "refine", 2, RESTORMER_2D,
                "Restormer as the second stage of an unrolled splitting"),
        Network("deconvformer_2d", Hourglass, "deconvolve", 2, RESTORMER_2D,
                "Wiener deconvolution in feature space (Dong et al., NeurIPS 2020), then transformers"),
        Network("swinir_3d", SwinIR, "restore", 3, {"width": 48, "groups": 3, "depth": 2, "window": (4, 4, 4)},
                "SwinIR in three dimensions (Liang et al., ICCV workshops 2021)"),
        *_pair("dncnn", Stack, "denoise", {"width": 64, "dilations": (1,) * 10, "folded": True},
               {"width": 24, "dilations": (1,) * 7, "folded": True}, "DnCNN told its noise (Zhang et al., TIP 2017 and 2018)"),
        *(Network(f"ircnn_{n}_3d", Stack, "denoise", 3, {"width": 32, "dilations": DILATIONS, "folded": True},
                  f"IRCNN, member for noise {level:g} (Zhang et al., CVPR 2017)") for n, level in enumerate(IRCNN_LEVELS)),
        Network("noise2void_3d", Hourglass, "blind_spot", 3, _hourglass("plain", (16, 32), (1, 1)),
                "Noise2Void, trained on measured stacks (Krull et al., CVPR 2019)"),
        *_pair("score", Hourglass, "score", _hourglass("residual", (48, 80, 128), (2, 2, 3), residual=False),
               _hourglass("residual", (32, 48, 96), (1, 2, 2), residual=False),
               "score network, preconditioned (Karras et al., NeurIPS 2022)"),
        Network("diffdeconv_2d", Hourglass, "condition", 2, _hourglass("residual", (64, 96, 160), (2, 2, 3), residual=False),
                "diffusion conditioned on the calibrated Wiener image"),
    )
}  # fmt: skip


def find(name: str) -> Network:
    """The network of a name; ValueError lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"network is {name!r}; expected one of {sorted(NETWORKS)}{did_you_mean(name, list(NETWORKS))}")
    return NETWORKS[name]


def noise_range(network: Network) -> tuple[float, float]:
    """Noise that a denoiser is trained for, standard deviations in units of the image's scale."""
    if network.name.startswith("ircnn_"):
        level = IRCNN_LEVELS[int(network.name.split("_")[1])]
        return level / 1.75, level * 1.75
    return {"denoise": (0.004, 0.5), "condition": (0.003, 0.6)}.get(
        network.role, (0.02, 0.6)
    )  # scores start from Wiener images
