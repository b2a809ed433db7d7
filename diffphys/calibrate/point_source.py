"""Non-blind calibration: fit a modality's PSF to the image of a point.

In: counts of a point, or a distilled PSF. Out: a `Calibration` whose parameters are the spec within its ranges; position,
amplitude and background are fitted along and reported in the diagnostics.

    y = amplitude * h(spec; position) + background + noise,   noise variance from sigma or from the detector

Levenberg-Marquardt (Marquardt, SIAM J. Appl. Math. 11:431, 1963) on forward-mode Jacobians, from several starts with both
signs of the aberration. The covariance is that of the fit times the reduced chi^2, raised to the block sandwich estimate
where residuals are correlated (White, Econometrica 50:1, 1982).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from diffphys.calibrate import fisher_scoring
from diffphys.calibrate.covariance import propagated
from diffphys.calibrate.detector import estimate
from diffphys.fft import irfftn, rfftn
from diffphys.measured import Measured
from diffphys.noise import Detector
from diffphys.optics.sampling import confocal_nyquist_um, widefield_nyquist_um
from diffphys.spec import Box, from_vector, parse_ranges
from diffphys.types import Array, Calibration, Modality, Status, resolve

PAD = 6  # voxels of PSF computed around the data, tapered, so that the Fourier shift wraps nothing into them
MISFIT_CHI2 = 2.0  # noise levels are known to 5 %, chi^2 to 1 %: twice the expected misfit cannot be noise
NARROWEST = 0.7  # a measured PSF narrower than this share of the diffraction limit contradicts its voxel size
KNOT = 0.8  # pixels between the knots of the radial spline
SOURCE_UM = 0.3  # largest rms radius per axis of the source that may be fitted
SIGN_SHOWS = 0.02  # of the range: a coefficient larger than this is tried with the other sign too
CHUNK = 8  # iterations between checks of convergence
BLOCK = 8  # pixels of a block of the sandwich estimate


class Problem(NamedTuple):
    """Data and constants of one fit; q = (unit spec, position / voxel, source / SOURCE_UM^2, amplitude, background)."""

    y: Array
    weight: Array  # 1 / sigma
    box: Box
    start: np.ndarray  # position of the point relative to n//2, voxels
    scale: float  # amplitude that q counts in
    level: float  # background that q counts in


class Model(NamedTuple):
    """Static part of a fit: equal ones share a compiled program, whatever the data."""

    modality: Modality
    geometry: Any
    pads: tuple[int, ...]  # voxels computed around the data, per axis and side
    free: tuple[int, ...]  # indices of the spec's parameters that are fitted


def fit_psf(
    measured: Measured | np.ndarray,
    modality: Modality | str,
    *,
    geometry: Any,
    detector: Detector | None = None,
    ranges: Mapping[str, Sequence[float]] | None = None,
    sigma: np.ndarray | float | None = None,
    iterations: int = 56,
) -> Calibration:
    """Spec that explains the image of a point.

    Args:
        measured: a distilled PSF, or counts (z, y, x) or (frame, y, x) of one point in a window of its own.
        geometry: nominal instrument; its shape is replaced by the data's, its voxel size must be the data's.
        detector: for the noise of counts; estimated when neither it nor `sigma` is given.
        ranges: name -> (low, high), replacing the modality's defaults; low == high fixes a parameter.
        sigma: noise of each voxel, in the unit of the data; overrides the detector.

    Raises:
        ValueError: a PSF narrower than diffraction allows, or a voxel size that is not the geometry's.
    """
    modality = resolve(modality)
    y, sigma, detector, notes = _data(measured, modality, geometry, detector, sigma)
    geometry = modality.block(geometry, y.shape[y.ndim - len(geometry.shape) :])
    ranges = parse_ranges(modality.FIELDS, modality.default_ranges(geometry), ranges)
    modality.check_ranges(ranges, geometry)
    _expect_resolvable(y, modality, geometry)
    problem = _problem(y, sigma, modality, geometry, ranges)
    free = tuple(int(i) for i in np.flatnonzero(np.asarray(problem.box.half) > 0))
    model = Model(modality, geometry, _pads(problem.start), free)
    state, converged = _search(model, problem, iterations)
    prediction, jacobian = jax.device_get(_predicted(model, problem, state.q))
    return _summary(problem, modality, geometry, ranges, detector, state, converged, prediction, jacobian, notes)


def predict(calibration: Calibration, modality: Modality | str, *, geometry: Any, shape: Sequence[int]) -> np.ndarray:
    """The fitted image of the point, in the unit of the data that `fit_psf` saw; `shape` is theirs."""
    modality = resolve(modality)
    d = calibration.diagnostics
    geometry = modality.block(geometry, tuple(shape)[len(shape) - len(geometry.shape) :])
    psf_of, placed = _renderer(modality, geometry, _pads(d["position_voxels"]))
    image = placed(psf_of(calibration.spec), jnp.asarray(d["position_voxels"], jnp.float32), d["source_um"] ** 2)
    return np.asarray(d["amplitude"] * image.reshape(tuple(shape)) + d["background"])


def _data(
    measured: Any, modality: Modality, geometry: Any, detector: Detector | None, sigma: Any
) -> tuple[np.ndarray, np.ndarray, Detector, list[str]]:
    notes: list[str] = []
    if isinstance(measured, Measured):
        if not np.allclose(measured.voxel_um, geometry.voxel_um, rtol=1e-2):
            raise ValueError(f"PSF has voxels {measured.voxel_um} um, the geometry {geometry.voxel_um}; correct one")
        notes += measured.warnings
        return np.asarray(measured.psf), np.asarray(measured.sigma), detector or Detector(), notes
    y = np.asarray(measured, np.float64)
    if y.ndim not in (len(geometry.shape), len(geometry.shape) + 1) or not np.isfinite(y).all() or np.ptp(y) == 0:
        raise ValueError(f"y has shape {y.shape}; expected the finite image of one point with the axes of {geometry.shape}")
    if sigma is not None:
        return y, np.broadcast_to(np.asarray(sigma, np.float64), y.shape), detector or Detector(), notes
    field = modality.block(geometry, y.shape[y.ndim - len(geometry.shape) :])
    detector, notes_of_detector = estimate(y, modality, geometry=field, detector=detector)
    spatial = [0.0] * (y.ndim - len(geometry.shape)) + [0.7] * len(geometry.shape)
    gain, background, read = (float(np.asarray(v)) for v in (detector.gain, detector.background, detector.read_sigma))
    photons = np.maximum((scipy.ndimage.gaussian_filter(y, spatial) - detector.offset) / gain, background)
    rounding = 1.0 / 12 if (y == np.round(y)).all() else 0.0
    variance = gain**2 * np.maximum(photons + read**2, 0.01) + rounding
    return y, np.sqrt(variance), detector, [*notes, *notes_of_detector]


def _expect_resolvable(y: np.ndarray, modality: Modality, geometry: Any) -> None:
    """Aberrations widen a PSF: one much narrower than the nominal instrument's has the wrong voxel size or optics."""
    nominal = np.asarray(modality.psf(modality.nominal(geometry), geometry=geometry))
    pitch = _pitch(geometry)
    seen, ideal = _lateral_width(y), _lateral_width(nominal.reshape(y.shape))
    if ideal > 2 and seen < NARROWEST * ideal:
        raise ValueError(
            f"PSF is {seen * pitch[-1]:.2f} um wide, these optics allow {ideal * pitch[-1]:.2f} um: "
            f"the voxel size {tuple(pitch)} um (or na, wavelength) contradicts the data; correct it"
        )


