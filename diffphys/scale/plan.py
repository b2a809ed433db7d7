"""Memory plan: from the volume, the PSF's reach and the budget to tiles and the peak that they will need, before the work.

The peak is what XLA itself says of the compiled program of one tile (arguments, results, scratch), plus what the methods keep
beside it, plus the transforms' own scratch, which XLA does not count on a CPU, plus what the process holds already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffphys.operator import Operator
from diffphys.primitives.convolve import smooth_length
from diffphys.reconstruct import richardson_lucy as rl
from diffphys.reconstruct import tv, wiener
from diffphys.reconstruct.iterate import CHUNK, Problem, _chunk
from diffphys.scale.memory import gib
from diffphys.scale.methods import tiled
from diffphys.scale.tiles import REACH, block_shape, cut

Shape = tuple[int, ...]
PROBE = (24, 40, 40)  # a field whose program is compiled to learn the bytes per voxel
KEPT = {"wiener": 22.0, "tv": 0.0, "richardson_lucy": 0.0}  # bytes per voxel of the torus beside the chunk's program
SCRATCH = 8.0  # bytes per voxel of the torus in the CPU's transforms, measured
HOST = 2.0  # bytes per voxel of the block: counts as read
COMPILER = 110e6  # bytes that compiling leaves in the process, measured (benchmarks/memory_plan.py)


class Plan(NamedTuple):
    """Tiles and their cost; shapes (z, y, x), bytes of the process that computes them."""

    core: Shape
    halo: Shape
    block: Shape
    grid: Shape
    chunk: Shape
    tiles: int
    peak: int
    budget: int

    def __str__(self) -> str:
        shapes = [" x ".join(map(str, s)) for s in (self.core, self.halo, self.block)]
        return (
            f"{self.tiles} tiles of {shapes[0]} voxels, each computed from {shapes[2]} (halo {shapes[1]}); "
            f"peak {gib(self.peak)} of {gib(self.budget)}"
        )


def make_plan(
    shape: Sequence[int],
    *,
    method: str,
    options: Mapping[str, Any],
    halo: Sequence[int],
    anchors: int = 1,
    budget: int,
    held: int,
    chunk: Sequence[int],
    core: Sequence[int] | None = None,
) -> Plan:
    """The tiles that waste least within the budget.

    Args:
        shape: of a stack.
        method, options: as settled for all tiles.
        halo: as `tiles.halo_of` gives it; the method's own margin comes on top.
        anchors: depth anchors of the geometry.
        budget: bytes of one process.
        held: bytes that the process holds already.
        chunk: of the output; cores are multiples of it. It is halved where it does not fit.
        core: take this one instead of the best; must fit.

    Raises:
        ValueError: not even the smallest tile fits; says how much memory would do.
    """
    known, probe = tiled(method), _grid(PROBE, halo)
    wide = tuple(h + m for h, m in zip(halo, known.margin, strict=True))
    per_voxel = _bytes(known.solver, options, PROBE, probe, anchors) / math.prod(probe)

    def block_of(core: Shape) -> Shape:
        return block_shape(shape, core, wide, lattice=known.lattice)

    def whole(solver: float, block: Shape) -> float:
        return max(solver, known.beside(block)) + HOST * math.prod(block) + held + COMPILER

    def roughly(block: Shape) -> float:
        return whole(per_voxel * math.prod(_grid(block, halo)), block)

    for step in _halved(tuple(chunk)):
        choices = [tuple(core)] if core else list(product(*[_multiples(c, n) for c, n in zip(step, shape, strict=True)]))
        fits = [c for c in choices if roughly(block_of(c)) <= budget]
        for best in sorted(fits, key=lambda c: _work(shape, c, _grid(block_of(c), halo)))[:3]:
            block = block_of(best)
            grid = _grid(block, halo)
            peak = whole(_bytes(known.solver, options, block, grid, anchors), block)
            if peak <= budget:
                tiles = len(cut(shape, best, wide, lattice=known.lattice))
                return Plan(best, wide, block, grid, step, tiles, int(peak), int(budget))
        if core:
            break
    least = min(roughly(block_of(c)) for c in choices)
    raise ValueError(
        f"the smallest tile needs {gib(least)} (it sees {wide} voxels around itself); --memory is {gib(budget)}: "
        "give more, or use a method that needs less (richardson_lucy)"
    )


def _halved(chunk: Shape) -> Iterator[Shape]:
    """The chunk, then with its longest axes halved again and again, down to 8."""
    while True:
        yield chunk
        smaller = tuple(max(8, -(-c // 2)) if c == max(chunk) else c for c in chunk)
        if smaller == chunk:
            return
        chunk = smaller


def _work(shape: Sequence[int], core: Sequence[int], grid: Sequence[int]) -> tuple[float, int]:
    """Voxels that are transformed in all, tiles times their torus, to two figures; then the size of a tile."""
    count = math.prod(-(-n // c) for n, c in zip(shape, core, strict=True))
    return float(f"{count * math.prod(grid):.2g}"), math.prod(core)


def _multiples(step: int, length: int) -> list[int]:
    """Core lengths along one axis: 1, 2, 3, 4, 6, 8, 12, ... chunks, and the whole axis."""
    counts = {m << k for k in range(length.bit_length()) for m in (1, 3)}
    return [k * step for k in sorted(counts) if k * step < length] + [length]


def _grid(field: Sequence[int], halo: Sequence[int]) -> Shape:
    """FFT lengths of a block: the field and the margin that `operator.bind` adds."""
    return tuple(smooth_length(n + 2 * min(round(h / REACH), n // 4)) for n, h in zip(field, halo, strict=True))


def _bytes(method: str, options: Mapping[str, Any], field: Sequence[int], grid: Shape, anchors: int) -> float:
    """Bytes of the solver at its largest, without allocating any of them."""
    step, fit, state = _program(method, options, _abstract(tuple(field), grid, anchors))
    stated: Any = _chunk.lower(step, fit, state, CHUNK).compile().memory_analysis()
    used = stated.argument_size_in_bytes + stated.output_size_in_bytes + stated.temp_size_in_bytes
    scratch = SCRATCH if jax.default_backend() == "cpu" else 0.0
    return float(used + (KEPT[method] + scratch) * math.prod(grid))


def _program(method: str, options: Mapping[str, Any], problem: Problem) -> tuple[Any, Any, Any]:
    """Step, constants and state of a method in abstract shapes."""
    if method == "wiener":
        z, w, _ = jax.eval_shape(wiener._sufficient, problem)
        inverse = jax.ShapeDtypeStruct(z.shape[1:], jnp.float32)
        x = jax.eval_shape(wiener._estimate, problem.operator, z, w, inverse)
        return wiener.Step(), *jax.eval_shape(wiener._start, problem, w, inverse, x)
    if method == "tv":
        step = tv.Step(options.get("data_term", "poisson"))
        return step, *jax.eval_shape(lambda p: tv.prepare(p, 1.0), problem)
    fit = jax.eval_shape(rl.make_fit, problem)
    state = jax.eval_shape(lambda f: rl._state(f, bool(options.get("accelerate")), None), fit)
    return rl.Step("fixed", options.get("tv_weight", 0.0) > 0), fit, state


def _abstract(field: Shape, grid: Shape, anchors: int) -> Problem:
    """A problem of these shapes that holds no numbers."""

    def array(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    spectrum = array(1, anchors, *grid[:-1], grid[-1] // 2 + 1, dtype=jnp.complex64)
    weights = array(1, 1, 1, 1) if anchors == 1 else array(anchors, grid[0], 1, 1)
    operator: Any = Operator(spectrum, weights, array(1, field[0], 1, 1), field, grid, grid, False)
    return Problem(operator, array(*field), array(), array(), array(len(field)))
