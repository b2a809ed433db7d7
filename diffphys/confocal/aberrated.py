"""Confocal stacks seen through aberrations beyond the spec: the confocal modality with more Zernike coefficients.

    modality = with_zernike((5, 6, 7, 8))      # astigmatism and coma
    fit_psf(bead, modality, geometry=geometry)

`with_zernike` returns a modality like `diffphys.confocal`: whatever takes a modality takes it. Its spec has one more traced
leaf per mode, `z5` ..., in waves rms at 520 nm (the same path difference acts on excitation and emission), and, if asked
for, the slant of the scan axis (`slant_x`, `slant_y`) and the linear polarisation of the excitation (Stokes `s1`, `s2`).
Piston, tilt and defocus are no parameters: they move the image, which no data can show when the specimen is unknown. Modes
of angular order 0 are made free of piston and defocus as Z11 is; of tilt all modes are free by themselves.

What a blind calibration can see. Its statistic is the periodogram averaged over the mirror images of a frequency quadrant,
and its model is the same average of |H|^2. That average is the same for a pupil and its negative (all signs reversed: the
twin, between which restorations decide) and for a pupil mirrored in x or in y. So the signs of `z5`, of coma (`z7`, `z8`) and
of trefoil are not in it, nor on which side two of them lie to each other; their sizes are, and so is the sign of `z6` against
the spherical aberration. An image of a point shows everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.confocal import optics
from diffphys.confocal import spec as plain
from diffphys.confocal.forward import apply, pipeline, transfer
from diffphys.confocal.spec import REFERENCE_UM, Geometry
from diffphys.fft import rfftn
from diffphys.optics import pinhole, pupil, stratified, zernike
from diffphys.primitives.graph import Graph
from diffphys.spec import Field, names, parse
from diffphys.types import Array, Stack, Transfer

LIMIT = 0.15  # waves rms: default range of a coefficient
SLANT_LIMIT = 0.3  # micrometres of lateral shift per micrometre of depth
SHARES = (0.6, -0.4, 0.35, -0.6)  # of the range: where blind searches start


class Tables(NamedTuple):
    """Constants of one geometry and set of modes in float64.

    Attributes:
        nodes: quadrature over the aperture angle.
        modes: (mode, theta, phi) Zernike modes of unit rms, free of piston and defocus.
        excitation, emission: lateral transforms, the emission's on the pinhole's grid; no excitation and no pinhole for a
            wide-field microscope.
    """

    nodes: optics.Aperture
    modes: np.ndarray
    excitation: pupil.Lateral | None
    emission: pupil.Lateral
    pinhole: pupil.Pinhole | None


@dataclass(frozen=True)
class Aberrated:
    """A modality: `diffphys.confocal` with more traced parameters. Only which ones there are is static.

    Attributes:
        modes: Noll indices.
        limit: half width of the default range of each coefficient, waves rms.
        slanted: whether the scan axis may be slanted against the optical axis.
        polarised: whether the excitation may be linearly polarised.
    """

    modes: tuple[int, ...]
    limit: float = LIMIT
    slanted: bool = False
    polarised: bool = False

    NAME = "confocal_3d"
    MODULATION_FIELDS: ClassVar[tuple[str, ...]] = ()
    TRADE_OFF = ("spherical_aberr", "refractive_index")
    BIASED: ClassVar[Mapping[str, float]] = {}
    Geometry: ClassVar[Any] = plain.Geometry
    sampling_warnings = staticmethod(plain.sampling_warnings)
    weak = staticmethod(plain.weak)
    block = staticmethod(plain.block)
    derived = staticmethod(optics.derived)

    @property
    def FIELDS(self) -> tuple[Field, ...]:
        return _fields(self)

    @property
    def Spec(self) -> Any:
        return _spec_type(self)

    def nominal(self, geometry: plain.Geometry | None = None) -> Any:
        """No error of any kind, specimen index equal to the immersion's."""
        base = plain.nominal(geometry)
        return parse(self.Spec, self.FIELDS, {f.name: getattr(base, f.name, f.nominal) for f in self.FIELDS})

    def default_ranges(self, geometry: plain.Geometry | None = None) -> dict[str, tuple[float, float]]:
        return plain.default_ranges(geometry) | {f.name: (f.low, f.high) for f in self.FIELDS[len(plain.FIELDS) :]}

    def check_ranges(self, ranges: Mapping[str, tuple[float, float]], geometry: plain.Geometry) -> None:
        """Raise where a range leaves the model's validity or what its quadrature resolves."""
        plain.check_ranges(dict(ranges), geometry)
        for f in self.FIELDS[len(plain.FIELDS) :]:
            low, high = ranges[f.name]
            if min(low, f.low) < f.low or max(high, f.high) > f.high:
                raise ValueError(f"range of {f.name} is [{low:g}, {high:g}]; expected within [{f.low:g}, {f.high:g}]")

    @partial(jax.jit, static_argnames=("self", "geometry"))
    def psf(self, spec: Any, *, geometry: plain.Geometry, depth_um: Array | float | None = None) -> Stack:
        """Intensity PSF (z, y, x), unit sum; index n//2 is the focus of the unaberrated instrument.

        Args:
            spec: mismatch parameters.
            geometry: nominal instrument; the PSF has its shape and voxel size.
            depth_um: depth of the plane imaged; the geometry's if None.
        """
        if self.polarised and geometry.excitation_nm is None:
            raise ValueError("a wide-field microscope has no polarised excitation spot; leave out polarised")
        t = tables(geometry, self)
        h = pupil.intensity(self._field(spec, geometry, depth_um, t.emission, geometry.emission_nm))
        if t.excitation is not None and t.pinhole is not None and geometry.excitation_nm is not None:
            field = self._field(spec, geometry, depth_um, t.excitation, geometry.excitation_nm)
            stokes = (spec.s1, spec.s2) if self.polarised else (0.0, 0.0)
            h = jnp.maximum(pupil.pinhole_average(t.pinhole, h, geometry.shape[1:]), 0.0) * pupil.intensity(
                field, stokes=stokes
            )
        return h / h.sum()

    def _field(self, spec: Any, geometry: plain.Geometry, depth_um: Any, lateral: pupil.Lateral, wavelength_nm: float) -> Array:
        """Field components (m, z, y, x) at one wavelength."""
        t, dtype = tables(geometry, self), jnp.asarray(spec.z_step).dtype
        k, phi = 2e3 * math.pi / wavelength_nm, pupil.angles(lateral.orders)
        path = optics.aberration_um(spec, geometry=geometry, depth_um=depth_um, nodes=t.nodes)[:, None]
        for j, mode in zip(self.modes, t.modes, strict=True):
            path = path + REFERENCE_UM * getattr(spec, f"z{j}") * jnp.asarray(mode, dtype)
        path = path[..., None]
        if self.slanted:
            u = jnp.asarray(np.arange(geometry.shape[0]) - geometry.shape[0] // 2, dtype) * geometry.voxel_um[0]
            rays = geometry.immersion_index * np.sin(t.nodes.theta)[:, None]
            along_x, along_y = (jnp.asarray(rays * turn, dtype)[..., None] for turn in (np.cos(phi), np.sin(phi)))
            path = path - (spec.slant_x * along_x + spec.slant_y * along_y) * u
        harmonics = pupil.harmonics(jnp.exp(1j * k * path), lateral.orders)
        weights = optics.amplitudes(
            spec, geometry=geometry, wavelength_um=1e-3 * wavelength_nm, depth_um=depth_um, nodes=t.nodes
        )
        axial = jnp.exp(1j * k * optics.focus_path_um(spec, geometry=geometry, nodes=t.nodes))
        return pupil.fields(lateral, harmonics, weights, axial)

    @partial(jax.jit, static_argnames=("self", "geometry"))
    def transfer(self, spec: Any, *, geometry: plain.Geometry) -> Transfer:
        """As `diffphys.confocal.transfer`."""
        return transfer(spec, geometry=geometry, psf_of=self.psf)

    @partial(jax.jit, static_argnames=("self", "geometry"))
    def forward(self, spec: Any, x: Stack, *, geometry: plain.Geometry) -> Stack:
        """As `diffphys.confocal.forward`."""
        return apply(self.transfer(spec, geometry=geometry), x, geometry=geometry)

    def pipeline(self, spec: Any, *, geometry: plain.Geometry, specimen: Sequence[int] | None = None) -> Graph:
        """As `diffphys.confocal.pipeline`."""
        return pipeline(spec, geometry=geometry, specimen=specimen, transfer_of=self.transfer)

    @partial(jax.jit, static_argnames=("self", "geometry", "finer"))
    def otf_quadrant(
        self,
        spec: Any,
        *,
        geometry: plain.Geometry,
        finer: tuple[int, int, int] = (1, 1, 1),
        depth_um: Array | float | None = None,
    ) -> tuple[Array, Array]:
        """Root mean square of |H| over the mirror images of the quadrant, (1, |nu_z|, |nu_y|, |nu_x|), and zeros.

        The folded periodogram's expectation is the mean of |H|^2 over them, times the specimen's spectrum.
        """
        size = tuple(f * n for f, n in zip(finer, geometry.shape, strict=True))
        h = rfftn(self.psf(spec, geometry=geometry, depth_um=depth_um), size)
        power = h.real**2 + h.imag**2
        for axis in (0, 1):
            n = size[axis]
            here, there = np.arange(n // 2 + 1), (-np.arange(n // 2 + 1)) % n
            power = (jnp.take(power, here, axis) + jnp.take(power, there, axis)) / 2
        modulus = jnp.sqrt(power + jnp.finfo(power.dtype).eps ** 2)  # beyond the band a zero would have no derivative
        return modulus[None], jnp.zeros_like(modulus)[None]

    def twin(self, spec: Any, *, geometry: plain.Geometry, ranges: dict[str, tuple[float, float]]) -> Any:
        """The spec with every aberration reversed, which has the same |OTF|; None where the ranges leave none."""
        bare = plain.Spec(spec.z_step, spec.spherical_aberr, spec.refractive_index)
        base = optics.twin(bare, geometry=geometry, ranges=ranges)
        turned = {f"z{j}": -getattr(spec, f"z{j}") for j in self.modes}
        if base is None or any(not ranges[n][0] <= float(v) <= ranges[n][1] for n, v in turned.items()):
            return None
        return replace(spec, **{f.name: getattr(base, f.name) for f in fields(base)}, **turned)

    def starts(self, ranges: dict[str, tuple[float, float]], *, geometry: plain.Geometry) -> np.ndarray:
        """Start points of the plain confocal search, the new parameters at alternating shares of their ranges."""
        base = optics.starts(ranges, geometry=geometry)
        columns = []
        for i, f in enumerate(self.FIELDS[len(plain.FIELDS) :]):
            low, high = ranges[f.name]
            share = np.array([SHARES[(i + row) % len(SHARES)] for row in range(len(base))])
            columns.append((low + high) / 2 + share * (high - low) / 2)
        return np.column_stack([base, *columns])


def with_zernike(
    modes: Sequence[int] = (5, 6, 7, 8), *, limit: float = LIMIT, slanted: bool = False, polarised: bool = False
) -> Aberrated:
    """The confocal modality with Zernike coefficients beyond spherical aberration.

    Args:
        modes: Noll indices from 5 on; 11 is `spherical_aberr` already. An empty tuple gives the plain modality by the
            general route.
        limit: half width of each coefficient's default range, waves rms at 520 nm; the quadrature resolves up to it.
        slanted: add `slant_x`, `slant_y`, the shift of the spot per depth (um per um).
        polarised: add `s1`, `s2`, Stokes parameters of the excitation: linear along x, and at 45 degrees.

    Raises:
        ValueError: a mode that is no parameter.
    """
    modes = tuple(int(j) for j in modes)
    for j in modes:
        zernike.noll(j)
        if j in zernike.PISTON_TILT_DEFOCUS:
            raise ValueError(f"Zernike mode {j} is piston, tilt or defocus, which only move the image; expected 5 or more")
        if j == 11:
            raise ValueError("Zernike mode 11 is spherical_aberr already; leave it out")
    if len(set(modes)) < len(modes):
        raise ValueError(f"Zernike modes {list(modes)} name one twice")
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit:g} waves; expected more than 0 and at most 1")
    return Aberrated(modes, float(limit), bool(slanted), bool(polarised))


@lru_cache(maxsize=64)
def _fields(modality: Aberrated) -> tuple[Field, ...]:
    limit = modality.limit
    extra = [Field(f"z{j}", f"Z{j}", "waves rms", 0.0, -limit, limit, "offset") for j in modality.modes]
    if modality.slanted:
        extra += [Field(f"slant_{a}", f"t_{a}", "um/um", 0.0, -SLANT_LIMIT, SLANT_LIMIT, "offset") for a in "xy"]
    if modality.polarised:
        extra += [Field(s, s, "1", 0.0, -1.0, 1.0, "offset") for s in ("s1", "s2")]
    return (*plain.FIELDS, *extra)


@lru_cache(maxsize=64)
def _spec_type(modality: Aberrated) -> Any:
    made = make_dataclass("AberratedSpec", [(name, Array) for name in names(_fields(modality))], frozen=True)
    return jax.tree_util.register_dataclass(made)


@lru_cache(maxsize=16)
def tables(geometry: Geometry, modality: Aberrated) -> Tables:
    """Constants, cached; seconds for a 256 x 256 field, whose matrices take some 0.5 GB per wavelength."""
    shortest = min(w for w in (geometry.excitation_nm, geometry.emission_nm) if w is not None)
    slant_um = SLANT_LIMIT * geometry.voxel_um[0] * (geometry.shape[0] // 2) if modality.slanted else 0.0
    turn = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    at_rim = [np.abs(zernike.zernike(j, np.ones(1), turn)) for j in modality.modes]
    peak_um = REFERENCE_UM * modality.limit * float(np.sum(at_rim, axis=0).max() if at_rim else 0.0)
    nodes = optics.aperture(geometry, extra_um=peak_um + geometry.na * slant_um)
    rho = np.sin(nodes.theta)[:, None] * geometry.immersion_index / geometry.na

    def modes(phi: np.ndarray) -> np.ndarray:
        shapes = [_gauged(zernike.zernike(j, rho, phi[None]), zernike.noll(j)[1], nodes) for j in modality.modes]
        return np.stack(shapes) if shapes else np.zeros((0, rho.size, phi.size))

    slant = geometry.na * slant_um * np.stack([rho * np.cos(turn), rho * np.sin(turn)])
    bends = np.concatenate([REFERENCE_UM * modality.limit * modes(turn), slant])
    orders = max(pupil.orders_needed(2e3 * np.pi / shortest * bends, np.ones(len(bends))), 2)
    sin, n_i = np.sin(nodes.theta), geometry.immersion_index

    def lateral(shape: tuple[int, int], pixel_um: tuple[float, float], nm: float) -> pupil.Lateral:
        return pupil.lateral(shape, pixel_um, sin, n_i, 1e-3 * nm, orders)

    shapes, (shape, pixel) = modes(pupil.angles(orders)), (geometry.shape[1:], geometry.voxel_um[1:])
    if geometry.excitation_nm is None:
        return Tables(nodes, shapes, None, lateral(shape, pixel, geometry.emission_nm), None)
    emission_um = 1e-3 * geometry.emission_nm
    radius = geometry.pinhole_au * pinhole.airy_radius_um(emission_um, geometry.na)
    hole = pupil.pinhole_filter(pixel, 2 * geometry.na / emission_um, radius)
    emission = lateral(*pupil.fine_grid(hole, shape, pixel), geometry.emission_nm)
    return Tables(nodes, shapes, lateral(shape, pixel, geometry.excitation_nm), emission, hole)


def _gauged(mode: np.ndarray, order: int, nodes: optics.Aperture) -> np.ndarray:
    """A mode (theta, phi) of angular order 0 without piston and defocus, of unit rms; others as they are."""
    if order != 0:
        return mode
    profile = nodes.projector @ mode[:, 0]
    profile = profile / stratified.pupil_rms(profile, nodes.theta, nodes.weight)
    return np.broadcast_to(profile[:, None], mode.shape)