def _pitch(geometry: Any) -> tuple[float, ...]:
    return tuple(getattr(geometry, "voxel_um", None) or geometry.pixel_um)


def _lateral_width(image: np.ndarray) -> float:
    """Diameter (pixels) of the disc as large as the area above half maximum, in the brightest plane."""
    plane = image.reshape(-1, *image.shape[-2:])[np.argmax(image.reshape(-1, image.shape[-2] * image.shape[-1]).max(1))]
    fine = scipy.ndimage.zoom(plane - np.median(plane), 3, order=1)
    spot, _ = scipy.ndimage.label(fine > 0.5 * fine.max())
    area = (spot == spot[np.unravel_index(np.argmax(fine), fine.shape)]).sum() / 9.0
    return float(2 * np.sqrt(area / np.pi))


def _problem(y: np.ndarray, sigma: np.ndarray, modality: Modality, geometry: Any, ranges: dict[str, Any]) -> Problem:
    spatial = len(geometry.shape)
    image = y.reshape(-1, *y.shape[-2:]).sum(0) if spatial == 2 else y
    level = float(np.quantile(y, 0.05))
    smooth = scipy.ndimage.gaussian_filter(image, [min(0.7, n / 16) for n in image.shape])
    core = np.clip(smooth - np.quantile(smooth, 0.05), 0, None)
    at = np.array(np.unravel_index(np.argmax(core), core.shape))
    near = np.zeros(core.shape)
    window = tuple(slice(max(a - 2, 0), a + 3) for a in at)
    near[window] = np.clip(core - 0.5 * core.max(), 0, None)[window]
    start = np.array(scipy.ndimage.center_of_mass(near)) - np.array(core.shape) // 2
    return Problem(
        jnp.asarray(y, jnp.float32),
        jnp.asarray(1 / sigma, jnp.float32),
        Box.of(modality.FIELDS, ranges),
        start,
        float(max((y - level).sum(), np.ptp(y))),
        float(np.ptp(y)),
    )


