"""Vectorial field of any pupil phase W(theta, phi), by angular harmonics: spectral in theta and phi, no pupil grid.

F_m(r, psi, u) = sum over nodes of w A_m exp(i m phi) exp(i k0 W) exp(i k0 n_i r sin(theta) cos(phi - psi))
                 exp(-i k0 n_i (cos(theta) - 1) u) sqrt(cos) sin,   m = -2 ... 2, A_-m = A_m

are the five components of the focused field of circular light (Richards & Wolf, Proc. R. Soc. A 253:358, 1959). With the
Fourier coefficients P_l(theta) of the pupil (Gauss-Legendre in theta, trapezoid in phi) the lateral transform is Jacobi &
Anger's sum over i^l J_l(k0 n_i r sin theta) exp(i l psi): real constant matrices over one quadrant of pixels, whose parts
even and odd in l give all four quadrants. Nothing but the coefficients is traced.

    |E|^2 = |F_0|^2 + |F_1|^2 + |F_-1|^2 + (|F_2|^2 + |F_-2|^2) / 2       (unpolarised light; isotropic dipoles)
            + Re[(s1 - i s2) (2 F_1 F_-1^* - F_0 F_-2^* - F_2 F_0^*)]     (linear polarisation, Stokes s1, s2)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy

from diffphys.fft import irfftn, rfftn
from diffphys.types import Array, ArrayLike

TAIL = 1e-4  # amplitude of the angular harmonics left out, at the extreme corner of the ranges
MOST_ORDERS = 64


class Lateral(NamedTuple):
    """Constant matrices (quadrant pixel, order x node): J_l cos(l psi) and J_l sin(l psi), l even and l odd.

    `orders` is L, the largest |l|; `shape` (y, x) the grid, centred on n//2, whose quadrant this is.
    """

    cos_even: np.ndarray
    cos_odd: np.ndarray
    sin_even: np.ndarray
    sin_odd: np.ndarray
    orders: int
    shape: tuple[int, int]


def angles(orders: int) -> np.ndarray:
    """Trapezoid nodes phi that resolve harmonics up to L + 2 twice over."""
    count = 4 * (orders + 3)
    return 2 * np.pi * np.arange(count) / count


def orders_needed(modes: np.ndarray, limits: np.ndarray) -> int:
    """L such that no pupil exp(i sum_j c_j modes_j), |c_j| <= limits_j, has harmonics above TAIL beyond it.

    `modes` (mode, theta, phi) in radians per unit. Corners of the box are tried, at most 65 of them.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(64, len(modes)))
    corners = np.concatenate([np.ones((1, len(modes))), signs]) * limits
    worst = np.zeros(modes.shape[-1])
    for corner in corners:
        spectrum = np.abs(np.fft.fft(np.exp(1j * np.tensordot(corner, modes, 1)), axis=-1)) / modes.shape[-1]
        worst = np.maximum(worst, spectrum.max(axis=0))
    order = np.abs(np.fft.fftfreq(worst.size, 1 / worst.size))
    needed = int(order[worst > TAIL].max())
    if needed > MOST_ORDERS:
        raise ValueError(
            f"the Zernike ranges reach {np.abs(np.tensordot(limits, np.abs(modes), 1)).max():.0f} rad of phase, {needed} "
            f"angular orders; expected at most {MOST_ORDERS}: narrow the ranges or use fewer modes"
        )
    return needed


