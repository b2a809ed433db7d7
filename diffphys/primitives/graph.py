"""Chains of primitives: "M -> R -> D" as one checked, printable, callable pytree.

In: a chain of letters (or names) and the arguments of each node. Out: a `Graph`: traced parameters are its leaves, so it
may be an argument of jit, grad and vmap; options and shapes are static. `of` gives the graph of a modality.

>>> chain = compose("M -> C(blur) -> D", {"M": {"mask": mask}, "blur": {"psf": h}, "D": {"detector": Detector()}}, like=x)
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffphys.primitives.accumulate import accumulate
from diffphys.primitives.adjoint import Map, linearise
from diffphys.primitives.convolve import convolve
from diffphys.primitives.detect import detect
from diffphys.primitives.disperse import disperse
from diffphys.primitives.encode import encode, encode_grid
from diffphys.primitives.modulate import modulate
from diffphys.primitives.project import project
from diffphys.primitives.propagate import propagate
from diffphys.primitives.rotate import rotate
from diffphys.primitives.sample import illuminate, sample
from diffphys.primitives.transform import spectral_filter, transform
from diffphys.spec import did_you_mean, expect_names
from diffphys.types import Array, resolve

PRIMITIVES: Mapping[str, Callable[..., Array]] = {
    fn.__name__: fn
    for fn in (
        *(propagate, modulate, project, encode, convolve, accumulate, detect, sample, disperse, rotate, transform),
        *(illuminate, encode_grid, spectral_filter),
    )
}
LETTERS: Mapping[str, str] = {
    "P": "propagate",
    "M": "modulate",
    "Π": "project",
    "Pi": "project",
    "F": "encode",
    "C": "convolve",
    "Σ": "accumulate",
    "Sigma": "accumulate",
    "D": "detect",
    "S": "sample",
    "W": "disperse",
    "R": "rotate",
    "Λ": "transform",
    "Lambda": "transform",
}
TOKEN = re.compile(r"(\w+)(?:\((.+)\))?")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Node:
    """One primitive bound to its arguments.

    Attributes:
        parameters: the primitive's positional arguments except `x`; traced.
        primitive: its name in `PRIMITIVES`.
        options: its keyword-only arguments, sorted pairs; static.
    """

    parameters: dict[str, Any]
    primitive: str = dataclasses.field(metadata={"static": True})
    options: tuple[tuple[str, Any], ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Array) -> Array:
        return PRIMITIVES[self.primitive](**self.parameters, x=x, **dict(self.options))

    @property
    def linear(self) -> bool:
        """Linear or affine in `x`."""
        return self.primitive != "transform" and dict(self.options).get("response") is None


def node(primitive: str, /, **arguments: Any) -> Node:
    """A primitive, by letter or name, bound to its arguments (any but `x`)."""
    name = LETTERS.get(primitive, primitive)
    if name not in PRIMITIVES:
        close = did_you_mean(primitive, list(PRIMITIVES))
        raise ValueError(
            f"primitive is {primitive!r}; expected a letter of {list(LETTERS)} or one of {list(PRIMITIVES)}{close}"
        )
    known = [p for p in inspect.signature(PRIMITIVES[name]).parameters.values() if p.name != "x"]
    traced = [p.name for p in known if p.kind is not p.KEYWORD_ONLY]
    expect_names(name, list(arguments), [p.name for p in known], all_needed=False)
    if missing := [p for p in traced if p not in arguments]:
        raise ValueError(f"{name} lacks {missing}; its parameters are {traced}")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items() if k not in traced}
    return Node({k: arguments[k] for k in traced}, name, tuple(sorted(options.items())))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Graph:
    """Nodes applied one after the other.

    Attributes:
        nodes: in the order of the chain.
        tokens: as written in the chain, e.g. "C(PSF_3D)".
        labels: unique name of each node.
        edges: (shape, dtype) of the input and of every node's result.
    """

    nodes: tuple[Node, ...]
    tokens: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    labels: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    edges: tuple[tuple[tuple[int, ...], np.dtype], ...] = dataclasses.field(metadata={"static": True})

    @property
    def chain(self) -> str:
        return " -> ".join(self.tokens)

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """label -> parameter -> value."""
        return {label: n.parameters for label, n in zip(self.labels, self.nodes, strict=True)}

    def __call__(self, x: Array) -> Array:
        """Result of the last node for input of the composed shape."""
        if x.shape != self.edges[0][0]:
            raise ValueError(f"x has shape {x.shape}; the graph {self.chain} was composed for {self.edges[0][0]}")
        for each in self.nodes:
            x = each(x)
        return x

    def apply(self, parameters: Mapping[str, Mapping[str, Any]], x: Array) -> Array:
        """The graph with other values for some or all of its `parameters`, same shapes."""
        expect_names(f"parameters of {self.chain}", list(parameters), self.labels, all_needed=False)
        nodes = []
        for label, n in zip(self.labels, self.nodes, strict=True):
            new = parameters.get(label, {})
            expect_names(f"node {label} ({n.primitive})", list(new), list(n.parameters), all_needed=False)
            nodes.append(dataclasses.replace(n, parameters={**n.parameters, **new}))
        return dataclasses.replace(self, nodes=tuple(nodes))(x)

    def linearise(self, x: Array) -> tuple[Array, Map, Map]:
        """Value at `x`, derivative there (tangent -> tangent), and the derivative's adjoint."""
        return linearise(self, x)

    def adjoint(self, y: Array) -> Array:
        """Transpose of the graph's linear part; D's background and offset are no part of it."""
        for label, n in zip(self.labels, self.nodes, strict=True):
            if not n.linear:
                raise ValueError(f"node {label} ({n.primitive}) of {self.chain} is not linear; use linearise(x)")
        shape, dtype = self.edges[0]
        return linearise(self, jax.numpy.zeros(shape, dtype))[2](y)

    def __str__(self) -> str:
        """Table: one line per node with its parameters and what leaves it."""
        edges = [f"{shape} {dtype}" for shape, dtype in self.edges]
        rows = [("x", "", "", edges[0])]
        for token, n, edge in zip(self.tokens, self.nodes, edges[1:], strict=True):
            rows.append((token, n.primitive, describe(n), edge))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), "-> " + row[3]]) for row in rows]
        return "\n".join([self.chain, *lines])