def _axial_oversampling(geometry: Any) -> int:
    """Planes computed per recorded one, so that the Fourier shift along z moves a PSF that is sampled finely enough."""
    if len(geometry.shape) == 2:
        return 1
    finest = confocal_nyquist_um if geometry.excitation_nm is not None else widefield_nyquist_um
    wavelength = 1e-3 * (geometry.excitation_nm or geometry.emission_nm)
    return max(1, math.ceil(geometry.voxel_um[0] / finest(wavelength, geometry.na, geometry.immersion_index)[0] - 0.05))


def _oversampled(modality: Modality, geometry: Any, shape: tuple[int, ...], factor: int) -> Callable[[Any], Array]:
    """spec -> PSF on `factor` times finer planes; the z-step error, added to every plane, is divided along."""
    field = modality.block(geometry, (shape[0] * factor, *shape[1:]))
    if factor == 1:
        return lambda spec: modality.psf(spec, geometry=field)
    fine = replace(field, voxel_um=(geometry.voxel_um[0] / factor, *geometry.voxel_um[1:]))
    return lambda spec: modality.psf(replace(spec, z_step=spec.z_step / factor), geometry=fine)


def _pads(start: Sequence[float] | np.ndarray) -> tuple[int, ...]:
    return tuple(PAD + math.ceil(abs(s)) for s in start)


def _renderer(modality: Modality, geometry: Any, pads: tuple[int, ...]) -> tuple[Callable, Callable]:
    """spec -> PSF on a larger and finer window; (that PSF, position in voxels, variance of the source) -> the image in the
    data's window, moved from n//2 by Fourier phases. The second is linear in the PSF."""
    shape = tuple(geometry.shape)
    larger = tuple(n + 2 * p for n, p in zip(shape, pads, strict=True))
    factors = [_axial_oversampling(geometry), 1, 1][: len(shape)]
    psf_of = _oversampled(modality, geometry, larger, factors[0])
    grid = tuple(f * n for f, n in zip(factors, larger, strict=True))
    pitch = [d / f for d, f in zip(_pitch(geometry), factors, strict=True)]
    frequencies = [np.fft.fftfreq(n) for n in grid[:-1]] + [np.fft.rfftfreq(grid[-1])]
    taper, window = np.ones((1,) * len(shape)), []
    for axis, (n, g, p, f) in enumerate(zip(shape, grid, pads, factors, strict=True)):
        edge = (np.minimum(np.arange(g), np.arange(g)[::-1]) + 0.5) / (f * (p - 1))
        taper = taper * _along(np.sin(0.5 * np.pi * np.clip(edge, 0, 1)) ** 2, axis, len(shape))
        first = g // 2 - f * (n // 2)
        window.append(slice(first, first + f * n, f))

    def placed(psf: Array, position: Array, source_um2: Array | float) -> Array:
        spectrum = rfftn(psf * taper, grid)
        for axis, (nu, d, f) in enumerate(zip(frequencies, pitch, factors, strict=True)):
            factor = jnp.exp(-2j * jnp.pi * nu * f * position[axis] - 2 * (jnp.pi * nu / d) ** 2 * source_um2)
            spectrum = spectrum * _along(factor, axis, len(shape))
        return irfftn(spectrum, grid)[(..., *window)]

    return psf_of, placed


