"""SHG frames seen through an aberrated collection objective: the SHG modality with Zernike coefficients in its pupil.

    modality = with_zernike((5, 6, 7, 8))

    E_k(x, y) = sum over rays of T_k(theta) exp(2 pi i sum_j z_j Z_j(rho, phi)) exp(i k_2w sin (x cos phi + y sin phi)) sin

with T_k of `diffphys.shg.optics` and rho = theta's sine over that of the aperture as it is (it moves with
collection_na_mismatch). Gauss-Legendre in theta, trapezoid in phi: spectral, and every node may move. The spec has one more
traced leaf per mode, `z4` ..., in waves rms at the harmonic's wavelength. Defocus (4) is a parameter here: in one plane the
slab may lie out of focus. Piston and tilt only move the image.

What a blind calibration can see: the periodogram is averaged over mirror images, and so is the model for it. Coma's and
trefoil's directions and the sign of `z5` are lost, all signs at once only change with p_m's sign, and small
coefficients enter quadratically. Exact for one and two frames; three are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.fft import rfftn
from diffphys.optics import zernike
from diffphys.optics.quadrature import gauss_legendre, nodes_needed
from diffphys.primitives.convolve import filter_field, otf, padded_shape
from diffphys.primitives.graph import Graph
from diffphys.primitives.modulate import modulate
from diffphys.shg import optics
from diffphys.shg import spec as plain
from diffphys.shg.forward import excitation, pipeline
from diffphys.shg.spec import Geometry
from diffphys.spec import Field, names, parse
from diffphys.types import Array, Frames, Image, Transfer, expect_axes

LIMIT = 0.15  # waves rms at the harmonic: default range of a coefficient
SHARES = (0.6, -0.4, 0.35, -0.6)  # of the range: where blind searches start


@dataclass(frozen=True)
class Aberrated:
    """A modality: `diffphys.shg` with more traced parameters. Only which modes there are is static.

    Attributes:
        modes: Noll indices.
        limit: half width of the default range of each coefficient, waves rms.
    """

    modes: tuple[int, ...]
    limit: float = LIMIT

    NAME = "shg"
    MODULATION_FIELDS = ("excitation_power_fluctuation",)
    TRADE_OFF: ClassVar[tuple[str, ...]] = ()
    BIASED: ClassVar[Mapping[str, float]] = {}
    Geometry: ClassVar[Any] = plain.Geometry
    sampling_warnings = staticmethod(plain.sampling_warnings)
    weak = staticmethod(plain.weak)
    block = staticmethod(plain.block)
    derived = staticmethod(optics.derived)
    twin = staticmethod(optics.twin)

    @property
    def FIELDS(self) -> tuple[Field, ...]:
        return _fields(self)

    @property
    def Spec(self) -> Any:
        return _spec_type(self)

    def nominal(self, geometry: plain.Geometry | None = None) -> Any:
        """No error of any kind."""
        del geometry
        return parse(self.Spec, self.FIELDS, {f.name: f.nominal for f in self.FIELDS})

    def default_ranges(self, geometry: plain.Geometry | None = None) -> dict[str, tuple[float, float]]:
        return plain.default_ranges(geometry) | {f.name: (f.low, f.high) for f in self.FIELDS[len(plain.FIELDS) :]}

    def check_ranges(self, ranges: Mapping[str, tuple[float, float]], geometry: plain.Geometry) -> None:
        """Raise where a range leaves the model's validity or what its quadrature resolves."""
        if geometry.detection != "imaging":
            raise ValueError(f"detection is {geometry.detection!r}; Zernike modes need the imaging collection objective")
        plain.check_ranges(ranges, geometry)
        for f in self.FIELDS[len(plain.FIELDS) :]:
            if ranges[f.name][0] < f.low or ranges[f.name][1] > f.high:
                raise ValueError(f"range of {f.name} is {list(ranges[f.name])}; expected within [{f.low:g}, {f.high:g}]")

    def intensity(self, spec: Any, *, geometry: plain.Geometry) -> Array:
        """|E_k|^2 (frame, y, x) over the reference frame's sum, as `diffphys.shg.optics.radial_intensity`."""
        node, weight, phi = _rule(geometry, self)
        dtype = jnp.asarray(spec.phase_matching_error).dtype
        k = optics.wave_number(geometry)
        edge = jnp.arcsin((geometry.na + spec.collection_na_mismatch) / geometry.index)
        theta = edge * jnp.asarray(node, dtype)
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        tilt = -2 * k * jnp.sin(theta / 2) ** 2  # k (cos - 1) without its cancellation
        mismatch = 2 * (spec.phase_matching_error + jnp.asarray(geometry.phase_offsets_rad, dtype)) / geometry.slab_um
        slab = jnp.exp(optics.slab_exponent(tilt + mismatch[:, None], geometry.slab_um))
        pupil = edge * jnp.asarray(weight, dtype) * sin * jnp.sqrt(cos) * slab  # (frame, theta)
        rays = (sin[:, None] * jnp.asarray(np.cos(phi), dtype), sin[:, None] * jnp.asarray(np.sin(phi), dtype))
        rho = sin / jnp.sin(edge)
        waves = jnp.zeros_like(rays[0])
        for j in self.modes:
            waves = waves + getattr(spec, f"z{j}") * _mode(j, rho, phi)
        wave = pupil[:, :, None] * jnp.exp(2j * math.pi * waves) / phi.size
        y, x = (
            jnp.asarray(k * d * (np.arange(n) - n // 2), dtype) for n, d in zip(geometry.shape, geometry.pixel_um, strict=True)
        )
        along_y = jnp.exp(1j * y[:, None] * rays[1].ravel())
        along_x = jnp.exp(1j * x[:, None] * rays[0].ravel())
        field = jnp.einsum("kr,yr,xr->kyx", wave.reshape(len(mismatch), -1), along_y, along_x, optimize="optimal")
        return (field.real**2 + field.imag**2) / optics.tables(geometry).reference

    @partial(jax.jit, static_argnames=("self", "geometry"))
    def psf(self, spec: Any, *, geometry: plain.Geometry) -> Frames:
        """Intensity PSF of each frame (frame, y, x), unit sum; index n//2 is the image of the point without aberration."""
        h = self.intensity(spec, geometry=geometry)
        return h / h.sum((1, 2), keepdims=True)

    @partial(jax.jit, static_argnames=("self", "geometry"))
    def transfer(self, spec: Any, *, geometry: plain.Geometry) -> Transfer:
        """As `diffphys.shg.transfer`: PSFs times their efficiency, unit sum for a single frame."""
        h = self.intensity(spec, geometry=geometry)
        h = h if geometry.frames > 1 else h / h.sum()
        return Transfer(h[:, None], jnp.ones((1, 1, 1), h.dtype), excitation(spec, geometry=geometry))

    @partial(jax.jit, static_argnames=("self", "geometry"))
    def forward(self, spec: Any, x: Image, *, geometry: plain.Geometry) -> Frames:
        """As `diffphys.shg.forward`."""
        expect_axes("x", x, Image)
        padded = padded_shape(geometry.shape, x.shape, geometry.shape)
        psfs, _, power = self.transfer(spec, geometry=geometry)
        return modulate(power, filter_field(otf(psfs[:, 0], padded), x, padded=padded, field=geometry.shape))

    def pipeline(self, spec: Any, *, geometry: plain.Geometry, specimen: Sequence[int] | None = None) -> Graph:
        """As `diffphys.shg.pipeline`."""
        return pipeline(spec, geometry=geometry, specimen=specimen, transfer_of=self.transfer)

    @partial(jax.jit, static_argnames=("self", "geometry", "finer"))
    def otf_quadrant(self, spec: Any, *, geometry: plain.Geometry, finer: tuple[int, int] = (1, 1)) -> tuple[Array, Array]:
        """Numbers whose products are the mirror images' mean of Re H_j H_k^*: (frame, |nu_y|, |nu_x|), twice.

        A 2 x 2 matrix of them is a a^T + b b^T by Cholesky's factors; three frames would need a third.
        """
        if geometry.frames > 2:
            raise ValueError("three frames through an aberrated pupil cannot be folded; calibrate with one or two frames")
        size = tuple(f * n for f, n in zip(finer, geometry.shape, strict=True))
        h = rfftn(self.transfer(spec, geometry=geometry).psfs[:, 0], size)
        pairs = (h[:, None] * h[None].conj()).real
        here, there = np.arange(size[0] // 2 + 1), (-np.arange(size[0] // 2 + 1)) % size[0]
        pairs = (jnp.take(pairs, here, 2) + jnp.take(pairs, there, 2)) / 2
        tiny = jnp.finfo(pairs.dtype).eps ** 2  # beyond the band a zero would have no derivative
        first = jnp.sqrt(pairs[0, 0] + tiny)
        if geometry.frames == 1:
            return first[None], jnp.zeros_like(first)[None]
        second = pairs[1, 0] / first
        rest = jnp.sqrt(jnp.maximum(pairs[1, 1] - second**2, 0.0) + tiny)
        return jnp.stack([first, second]), jnp.stack([jnp.zeros_like(rest), rest])

    def starts(self, ranges: dict[str, tuple[float, float]], *, geometry: plain.Geometry) -> np.ndarray:
        """Start points of the plain SHG search, the new parameters at alternating shares of their ranges."""
        base = optics.starts({f.name: ranges[f.name] for f in plain.FIELDS}, geometry=geometry)
        columns = []
        for i, f in enumerate(self.FIELDS[len(plain.FIELDS) :]):
            low, high = ranges[f.name]
            share = np.array([SHARES[(i + row) % len(SHARES)] for row in range(len(base))])
            columns.append((low + high) / 2 + share * (high - low) / 2)
        return np.column_stack([base, *columns])


def with_zernike(modes: Sequence[int] = (5, 6, 7, 8), *, limit: float = LIMIT) -> Aberrated:
    """The SHG modality with Zernike coefficients of the collection pupil.

    Args:
        modes: Noll indices from 4 (defocus) on.
        limit: half width of each coefficient's default range, waves rms at the harmonic.

    Raises:
        ValueError: a mode that is no parameter.
    """
    modes = tuple(int(j) for j in modes)
    for j in modes:
        zernike.noll(j)
        if j < 4:
            raise ValueError(f"Zernike mode {j} is piston or tilt, which only move the image; expected 4 or more")
    if len(set(modes)) < len(modes):
        raise ValueError(f"Zernike modes {list(modes)} name one twice")
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit:g} waves; expected more than 0 and at most 1")
    return Aberrated(modes, float(limit))


@lru_cache(maxsize=64)
def _fields(modality: Aberrated) -> tuple[Field, ...]:
    limit = modality.limit
    return (*plain.FIELDS, *(Field(f"z{j}", f"Z{j}", "waves rms", 0.0, -limit, limit, "offset") for j in modality.modes))


@lru_cache(maxsize=64)
def _spec_type(modality: Aberrated) -> Any:
    made = make_dataclass("AberratedSpec", [(name, Array) for name in names(_fields(modality))], frozen=True)
    return jax.tree_util.register_dataclass(made)


def _mode(j: int, rho: Array, phi: np.ndarray) -> Array:
    """Z_j (theta, phi) at a traced radius: the polynomial by its coefficients in rho."""
    n, m = zernike.noll(j)
    at = np.linspace(0.0, 1.0, n + 1)
    coefficients = np.linalg.solve(np.vander(at, n + 1, increasing=True), zernike.radial(n, m, at))
    profile = sum(
        (jnp.asarray(float(c), rho.dtype) * rho**i for i, c in enumerate(coefficients.round(9)) if c), jnp.zeros_like(rho)
    )
    scale = math.sqrt(n + 1 if m == 0 else 2 * (n + 1))
    turn = np.cos(m * phi) if m >= 0 else np.sin(-m * phi)
    return scale * profile[:, None] * jnp.asarray(turn, rho.dtype)


@lru_cache(maxsize=16)
def _rule(geometry: Geometry, modality: Aberrated) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights on (0, 1) for theta / theta_c, and the angles phi."""
    phi = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    at_rim = [np.abs(zernike.zernike(j, np.ones(1), phi)) for j in modality.modes]
    waves = modality.limit * float(np.sum(at_rim, axis=0).max() if at_rim else 0.0)
    path = optics.path_range_um(geometry) + waves * geometry.harmonic_um
    node, weight = gauss_legendre(nodes_needed(path, geometry.harmonic_um), 0.0, 1.0)
    steepest = max((abs(zernike.noll(j)[1]) for j in modality.modes), default=0)
    reach = 2 * math.pi * (path / geometry.harmonic_um) + 2 * math.pi * waves * max(steepest - 1, 0)
    count = 8 * math.ceil((reach + 24) / 8)  # exp(i z cos phi) has harmonics up to z + a few
    return node, weight, 2 * np.pi * np.arange(count) / count
