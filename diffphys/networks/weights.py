"""Weights as they ship: one safetensors file in half precision per network, and its model card in JSON beside it.

Nothing is pickled and nothing is downloaded. Loading checks the file's SHA-256 against the card, and names, shapes and numbers
against the network that the code builds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from diffphys.io.atomic import replacing, write_text
from diffphys.networks.registry import Network, find

FOLDER = Path(__file__).parent / "shipped"
MAX_BYTES = 8 * 2**20
FORMAT = "diffphys-weights"


def save(network: Network, weights: Any, card: Mapping[str, Any], *, folder: Path | None = None) -> Path:
    """Write weights (nested mapping) in half precision and their card; the path of the weights."""
    from safetensors.numpy import save as encode

    folder = FOLDER if folder is None else Path(folder)
    raw = encode({name: np.asarray(v, np.float16) for name, v in flat(weights).items()})
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{network.name} has {len(raw)} bytes of weights; at most {MAX_BYTES} are shipped")
    path = folder / f"{network.name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(raw)
    told = {"format": FORMAT, "network": network.name, "about": network.about, "sha256": _digest(raw), **card}
    write_text(path.with_suffix(".json"), json.dumps(told, indent=1) + "\n")
    return path


def load(name: str, *, folder: Path | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(weights, card) of a network, single precision.

    Raises:
        ValueError: no such file, or one that is not what its card or the network says.
    """
    from safetensors.numpy import load as decode

    network, folder = find(name), FOLDER if folder is None else Path(folder)
    path = folder / f"{name}.safetensors"
    try:
        raw, card = path.read_bytes(), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.name} is absent: {name} is not trained here; run `diffphys train {name}`") from None
    found, said = _digest(raw), str(card.get("sha256"))
    if card.get("format") != FORMAT or said != found:
        raise ValueError(f"{path.name} has SHA-256 {found[:12]}..., its card says {said[:12]}...; restore it")
    kept = decode(raw)
    expected = {k: v.shape for k, v in flat(nnx.to_pure_dict(nnx.state(nnx.eval_shape(network.build), nnx.Param))).items()}
    got = {k: v.shape for k, v in kept.items()}
    if got != expected:
        wrong = sorted(k for k in {*got, *expected} if got.get(k) != expected.get(k))[0]
        raise ValueError(f"{path.name}: {wrong} has shape {got.get(wrong)}; {name} expects {expected.get(wrong)}")
    if not all(np.isfinite(v).all() for v in kept.values()):
        raise ValueError(f"{path.name} holds values that are not finite; train it again")
    return unflatten_dict({tuple(k.split(".")): jnp.asarray(v, jnp.float32) for k, v in kept.items()}), card


@lru_cache(maxsize=16)
def pretrained(name: str) -> tuple[Any, Any]:
    """(network as a function of weights and inputs, shipped weights); read once per process."""
    return model_of(find(name)), load(name)[0]


@lru_cache(maxsize=16)
def program(name: str) -> Callable[[Any, Any], Any]:
    """(weights, inputs) -> outputs of a network, compiled once per process and shape, whatever the weights."""
    model = model_of(find(name))
    return jax.jit(lambda weights, inputs: model(weights)(inputs))


def model_of(network: Network) -> Callable[[Any], Any]:
    """weights (nested mapping) -> callable module; pure, for use under jit and grad."""

    graph, state = nnx.split(nnx.eval_shape(network.build))

    def model(weights: Any) -> Any:
        filled = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(filled, unflatten_dict({_path(k): v for k, v in flat(weights).items()}))
        return nnx.merge(graph, filled)

    return model


def initial(network: Network, *, seed: int = 0) -> dict[str, Any]:
    """A network's own start as a nested mapping."""
    return nnx.to_pure_dict(nnx.state(network.build(seed=seed), nnx.Param))


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def flat(weights: Any) -> dict[str, Any]:
    """Nested mapping -> dotted names."""
    return {".".join(map(str, path)): value for path, value in flatten_dict(weights).items()}


def _path(dotted: str) -> tuple[Any, ...]:
    """Dotted name -> path; list positions are numbers."""
    return tuple(int(part) if part.isdigit() else part for part in dotted.split("."))