def _along(line: Any, axis: int, ndim: int) -> Any:
    return line.reshape([-1 if a == axis else 1 for a in range(ndim)])


@partial(jax.jit, static_argnames="model")
def _predicted(model: Model, problem: Problem, q: Array) -> tuple[Array, Array]:
    """Image and (*data, Q) Jacobian; only the spec's free parameters are pushed through the optics, and once."""
    modality, free = model.modality, np.asarray(model.free, int)
    count, spatial = len(modality.FIELDS), len(model.geometry.shape)
    psf_of, placed = _renderer(modality, model.geometry, model.pads)

    def optics(moving: Array) -> Array:
        return psf_of(from_vector(modality.Spec, modality.FIELDS, problem.box.decode(q.at[free].set(moving)[:count])))

    def spread(psf: Array, rest: Array) -> Array:
        """Without the background: linear in the PSF."""
        return problem.scale * rest[-2] * placed(psf, rest[:spatial], SOURCE_UM**2 * rest[-3]).reshape(problem.y.shape)

    psf, push = jax.linearize(optics, q[free])
    image, turn = jax.linearize(lambda rest: spread(psf, rest) + problem.level * rest[-1], q[count:])
    others = jax.vmap(turn, out_axes=-1)(jnp.eye(q.size - count, dtype=q.dtype))
    optical = jax.vmap(lambda d: spread(push(d), q[count:]), out_axes=-1)(jnp.eye(len(free), dtype=q.dtype))
    fixed = jnp.zeros((*problem.y.shape, count), q.dtype)
    return image, jnp.concatenate([fixed.at[..., free].set(optical), others], axis=-1)


@partial(jax.jit, static_argnames="model")
def _minimised(
    model: Model, problem: Problem, box: fisher_scoring.Box, mask: Array, q: Array, iterations: Array
) -> fisher_scoring.State:
    """Damped Gauss-Newton from `q`, the wide prior of the spec's parameters included."""
    widths = [1.0 / f.prior_half_widths for f in model.modality.FIELDS]
    prior = jnp.asarray(widths + [0.0] * (q.size - len(widths)), q.dtype)

    def evaluate(q: Array) -> tuple[Array, Array, Array]:
        image, slopes = _predicted(model, problem, q)
        residual = ((image - problem.y) * problem.weight).ravel()
        jacobian = (slopes * problem.weight[..., None]).reshape(-1, q.size)
        value = 0.5 * jnp.vdot(residual, residual) + 0.5 * jnp.sum((prior * q) ** 2)
        return value, residual @ jacobian + prior**2 * q, jacobian.T @ jacobian + jnp.diag(prior**2)

    return fisher_scoring.minimise(evaluate, box, q, mask=mask, iterations=iterations)


def _search(model: Model, problem: Problem, iterations: int) -> tuple[fisher_scoring.State, bool]:
    """Short runs from the middle and from four corners of the first two free parameters, then the best one to its end.

    Parameters that may have either sign alike (ranges symmetric about 0, as the Zernike coefficients') are tried with both.
    """
    count = len(model.modality.FIELDS)
    free = np.isin(np.arange(count), model.free)
    spatial = len(problem.start)
    tail = np.concatenate([problem.start, [0.1, 1.0, float(np.quantile(problem.y, 0.05)) / problem.level]])
    corners = [np.zeros(count)]
    for signs in itertools.product((-0.5, 0.5), repeat=min(int(free.sum()), 2)):
        corner = np.zeros(count)
        corner[np.flatnonzero(free)[: len(signs)]] = signs
        corners.append(corner)
    reach = np.concatenate([np.ones(count), np.full(spatial, np.inf), [1.0, np.inf, np.inf]])
    low, high = -reach, reach.copy()
    low[count + spatial] = 0.0
    low[count : count + spatial], high[count : count + spatial] = problem.start - 4, problem.start + 4
    stride = np.concatenate([np.full(count, 0.4), np.full(spatial, 0.5), [0.1, np.inf, np.inf]])
    box = fisher_scoring.Box(*(jnp.asarray(v, jnp.float32) for v in (low, high, stride)))
    mask = jnp.asarray(np.concatenate([free, np.ones(spatial + 3)]), jnp.float32)

    def run(q: Array) -> fisher_scoring.State:
        return _minimised(model, problem, box, mask, q, jnp.asarray(CHUNK))

    trials = [run(jnp.asarray(np.concatenate([c, tail]), jnp.float32)) for c in corners]
    last = min(trials, key=_cost)
    for i in np.flatnonzero(free & (np.asarray(problem.box.middle) == 0.0)):
        if abs(float(last.q[i])) > SIGN_SHOWS:
            last = min(last, run(last.q.at[i].multiply(-1.0)), key=_cost)
    for _ in range(CHUNK, iterations, CHUNK):
        before, last = last, run(last.q)
        if float(before.value - last.value) <= 1e-2 + 1e-5 * float(last.value):
            return last, True
    return last, False