def describe(each: Node) -> str:
    """A node's parameters, with shapes or values, and its options."""
    parts = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(each.parameters):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if np.shape(leaf) or isinstance(leaf, jax.core.Tracer):
            parts.append(f"{name} {np.shape(leaf)}")
        else:
            parts.append(f"{name} {np.asarray(leaf).item():g}" if np.isrealobj(leaf) else f"{name} {leaf}")
    return ", ".join([*parts, *(f"{name}={getattr(value, '__name__', value)}" for name, value in each.options)])


def compose(chain: str, nodes: Mapping[str, Node | Mapping[str, Any]], *, like: Any) -> Graph:
    """Compose named primitives; every shape is checked before anything is computed.

    Args:
        chain: letters or names with arrows, e.g. "M -> R -> D". A label in brackets tells equal letters apart:
            "M(lamp) -> C(PSF_3D) -> M(rows)".
        nodes: label (without one, the letter) -> the primitive's arguments, or a `node` of its own, which may be another
            primitive than the letter's usual one. Nodes without arguments may be left out.
        like: array or `jax.ShapeDtypeStruct`, the input.
    """
    tokens = [part.strip() for part in chain.split("->")]
    matches = [TOKEN.fullmatch(token) for token in tokens]
    bad = [token for token, match in zip(tokens, matches, strict=True) if match is None]
    if bad:
        raise ValueError(f"chain {chain!r} has {bad[0]!r}; expected letters or names with arrows, e.g. 'M -> C(PSF_3D) -> D'")
    parts = [(match.group(1), match.group(2) or match.group(1)) for match in matches if match]
    labels = [label for _, label in parts]
    if repeated := [label for label in labels if labels.count(label) > 1]:
        letter = repeated[0]
        raise ValueError(f"chain {chain!r} has {letter!r} twice; tell them apart by labels, e.g. {letter}(first)")
    expect_names(f"nodes of {chain!r}", list(nodes), labels, all_needed=False)
    bound = tuple(_bind(letter, nodes.get(label, {})) for letter, label in parts)
    return Graph(bound, tuple(tokens), tuple(labels), _edges(chain, labels, bound, like))


def _bind(letter: str, given: Node | Mapping[str, Any]) -> Node:
    return given if isinstance(given, Node) else node(letter, **given)


def _edges(chain: str, labels: Sequence[str], nodes: Sequence[Node], like: Any) -> tuple[tuple[tuple[int, ...], np.dtype], ...]:
    """Shape and dtype of the input and after each node; one line that names the node where they do not fit."""
    at = jax.ShapeDtypeStruct(np.shape(like), like.dtype)
    edges = [(tuple(at.shape), np.dtype(at.dtype))]
    for label, each in zip(labels, nodes, strict=True):
        try:
            at = jax.eval_shape(lambda x, each=each: each(x), at)  # concrete parameters stay so, and are checked
        except (TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"node {label} ({each.primitive}: {describe(each)}) of {chain!r} does not take {edges[-1][0]}: {reason}"
            ) from error
        edges.append((tuple(at.shape), np.dtype(at.dtype)))
    return tuple(edges)


def of(modality: Any, spec: Any, *, geometry: Any, specimen: Sequence[int] | None = None) -> Graph:
    """The graph of a modality at a spec; equals `modality.forward`.

    Args:
        modality: `diffphys.confocal`, `diffphys.shg` or their names.
        spec: the instrument's mismatch; may be traced.
        geometry: nominal instrument.
        specimen: shape of `x`; the recorded field if None.
    """
    pipeline = getattr(resolve(modality), "pipeline", None)
    if pipeline is None:
        raise ValueError(
            f"modality {resolve(modality).NAME!r} has no pipeline(spec, geometry=..., specimen=...); compose its graph by hand"
        )
    return pipeline(spec, geometry=geometry, specimen=specimen)
