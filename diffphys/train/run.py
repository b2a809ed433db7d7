"""One network from stream to shipped weights: examples, loop, weights with their card, figure of the loss."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from diffphys.io.provenance import device, git_commit, versions
from diffphys.networks import weights as shipped
from diffphys.networks.registry import NETWORKS, Network, find
from diffphys.train import extras, loop
from diffphys.train.recipes import Recipe
from diffphys.train.stream import VERSION, Examples, default_folder

Progress = Callable[[float, str], None]


def networks_of(name: str) -> list[Network]:
    """The networks of a name: one network, or a family (`unet`, `ircnn`) in all its sizes."""
    if name in NETWORKS:
        return [NETWORKS[name]]
    family = [n for n in NETWORKS.values() if n.name.startswith(f"{name}_") and n.name[len(name) + 1].isdigit()]
    return family or [find(name)]


def train_network(
    network: Network, recipe: Recipe, *, name: str, runs: Path, output: Path | None = None, examples: Path | None = None,
    seed: int = 0, start: str | None = None, workers: int = 1, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train to the end of the recipe, or go on from the checkpoints in `runs`; the card of the weights.

    Args:
        network, recipe: what and how; `name` is the recipe's.
        runs: folder of checkpoints and figures, one subfolder per network.
        output: folder of the weights; None: where the package loads them from.
        examples: folder of the stream's examples; None: the user's cache.
        seed: of weights, crops and noise.
        start: network whose weights, of `output` or else shipped, are the start where names and shapes agree.
        workers: processes that make missing examples.
        progress: called with (fraction done, text).
    """
    first = None if start is None else _fitting(network, start, output, seed=seed)
    stream = Examples(network.modality, count=recipe.examples, folder=examples or default_folder())
    stream.make(workers=workers, progress=progress)
    images = stream.load()
    if network.role in extras.NEEDED:
        images["extra"] = extras.load(network, stream, progress=progress)
    folder = Path(runs) / network.name
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"seed": seed, "weights": first, "progress": progress}
    state, history = loop.train(network, recipe, images, folder=folder / "checkpoints", **options)
    card = {
        "recipe": {"name": name, **asdict(recipe)},
        "start": start,
        "seed": seed,
        "stream_version": VERSION,
        "parameters": int(sum(np.size(v) for v in shipped.flat(state.average).values())),
        "validation": {"psnr": history.psnr[-1][1], "wiener_psnr": history.baseline, "loss": float(np.mean(history.loss[-8:]))},
        "command": " ".join(["diffphys", *sys.argv[1:]]),
        "git_commit": git_commit(),
        "device": device(),
        "versions": versions(),
        "seconds": round(sum(history.seconds), 1),
    }
    shipped.save(network, state.average, card, folder=output)
    from diffphys.report.training_figure import training_figure

    training_figure(folder / "loss.png", network.name, history, every=loop.CHECK)
    return card


def _fitting(network: Network, start: str, output: Path | None, *, seed: int) -> dict[str, Any]:
    """Weights of another network where names and shapes agree, the network's own start elsewhere."""
    here = output if output is not None and (Path(output) / f"{start}.safetensors").exists() else None
    own, given = shipped.flat(shipped.initial(network, seed=seed)), shipped.flat(shipped.load(start, folder=here)[0])
    fits = {k: given[k] if k in given and np.shape(given[k]) == np.shape(v) else v for k, v in own.items()}
    if not any(k in given and fits[k] is given[k] for k in own):
        raise ValueError(f"{start} shares no weights with {network.name}; start from one of the same kind")
    from flax.traverse_util import unflatten_dict

    return unflatten_dict({tuple(k.split(".")): v for k, v in fits.items()})