def _cost(state: fisher_scoring.State) -> float:
    return float(state.value) if np.isfinite(state.value) else np.inf


def _radial_chi2(y: np.ndarray, sigma: np.ndarray, position: np.ndarray) -> tuple[float, np.ndarray]:
    """Reduced chi^2 of the best radially symmetric image around the fitted position, and that image.

    Every plane is fitted by a cubic spline of the radius: no optics in it, so a bad value condemns them all.
    """
    planes, errors = y.reshape(-1, *y.shape[-2:]), sigma.reshape(-1, *y.shape[-2:])
    ny, nx = y.shape[-2:]
    row = np.arange(ny) - ny // 2 - position[-2]
    column = np.arange(nx) - nx // 2 - position[-1]
    radius = np.hypot(row[:, None], column[None]).ravel()
    knots = np.arange(-3, radius.max() / KNOT + 4) * KNOT
    basis = scipy.interpolate.BSpline.design_matrix(radius, knots, 3).toarray()
    image, used = np.zeros(planes.shape), 0
    for i, (plane, error) in enumerate(zip(planes, errors, strict=True)):
        weight = 1 / error.ravel()
        fitted, _, rank, _ = np.linalg.lstsq(basis * weight[:, None], plane.ravel() * weight, rcond=1e-8)
        image[i], used = (basis @ fitted).reshape(ny, nx), used + int(rank)
    chi2 = (((planes - image) / errors) ** 2).sum() / max(y.size - used, 1)
    return float(chi2), image.reshape(y.shape)