def lateral(
    shape: tuple[int, int], pixel_um: tuple[float, float], sin_theta: np.ndarray, n_i: float, wavelength_um: float, orders: int
) -> Lateral:
    """Constants for a centred (y, x) grid; float64. Memory: (ny/2) (nx/2) (2L+1) nodes numbers."""
    y = pixel_um[0] * np.arange(shape[0] // 2 + 1)[:, None]
    x = pixel_um[1] * np.arange(shape[1] // 2 + 1)[None]
    psi = np.arctan2(y, x * np.ones_like(y)).ravel()
    radii, index = np.unique(np.hypot(y, x).round(9).ravel(), return_inverse=True)
    bessel = bessel_orders(orders, 2 * np.pi / wavelength_um * n_i * np.outer(radii, sin_theta))

    def matrix(numbers: range, turn: Callable[..., np.ndarray]) -> np.ndarray:
        blocks = [bessel[order][index] * turn(order * psi)[:, None] for order in numbers]
        return np.concatenate(blocks, axis=1) if blocks else np.zeros((psi.size, 0))

    even, odd = range(0, orders + 1, 2), range(1, orders + 1, 2)
    return Lateral(matrix(even, np.cos), matrix(odd, np.cos), matrix(even[1:], np.sin), matrix(odd, np.sin), orders, shape)


def bessel_orders(orders: int, argument: np.ndarray, *, chunk: int = 4096) -> np.ndarray:
    """J_0 ... J_L of a real array, (L+1, *shape): Fourier coefficients of exp(i z sin phi), exact to rounding (Bessel 1824)."""
    z = argument.ravel()
    count = 8 * math.ceil((float(np.abs(z).max(initial=0.0)) + orders + 40) / 8)
    sine, out = np.sin(2 * np.pi * np.arange(count) / count), np.empty((orders + 1, z.size))
    for first in range(0, z.size, chunk):
        part = slice(first, first + chunk)
        out[:, part] = np.fft.fft(np.exp(1j * z[part, None] * sine), axis=1).real[:, : orders + 1].T / count
    return out.reshape(orders + 1, *argument.shape)


def harmonics(pupil: Array, orders: int) -> Array:
    """Fourier coefficients P_l, l = -(L+2) ... L+2, of a pupil (theta, phi, ...) on `angles(orders)`: (l, theta, ...)."""
    order = np.arange(-orders - 2, orders + 3)
    kernel = np.exp(-1j * np.outer(order, angles(orders))) / angles(orders).size
    return jnp.einsum("lp,tp...->lt...", jnp.asarray(kernel, pupil.dtype), pupil)


def fields(constants: Lateral, coefficients: Array, amplitudes: tuple[Array, ...], axial: Array) -> Array:
    """F_m on the whole grid, complex (m = -2 ... 2, plane, y, x).

    Args:
        constants: of `lateral`.
        coefficients: (2L+5, theta, plane or 1), `harmonics` of the pupil's phase factor.
        amplitudes: (A_0, A_1, A_2), (theta,) each, quadrature and apodisation included; real or complex.
        axial: (theta, plane) phase factor of defocus.
    """
    top, planes = constants.orders, axial.shape[1]
    weights = jnp.stack([amplitudes[abs(m)] for m in range(-2, 3)])
    # l-th harmonic of A_m exp(i m phi) P is A_m P_(l-m); stored from -(L+2) on
    shifted = jnp.stack([coefficients[2 - m : 2 - m + 2 * top + 1] for m in range(-2, 3)], axis=2)
    shifted = shifted * weights.T[None, :, :, None] * axial[None, :, None, :]  # (l, theta, m, plane)
    turn = jnp.asarray(1j ** (np.arange(top + 1) % 4), shifted.dtype)[:, None, None, None]
    plus, minus = shifted[top:], shifted[top::-1]
    both = turn * (plus + minus) * jnp.asarray([0.5] + [1.0] * top, weights.dtype)[:, None, None, None]
    difference = 1j * turn * (plus - minus)

    def apply(matrix: np.ndarray, part: Array) -> Array:
        columns = part.reshape(matrix.shape[1], -1)
        split = jnp.asarray(matrix, columns.real.dtype) @ jnp.concatenate([columns.real, columns.imag], axis=1)
        return split[:, : columns.shape[1]] + 1j * split[:, columns.shape[1] :]

    ce, co = apply(constants.cos_even, both[::2]), apply(constants.cos_odd, both[1::2])
    se, so = apply(constants.sin_even, difference[2::2]), apply(constants.sin_odd, difference[1::2])
    quadrants = (ce + co + se + so, ce - co - se + so, ce + co - se - so, ce - co + se - so)  # (+y+x), (+y-x), (-y+x), (-y-x)
    ny, nx = constants.shape
    tiles = [q.reshape(ny // 2 + 1, nx // 2 + 1, 5, planes) for q in quadrants]
    upper = jnp.concatenate([tiles[3][:0:-1, :0:-1], tiles[2][:0:-1]], axis=1)
    lower = jnp.concatenate([tiles[1][:, :0:-1], tiles[0]], axis=1)
    return jnp.moveaxis(jnp.concatenate([upper, lower])[:ny, :nx], (0, 1), (2, 3))


def intensity(field: Array, *, stokes: tuple[ArrayLike, ArrayLike] = (0.0, 0.0)) -> Array:
    """|E|^2 (plane, y, x) of the five components, for unpolarised light or with linear polarisation (s1 along x, s2 at 45 deg).

    Twice pi squared times smaller than `debye.intensity`: the angular mean stands for the integral.
    """
    power = field.real**2 + field.imag**2
    total = power[2] + power[1] + power[3] + 0.5 * (power[0] + power[4])
    s1, s2 = stokes
    if isinstance(s1, float) and isinstance(s2, float) and s1 == s2 == 0.0:
        return total
    cross = 2 * field[3] * field[1].conj() - field[2] * field[0].conj() - field[4] * field[2].conj()
    return total + s1 * cross.real + s2 * cross.imag


class Pinhole(NamedTuple):
    """Disc average as a finite filter on a grid finer by `finer` (y, x) and larger by `margin` fine pixels on every side."""

    kernel: np.ndarray
    finer: tuple[int, int]
    margin: tuple[int, int]


def pinhole_filter(pixel_um: tuple[float, float], band_per_um: float, radius_um: float, *, reach: int = 8) -> Pinhole:
    """Filter whose transfer is that of the disc, 2 J1(x)/x, for every frequency up to `band_per_um` (2 NA / wavelength).

    An intensity has no frequency beyond its band, so a filter that is right inside the band is exact: least squares over
    the band. Pixels too coarse for the band are divided. Axes (y, x); `reach` pixels beyond the disc.
    """
    finer = tuple(max(1, math.ceil(2 * p * band_per_um / 0.9)) for p in pixel_um)
    step = np.array([p / f for p, f in zip(pixel_um, finer, strict=True)])
    half = np.ceil(radius_um / step).astype(int) + reach
    if radius_um == 0:
        return Pinhole(np.ones((1, 1)), (1, 1), (0, 0))
    count = 2 * half.max() + 8
    axis = np.linspace(0, band_per_um, count)
    nu_y, nu_x = (v.ravel() for v in np.meshgrid(axis, axis, indexing="ij"))
    inside = np.hypot(nu_y, nu_x) <= band_per_um * 1.0001
    nu_y, nu_x = nu_y[inside], nu_x[inside]
    x = 2 * np.pi * radius_um * np.hypot(nu_y, nu_x)
    target = np.where(x > 0, 2 * scipy.special.jv(1, x) / np.maximum(x, 1e-12), 1.0)
    cosines = [
        np.cos(2 * np.pi * np.outer(nu, d * np.arange(h + 1))) * np.array([1.0] + [2.0] * h)
        for nu, d, h in zip((nu_y, nu_x), step, half, strict=True)
    ]
    design = (cosines[0][:, :, None] * cosines[1][:, None, :]).reshape(len(target), -1)
    quadrant = np.linalg.lstsq(design, target, rcond=1e-9)[0].reshape(half + 1)
    kernel = np.concatenate([quadrant[:0:-1], quadrant])
    kernel = np.concatenate([kernel[:, :0:-1], kernel], axis=1)
    return Pinhole(kernel, (finer[0], finer[1]), (int(half[0]), int(half[1])))


def fine_grid(
    pinhole: Pinhole, shape: tuple[int, int], pixel_um: tuple[float, float]
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Shape (odd) and pitch of the grid that `pinhole_average` takes."""
    size = tuple(2 * (f * (n // 2) + m) + 1 for n, f, m in zip(shape, pinhole.finer, pinhole.margin, strict=True))
    return (size[0], size[1]), (pixel_um[0] / pinhole.finer[0], pixel_um[1] / pinhole.finer[1])


def pinhole_average(pinhole: Pinhole, image: Array, shape: tuple[int, int]) -> Array:
    """Mean over the pinhole at the pixels of `shape`, from (plane, *fine_grid): no sample wraps around."""
    size = image.shape[-2:]
    if pinhole.kernel.size > 1:
        centred = np.zeros(size)
        (my, mx), (ky, kx) = pinhole.margin, pinhole.kernel.shape
        centred[:ky, :kx] = pinhole.kernel
        transfer = np.fft.rfft2(np.roll(centred, (-my, -mx), (0, 1))).real
        image = irfftn(rfftn(image, size) * jnp.asarray(transfer, image.dtype), size)
    cut = [slice(m, m + f * (n - 1) + 1, f) for n, f, m in zip(shape, pinhole.finer, pinhole.margin, strict=True)]
    return image[..., cut[0], cut[1]]
