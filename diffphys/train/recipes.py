"""How long and on what each network is trained: `small` for two CPU cores within 40 minutes, `full` for one GPU within 25."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffphys.networks.registry import Network


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        steps: of the optimiser.
        batch: patches per step.
        patch: voxels (y, x) or (z, y, x).
        rate: peak of the learning rate, after a warm-up, before a cosine to a hundredth.
        examples: of the stream, the last `held_out` for validation.
        held_out: examples never trained on.
        precision: of weights and activations inside the network, "float32" or "bfloat16"; the optimiser's are float32.
        decay: of the weights' moving average per step.
        clip: largest norm of a gradient.
        keep: steps between checkpoints, each with a validation; a multiple of `loop.CHECK`.
    """

    steps: int
    batch: int
    patch: tuple[int, ...]
    rate: float = 1e-3
    examples: int = 900
    held_out: int = 24
    precision: str = "float32"
    decay: float = 0.998
    clip: float = 1.0
    keep: int = 250


_SMALL = {2: Recipe(1200, 8, (96, 96)), 3: Recipe(600, 2, (16, 64, 64), examples=480)}
_FULL = {
    2: Recipe(30_000, 16, (128, 128), examples=2500, precision="bfloat16", decay=0.9995, keep=1000),
    3: Recipe(15_000, 8, (32, 48, 48), examples=1500, precision="bfloat16", decay=0.9995, keep=1000),
}
NAMES = ("small", "full")


def recipe(network: Network, name: str, *, steps: int | None = None) -> Recipe:
    """The recipe of a network; `steps` overrides its length."""
    if name not in NAMES:
        raise ValueError(f"recipe is {name!r}; expected one of {list(NAMES)}")
    chosen = (_SMALL if name == "small" else _FULL)[network.ndim]
    return chosen if steps is None else replace(chosen, steps=steps)