def _covariance(
    q: np.ndarray, problem: Problem, fields: Sequence[Any], jacobian: np.ndarray, residual: np.ndarray
) -> tuple[np.ndarray, float]:
    """Covariance of q, misfit and correlated residuals included, and the reduced chi^2."""
    free = np.ones(q.size, bool)
    free[: len(fields)] = np.asarray(problem.box.half) > 0
    weighted = jacobian[..., free].reshape(-1, free.sum()).astype(np.float64)
    prior = np.array([1.0 / f.prior_half_widths for f in fields] + [0.0] * (q.size - len(fields)))[free]
    scale = np.maximum(np.linalg.norm(weighted, axis=0), 1e-12)
    normal = weighted.T @ weighted + np.diag(prior**2)
    inverse = np.linalg.pinv(normal / np.outer(scale, scale), hermitian=True) / np.outer(scale, scale)
    chi2 = float((residual**2).sum() / max(residual.size - free.sum(), 1))
    cover = inverse * max(chi2, 1.0)
    ny, nx = residual.shape[-2:]
    block = (np.arange(ny)[:, None] // BLOCK) * (nx // BLOCK + 1) + np.arange(nx)[None] // BLOCK
    label = np.broadcast_to(block, residual.shape).ravel()
    scores = np.stack([np.bincount(label, column * residual.ravel()) for column in weighted.T], 1)
    robust = inverse @ (scores.T @ scores) @ inverse
    grow = np.sqrt(np.maximum(np.diag(robust) / np.maximum(np.diag(cover), 1e-300), 1.0)) if chi2 > MISFIT_CHI2 else 1.0
    full = np.zeros((q.size, q.size))
    full[np.ix_(free, free)] = cover * np.outer(grow, grow) if np.ndim(grow) else cover
    return full, chi2


def _summary(
    problem: Problem,
    modality: Modality,
    geometry: Any,
    ranges: dict[str, tuple[float, float]],
    detector: Detector,
    state: fisher_scoring.State,
    converged: bool,
    prediction: np.ndarray,
    jacobian: np.ndarray,
    notes: list[str],
) -> Calibration:
    q, fields, count = np.asarray(state.q, np.float64), modality.FIELDS, len(modality.FIELDS)
    y, weight = np.asarray(problem.y, np.float64), np.asarray(problem.weight, np.float64)
    residual = (y - prediction) * weight
    cover, chi2 = _covariance(q, problem, fields, jacobian * weight[..., None], residual)
    half = np.asarray(problem.box.half, np.float64)
    covariance = cover[:count, :count] * np.outer(half, half)
    spec = from_vector(modality.Spec, fields, problem.box.decode(state.q[:count]))
    position = q[count:-3]
    radial, _ = _radial_chi2(y, 1 / weight, position)
    names = tuple(f.name for f in fields)
    sigma = np.sqrt(np.diag(covariance))
    undetermined = {
        name: f"1 sigma is {s:.2g}, the range is {2 * h:.2g} wide: the image of this point does not feel it"
        for name, s, h in zip(names, sigma, half, strict=True)
        if h > 0 and s > 2 * h / np.sqrt(12)
    }
    edges = [n for n, v, h in zip(names, q, half, strict=False) if h > 0 and abs(v) > 0.999 and n not in undetermined]
    warnings = list(dict.fromkeys(notes))
    if chi2 > MISFIT_CHI2:
        warnings.append(_verdict(chi2, radial))
    warnings += [f"{name} ended on the edge of its range {ranges[name]}" for name in edges]
    spread = 1 - ((y - prediction) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    diagnostics = {
        "reduced_chi2": chi2,
        "reduced_chi2_radial": radial,
        "chi2": float((residual**2).sum()),
        "bic": float((residual**2).sum() + np.count_nonzero(np.diag(cover)) * np.log(residual.size)),
        "r2": float(spread),
        "position_voxels": position.tolist(),
        "position_sigma_voxels": np.sqrt(np.diag(cover)[count:-3]).tolist(),
        "source_um": float(SOURCE_UM * np.sqrt(max(q[-3], 0.0))),
        "amplitude": float(problem.scale * q[-2]),
        "background": float(problem.level * q[-1]),
        "width_ratio_yx": _width_ratio(y, position),
        "dof": int(y.size),
    }
    flags = (not np.isfinite(q).all(), chi2 > MISFIT_CHI2, bool(edges), not converged, bool(undetermined))
    verdicts = (Status.NONFINITE, Status.MISFIT, Status.AT_BOUND, Status.OUT_OF_STEPS, Status.NOT_IDENTIFIABLE)
    status = next((s for flag, s in zip(flags, verdicts, strict=True) if flag), Status.CONVERGED)
    derived = propagated(modality, geometry, spec, covariance)
    return Calibration(spec, names, covariance, ranges, derived, status, undetermined, detector, tuple(warnings), diagnostics)


def _verdict(chi2: float, radial: float) -> str:
    """Where the misfit comes from."""
    start = f"residuals are {np.sqrt(chi2):.1f} times the noise (reduced chi^2 {chi2:.2f}); "
    if radial > MISFIT_CHI2:
        return (
            start + f"no radially symmetric PSF does better than chi^2 {radial:.2f}: fit coma and astigmatism "
            "(--zernike 5,6,7,8), look for tilt or polarisation (slant, polarised), or reconstruct with the measured PSF"
        )
    return start + f"a radially symmetric PSF could reach {radial:.2f}: check na, wavelengths, voxel size and the ranges"


def _width_ratio(y: np.ndarray, position: np.ndarray) -> float:
    """sigma_y / sigma_x of the light above a tenth of the maximum, summed over planes or frames."""
    ny, nx = y.shape[-2:]
    light = np.clip(y - np.quantile(y, 0.05), 0, None)
    light = np.where(light > 0.1 * light.max(), light, 0).reshape(-1, ny, nx).sum(0)
    row, column = np.arange(ny) - ny // 2 - position[-2], np.arange(nx) - nx // 2 - position[-1]
    return float(np.sqrt((light.sum(1) @ row**2) / (light.sum(0) @ column**2)))
