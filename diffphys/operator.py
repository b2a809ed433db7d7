"""The forward model of one instrument as a linear operator, ready for iterations: Spec or PSF -> apply, adjoint, norm.

`bind(modality, geometry)` gives an `Instrument`, a function of (spec, x) for learned and joint solvers; `bind(modality,
spec, geometry=...)` the `Operator` at one spec. Both are pytrees and work under jit, vmap, grad and sharding.

    y_k = modulation_k * crop( sum_m h_km (*) (weights_m x) )

The half spectrum of h is computed once. The specimen is larger than the recorded field by a margin, so that light from
outside is explained instead of folded back (Bertero & Boccacci, A&A 437:369, 2005). Without a given specimen it fills a
torus of 5-smooth lengths: one apply costs two real FFTs, and only the tails of the PSF beyond the margin wrap around.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.fft import irfftn, rfftn
from diffphys.primitives.adjoint import adjoint
from diffphys.primitives.convolve import padded_shape, smooth_length, support
from diffphys.types import Array, Modality, resolve

MARGIN_ENERGY = 0.99  # the margin holds this much of the PSF along each axis, unless a quarter of the field is less
Shape = tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operator:
    """Linear map specimen -> expected signal; a pytree, so it may be an argument of jit, grad and vmap.

    Attributes:
        spectrum: (frame, anchor, *half grid), half spectra of the PSFs on the periodic `grid`.
        weights: (anchor, *axes), broadcastable to the specimen, applied before the blur.
        modulation: (frame, *axes), broadcastable to the field, applied after the blur.
        field: recorded shape, (z, y, x) or (y, x).
        specimen: shape of `x`; the field is its centre.
        grid: FFT lengths, at least the specimen.
        framed: whether the measurement has a frame axis.
    """

    spectrum: Array
    weights: Array
    modulation: Array
    field: Shape = dataclasses.field(metadata={"static": True})
    specimen: Shape = dataclasses.field(metadata={"static": True})
    grid: Shape = dataclasses.field(metadata={"static": True})
    framed: bool = dataclasses.field(metadata={"static": True})

    @property
    def axes(self) -> Shape:
        return tuple(range(-len(self.grid), 0))

    @property
    def measurement(self) -> Shape:
        """Shape of `y`: (frame, *field), or the field where the modality has no frames."""
        return (self.spectrum.shape[0], *self.field) if self.framed else self.field

    @property
    def window(self) -> tuple[slice, ...]:
        """Where the field lies in the specimen."""
        margins = [(s - n) // 2 for s, n in zip(self.specimen, self.field, strict=True)]
        return tuple(slice(m, m + n) for m, n in zip(margins, self.field, strict=True))

    def crop(self, x: Array) -> Array:
        """The field of a specimen."""
        return x[self.window]

    def apply(self, x: Array) -> Array:
        """Noiseless signal of a specimen (*specimen) -> (frame, *field) or (*field), in the units of `x`."""
        one = self.weights.size == 1  # a number, not an image: it waits for the modulation's own pass
        blurred = self._filter(x[None] if one else self.weights * x, sum_over=1)
        signal = self.modulation * blurred[(..., *self.window)] * (self.weights[0] if one else 1.0)
        return signal if self.framed else signal[0]

    def adjoint(self, y: Array) -> Array:
        """Transpose of `apply`: (frame, *field) or (*field) -> (*specimen)."""
        frames = self.modulation * (y if self.framed else y[None])
        pad = [(w.start, g - w.stop) for w, g in zip(self.window, self.grid, strict=True)]
        back = self._filter(jnp.pad(frames, [(0, 0), *pad]), sum_over=0, transposed=True)
        inside = tuple(slice(0, s) for s in self.specimen)
        return jnp.sum(self.weights * back[(..., *inside)], axis=0)

    @partial(jax.jit, static_argnames="iterations")
    def norm(self, *, iterations: int = 20) -> Array:
        """Largest singular value, estimated from above: power iteration from a flat specimen plus 2 %.

        For a PSF without negative values the start overlaps with the leading vector, so few iterations are enough.
        """

        def step(x: Array, _: None) -> tuple[Array, Array]:
            image = self.adjoint(self.apply(x / jnp.maximum(jnp.linalg.norm(x.ravel()), 1e-30)))
            return image, jnp.linalg.norm(image.ravel())

        squares = jax.lax.scan(step, jnp.ones(self.specimen, self.modulation.dtype), length=iterations)[1]
        return 1.02 * jnp.sqrt(squares[-1])

    def _filter(self, images: Array, *, sum_over: int, transposed: bool = False) -> Array:
        """Images (anchor or frame, *axes) times the spectrum, or its conjugate, summed over that axis, back on the grid."""
        transformed = jnp.expand_dims(rfftn(images, self.grid), 1 - sum_over)
        # conj(a) b = conj(a conj(b)): a loop would keep conj(a) as one more half spectrum
        product = jnp.conj(self.spectrum * jnp.conj(transformed)) if transposed else transformed * self.spectrum
        return irfftn(jnp.sum(product, axis=sum_over), self.grid)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Instrument:
    """Modality and geometry without a spec: the map (spec, x) -> expected signal, linear in `x`, differentiable in both.

    Everything is static (a pytree without leaves); shapes do not depend on the spec.

    Attributes:
        modality: what `resolve` gives.
        geometry: nominal instrument.
        specimen: shape of `x`.
        margin: pixels per side of the torus that the specimen is; None: zero outside the specimen.
        measurement: shape of `y`, (frame, *field) or (*field).
    """

    modality: Any = dataclasses.field(metadata={"static": True})
    geometry: Any = dataclasses.field(metadata={"static": True})
    specimen: Shape = dataclasses.field(metadata={"static": True})
    margin: Shape | None = dataclasses.field(metadata={"static": True})
    measurement: Shape = dataclasses.field(metadata={"static": True})

    def __reduce__(self) -> Any:
        """To copies and other processes a modality that is a Python module goes by its name; the copy equals the original."""
        modality = self.modality.NAME if isinstance(self.modality, ModuleType) else self.modality
        return _restored, (modality, self.geometry, self.specimen, self.margin, self.measurement)

    def at(self, spec: Any) -> Operator:
        """The operator at one spec; pure in it."""
        size: dict[str, Any] = {"specimen": self.specimen} if self.margin is None else {"margin": self.margin}
        return _operator(self.modality, spec, self.geometry, **size)

    def apply(self, spec: Any, x: Array) -> Array:
        """Noiseless signal of a specimen (*specimen) -> `measurement`, in the units of `x`."""
        return self.at(spec).apply(x)

    def adjoint(self, spec: Any, y: Array) -> Array:
        """Transpose of `apply` in `x`: `measurement` -> (*specimen)."""
        operator = self.at(spec)  # outside the transposed function: its spectra are computed once
        return adjoint(operator.apply, jax.ShapeDtypeStruct(self.specimen, operator.modulation.dtype))(y)

    def jvp(self, spec: Any, x: Array, spec_tangent: Any, x_tangent: Array) -> tuple[Array, Array]:
        """Signal, and its derivative along a change of spec (a `Spec` of changes) and specimen; both `measurement`."""
        return jax.jvp(self.apply, (spec, x), (spec_tangent, x_tangent))

    def vjp(self, spec: Any, x: Array, y: Array) -> tuple[Any, Array]:
        """Transposed derivative at (spec, x) applied to `y` (`measurement`): a `Spec` of numbers and a specimen."""
        return jax.vjp(self.apply, spec, x)[1](y)

    def norm(self, spec: Any, *, iterations: int = 20) -> Array:
        """Largest singular value at a spec, estimated from above (see `Operator.norm`)."""
        return self.at(spec).norm(iterations=iterations)


def _restored(modality: Modality | str, *static: Any) -> Instrument:
    return Instrument(resolve(modality), *static)


@overload
def bind(modality: Modality | str, spec: Any) -> Instrument: ...
@overload
def bind(
    modality: Modality | str, spec: Any, *, geometry: None, specimen: Sequence[int] | None = None, margin: Any = None
) -> Instrument: ...
@overload
def bind(
    modality: Modality | str, spec: Any, *, geometry: Any, specimen: Sequence[int] | None = None, margin: Any = None
) -> Operator: ...
def bind(
    modality: Modality | str,
    spec: Any,
    *,
    geometry: Any = None,
    specimen: Sequence[int] | None = None,
    margin: Any = None,
) -> Operator | Instrument:
    """`bind(modality, geometry)`: an instrument, a function of its spec. `bind(modality, spec, geometry=...)`: the operator
    at one spec; pure in `spec`, and under jit, `specimen` or `margin` must be given.

    Args:
        modality: `diffphys.confocal`, `diffphys.shg` or their names.
        spec: the instrument's mismatch; or the geometry, which leaves the spec open.
        geometry: nominal instrument, where `spec` is a spec.
        specimen: shape of `x`; the operator then equals `modality.forward` on it (zero outside). None: the field with a
            margin on every side, closed to a torus.
        margin: pixels per side, one number or one per axis; None: where 99 % of the PSF's energy lies (of the nominal spec,
            if the spec is left open), at most a quarter of the field. Only without `specimen`.
    """
    modality = resolve(modality)
    if not isinstance(spec, modality.Geometry):
        if geometry is None:
            raise ValueError(
                f"got neither a geometry nor geometry=...; pass {modality.NAME}'s Geometry, or a spec and geometry="
            )
        return _operator(modality, spec, geometry, specimen, margin)
    if geometry is not None:
        raise ValueError("got two geometries and no spec; pass bind(modality, geometry) or bind(modality, spec, geometry=...)")
    nominal = modality.nominal(spec)
    if specimen is None:
        psfs = jax.jit(partial(modality.transfer, geometry=spec))(nominal).psfs
        margin = _margins(psfs, tuple(spec.shape), margin)
    like = jax.eval_shape(lambda at: _operator(modality, at, spec, specimen, margin), nominal)  # shapes only
    return Instrument(modality, spec, like.specimen, None if specimen is not None else margin, like.measurement)


def _operator(modality: Modality, spec: Any, geometry: Any, specimen: Any = None, margin: Any = None) -> Operator:
    """The operator at one spec."""
    transfer = modality.transfer(spec, geometry=geometry)
    size = tuple(geometry.shape)
    framed = len(measurement_shape(modality, spec, geometry=geometry)) > len(size)
    return assemble(transfer.psfs, transfer.weights, transfer.modulation, size, specimen, margin, framed)


def measurement_shape(modality: Modality, spec: Any, *, geometry: Any) -> Shape:
    """Shape of `y`: (frame, *field), or the field where the modality has no frames. Nothing is computed."""
    like = jax.eval_shape(lambda s, x: modality.forward(s, x, geometry=geometry), spec, jnp.zeros(tuple(geometry.shape)))
    return tuple(like.shape)


def from_psf(psf: Any, *, field: Sequence[int], specimen: Sequence[int] | None = None, margin: Any = None) -> Operator:
    """The operator of a measured PSF, shift-invariant and without modulation.

    Args:
        psf: (*axes), or (frame, *axes) for frames; any sizes, centred on index n//2, sampled as the stack. It is divided
            by its sum (by the first frame's, so that the frames' efficiencies stay).
        field: recorded shape.
        specimen, margin: as in `bind`.
    """
    field = tuple(int(n) for n in field)
    psf = jnp.asarray(psf, jnp.float32)
    framed = psf.ndim == len(field) + 1
    if not framed and psf.ndim != len(field):
        raise ValueError(f"psf has shape {psf.shape}; expected {len(field)} axes as the field {field}, or one more for frames")
    psfs = psf if framed else psf[None]
    total = float(jnp.sum(psfs[0]))
    if not (np.isfinite(total) and total > 0):
        raise ValueError(f"psf sums to {total:g}; expected a positive finite sum (subtract the background, remove NaN)")
    ones = jnp.ones((1,) * (1 + len(field)), jnp.float32)
    return assemble(psfs[:, None] / total, ones, ones, field, specimen, margin, framed)


def assemble(
    psfs: Array, weights: Array, modulation: Array, field: Shape, specimen: Any, margin: Any, framed: bool
) -> Operator:
    """An operator from its parts; the specimen either as given, zero outside, or a torus.

    Args:
        psfs, weights, modulation: as of `Transfer`.
        field: recorded shape.
        specimen, margin: as in `bind`.
        framed: whether the measurement has a frame axis.
    """
    if specimen is None:
        specimen = grid = tuple(smooth_length(n + 2 * m) for n, m in zip(field, _margins(psfs, field, margin), strict=True))
    else:
        specimen = tuple(int(s) for s in specimen)
        grid = padded_shape(field, specimen, psfs.shape[2:])
    return Operator(_spectrum(psfs, grid), _extend(weights, field, specimen), modulation, field, specimen, grid, framed)


def _margins(psfs: Array, field: Shape, margin: Any) -> Shape:
    """Pixels added on each side of each axis."""
    if margin is not None:
        margins = tuple(int(m) for m in np.broadcast_to(margin, len(field)))
        if min(margins) < 0:
            raise ValueError(f"margin is {margin}; expected 0 or more pixels per side")
        return margins
    if isinstance(psfs, jax.core.Tracer):
        raise ValueError("specimen is None inside jit, where the PSF's extent is unknown; pass specimen=(...)")
    halves = support(np.asarray(psfs).sum((0, 1)), energy=MARGIN_ENERGY)
    return tuple(min(h, n // 4) for h, n in zip(halves, field, strict=True))


@partial(jax.jit, static_argnames="grid")
def _spectrum(psfs: Array, grid: Shape) -> Array:
    """Half spectra of the PSFs on the periodic grid."""
    return rfftn(_wrap(psfs, grid), grid)


def _wrap(psfs: Array, grid: Shape) -> Array:
    """PSFs centred on n//2 -> origin at index 0 of the periodic grid; what exceeds the grid is folded, not lost."""
    places = np.ix_(*[(np.arange(p) - p // 2) % n for p, n in zip(psfs.shape[2:], grid, strict=True)])
    return jnp.zeros((*psfs.shape[:2], *grid), psfs.dtype).at[(slice(None), slice(None), *places)].add(psfs)


@partial(jax.jit, static_argnames=("field", "specimen"))
def _extend(weights: Array, field: Shape, specimen: Shape) -> Array:
    """Weights continued from the field to the specimen by their edge values; broadcast axes are left alone."""
    pads = [(0, 0)]
    for size, n, s in zip(weights.shape[1:], field, specimen, strict=True):
        before = (s - n) // 2
        pads.append((0, 0) if size == 1 else (before, s - n - before))
    return jnp.pad(weights, pads, mode="edge")
