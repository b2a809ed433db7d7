"""A blur that changes with depth: calibration with depth windows against one blur and against the bound; restoration.

    python benchmarks/depth_varying.py calibrate --draws 24 --planes 64
    python benchmarks/depth_varying.py calibrate --draws 24 --planes 32 --blind
    python benchmarks/depth_varying.py lengths
    python benchmarks/depth_varying.py reconstruct

Measurements are simulated with one exact PSF per plane (200 nm apart from 10 um on), of specimens larger than the field.
`lengths`: the marginal bound for windows of several lengths. Results: benchmarks/results/depth_varying.json, a key per study.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from environment import environment, write

import diffphys
from diffphys import confocal, demo
from diffphys.calibrate import blind, evidence, fit, verdict
from diffphys.calibrate import estimate as estimates
from diffphys.calibrate import periodogram as periodograms
from diffphys.calibrate.covariance import propagated
from diffphys.noise import Detector, sample
from diffphys.spec import Box, as_vector, from_vector, names, parse

RESULT = Path(__file__).parent / "results" / "depth_varying.json"
FAMILIES = ("beads", "filaments", "cells")
MARGIN = (12, 16, 16)
TAIL_UM = 4.0  # half length of the simulated PSF along z
NAMES = names(confocal.FIELDS)


@partial(jax.jit, static_argnames="geometry")
def exact_forward(spec: Any, x: Any, *, geometry: Any) -> Any:
    """Signal (z, y, x) of the field with the exact PSF of every plane of the specimen, which is larger by MARGIN."""
    half = round(TAIL_UM / geometry.voxel_um[0])
    local = replace(geometry, shape=(2 * half + 1, *geometry.shape[1:]), depth_anchors=1)
    (ny, nx), grid = geometry.shape[1:], x.shape[1:]

    def add(total: Any, plane: Any) -> tuple[Any, None]:
        number, image = plane
        psf = confocal.psf(spec, geometry=local, depth_um=geometry.depth_um + geometry.voxel_um[0] * (number - MARGIN[0]))
        psf = jnp.roll(jnp.pad(psf, ((0, 0), (0, grid[0] - ny), (0, grid[1] - nx))), (-(ny // 2), -(nx // 2)), (1, 2))
        blurred = jnp.fft.rfft2(psf) * jnp.fft.rfft2(image)
        here = jax.lax.dynamic_slice_in_dim(total, number, 2 * half + 1)
        return jax.lax.dynamic_update_slice_in_dim(total, here + blurred, number, 0), None

    empty = jnp.zeros((len(x) + 2 * half, grid[0], grid[1] // 2 + 1), jnp.complex64)
    total = jax.lax.scan(add, empty, (jnp.arange(len(x)), x))[0]
    return jnp.fft.irfft2(total[half : half + len(x)], s=grid)[window(geometry)]


def window(geometry: Any) -> tuple[slice, ...]:
    return tuple(slice(m, m + n) for m, n in zip(MARGIN, geometry.shape, strict=True))


def simulated(spec: Any, *, geometry: Any, family: str, seed: int, photons: float) -> demo.Simulated:
    """One measurement with a PSF per plane."""
    large = tuple(n + 2 * m for n, m in zip(geometry.shape, MARGIN, strict=True))
    scene = confocal.scene(family, shape=large, voxel_um=geometry.voxel_um, seed=seed, haze=0.0)
    x = jnp.asarray(scene / scene[window(geometry)].max(), jnp.float32)
    signal = exact_forward(spec, x, geometry=geometry)
    peak = photons / float(signal.max())
    detector = Detector(peak_photons=peak, background=0.02 * photons, gain=1.0, offset=0.0, read_sigma=1.0)
    y = jax.jit(sample)(jax.random.key(seed), detector, signal)
    return demo.Simulated(np.asarray(y), np.asarray(x[window(geometry)]), spec, detector)


def problem_of(measured: demo.Simulated, geometry: Any, *, planes: int | None = None, ideal: int = 0) -> fit.Problem:
    """The evidence's problem as `calibrate` poses it; windows of `planes` planes; `ideal`: that many whole-stack depths, each
    with its share of all samples and no taper's loss (the bound of an estimator without windows)."""
    block, local, depths = estimates._windows(confocal, geometry)
    if planes is not None:
        block = (planes, *block[1:])
        centres = periodograms.block_starts(geometry.shape[0], planes) + (planes - 1) / 2
        depths = tuple(float(geometry.depth_um + geometry.voxel_um[0] * c) for c in centres)
        local = replace(confocal.block(geometry, block), depth_um=depths[-1])
    photons = measured.y[None].astype(np.float64)
    background, read = float(measured.detector.background), float(measured.detector.read_sigma)
    statistic = periodograms.periodogram(photons - background, block=block, finer=(2, 1, 1), windowed=depths is not None)
    level = estimates._noise_level(photons, np.ones(1), read, block if depths else None)
    if ideal:
        size = geometry.shape
        weight = np.broadcast_to(periodograms.multiplicity(size) / ideal, (ideal, *(n // 2 + 1 for n in size)))
        cross = np.ones((1, 1, *weight.shape))
        kernels = tuple(np.repeat(np.eye(n // 2 + 1), 1, 1) for n in size)
        statistic = periodograms.Periodogram(cross, weight, weight, statistic.mean, kernels, kernels)
        depths = tuple(np.linspace(geometry.depth_um, geometry.depth_um + size[0] * geometry.voxel_um[0], ideal).tolist())
        local, level = replace(confocal.block(geometry, size), depth_um=depths[-1]), np.full((1, ideal), level.mean())
    box = Box.of(confocal.FIELDS, confocal.default_ranges(geometry))
    finer = (1, 1, 1) if ideal else (2, 1, 1)
    return fit.Problem(confocal, local, statistic, level, blind.KNOWN_NOISE_SD, box, finer, depths)


def fitted_spectrum(problem: fit.Problem, spec: Any, family: str = "matern") -> np.ndarray:
    """q at the true spec with the hyper-parameters fitted to the data."""
    model, data, spectrum = fit.make(problem, family)
    theta = np.asarray(problem.box.encode(as_vector(spec, confocal.FIELDS)))[None]
    q = fit.first_guess(problem, spectrum, theta)
    return np.asarray(jax.jit(fit._warmed, static_argnums=0)(model, data, q, jnp.int32(25))[0])


def bound(problem: fit.Problem, q: np.ndarray, geometry: Any, *, family: str = "matern") -> dict[str, float]:
    """Cramer-Rao bound of theta and c_tot at q, hyper-parameters unknown too; the prior of theta left out."""
    model, data, _ = fit.make(problem, family)
    fisher = np.array(jax.jit(evidence.evaluate, static_argnums=0)(model, data, jnp.asarray(q)).fisher, np.float64)
    p = model.parameters
    fisher[:p, :p] -= np.asarray(data.prior_precision, np.float64)[:p, :p]
    half = np.asarray(problem.box.half, np.float64)
    covariance = np.linalg.inv(fisher)[:p, :p] * np.outer(half, half)
    theta = problem.box.decode(jnp.asarray(q[:p]))

    def total(vector: Any) -> Any:
        return confocal.derived(confocal.Spec(*vector), geometry=geometry)["c_tot"]

    slope = np.asarray(jax.grad(total)(theta), np.float64)
    out = dict(zip(NAMES, np.sqrt(np.diag(covariance)).tolist(), strict=True))
    return out | {"c_tot": float(np.sqrt(slope @ covariance @ slope))}


def calibrate_draw(geometry: Any, number: int, first_seed: int, *, blind_start: bool) -> dict[str, Any]:
    """One measurement, calibrated with one blur and with depth windows; bounds at the truth for both."""
    seed, photons, family = first_seed + number, (1000.0, 100.0)[number % 2], FAMILIES[number // 2 % 3]
    truth = demo.random_spec(confocal, geometry, seed)
    measured = simulated(truth, geometry=geometry, family=family, seed=seed, photons=photons)
    exact = {n: float(getattr(truth, n)) for n in NAMES} | {"c_tot": float(confocal.derived(truth, geometry=geometry)["c_tot"])}
    row: dict[str, Any] = {"seed": seed, "family": family, "photons": photons, "truth": exact}
    for label, anchors in (("one blur", 1), ("windows", 3)):
        # one blur knows one depth: the stack's middle is the fair one
        middle = 0.5 * (geometry.shape[0] - 1) * geometry.voxel_um[0] if anchors == 1 else 0.0
        varying = replace(geometry, depth_anchors=anchors, depth_um=geometry.depth_um + middle)
        problem, started = problem_of(measured, varying), time.perf_counter()
        if blind_start:
            found = diffphys.calibrate(measured.y, confocal, geometry=varying, detector=measured.detector)
        else:
            found = from_truth(problem, truth, varying, measured.detector)
        seconds = time.perf_counter() - started
        derived = found.derived if anchors > 1 else propagated(confocal, geometry, found.spec, found.covariance)
        row[label] = {
            "estimate": found.values | {k: v for k, (v, _) in derived.items()},
            "sigma": found.sigma | {k: s for k, (_, s) in derived.items()},
            "bound": bound(problem, fitted_spectrum(problem, truth), geometry),
            "status": found.status.name,
            "spectrum": found.diagnostics["spectrum"],
            "estimate_by_spectrum": found.diagnostics["estimate_by_spectrum"],
            "goodness_of_fit_sd": found.diagnostics["goodness_of_fit_sd"],
            "sign_margin_nats": found.diagnostics["sign_margin_nats"],
            "seconds": seconds,
        }
    return row


def from_truth(problem: fit.Problem, truth: Any, geometry: Any, detector: Any) -> diffphys.Calibration:
    """The calibration that a search reaching the truth's optimum gives: fits started there, the sign taken as known."""
    theta = np.asarray(problem.box.encode(as_vector(truth, confocal.FIELDS)))[None]
    found = sorted((fit.settle([problem], family, [theta])[0] for family in fit.FAMILIES), key=lambda f: -f.log_evidence)
    spec = from_vector(confocal.Spec, confocal.FIELDS, problem.box.decode(jnp.asarray(found[0].q[0, : len(NAMES)])))
    block = tuple(problem.block.shape)
    estimate = estimates.Estimate(spec, found, problem.box, problem.statistic, {}, block, [], problem)
    ranges = confocal.default_ranges(geometry)
    return verdict.calibration(estimate, spec, None, confocal, geometry, ranges=ranges, detector=detector, warnings=(), seed=0)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors, error bars and bounds of both models, per photon level."""
    out: dict[str, Any] = {}
    for photons in sorted({r["photons"] for r in rows}):
        part = [r for r in rows if r["photons"] == photons]
        for label in ("one blur", "windows"):
            cell: dict[str, Any] = {"draws": len(part)}
            for name in (*NAMES, "c_tot"):
                error = np.array([r[label]["estimate"][name] - r["truth"][name] for r in part])
                sigma = np.array([r[label]["sigma"][name] for r in part])
                limit = np.array([r[label]["bound"][name] for r in part])
                cell[name] = {
                    "rmse": float(np.sqrt(np.mean(error**2))),
                    "median_error": float(np.median(abs(error))),
                    "p90_error": float(np.quantile(abs(error), 0.9)),
                    "median_sigma": float(np.median(sigma)),
                    "median_bound": float(np.median(limit)),
                    "median_error_over_bound": float(np.median(abs(error) / limit)),
                    "within_1_sigma": float(np.mean(abs(error) < sigma)),
                    "within_2_sigma": float(np.mean(abs(error) < 2 * sigma)),
                }
            clear = [r for r in part if abs(r["truth"]["c_tot"]) > 0.02]
            cell["sign_right"] = float(np.mean([r["truth"]["c_tot"] * r[label]["estimate"]["c_tot"] > 0 for r in clear]))
            cell["median_seconds"] = float(np.median([r[label]["seconds"] for r in part]))
            out[f"{label}, {photons:g} photons"] = cell
    return out


def calibrations(options: argparse.Namespace) -> None:
    geometry = confocal.Geometry(shape=(options.planes, options.width, options.width))
    rows: list[dict[str, Any]] = []
    for number in range(options.draws):
        rows.append(calibrate_draw(geometry, number, options.first_seed, blind_start=options.blind))
        save(
            f"{'blind' if options.blind else 'from the truth'}, {options.planes} planes",
            {"summary": summary(rows), "rows": rows},
        )
        print(number, json.dumps(rows[-1]), flush=True)
    print(json.dumps(summary(rows), indent=1))


def lengths(options: argparse.Namespace) -> None:
    """Bound at theta = (50 nm, 0.1, 1.525) for windows of several lengths, one blur, and without the windows' losses."""
    truth = parse(confocal.Spec, confocal.FIELDS, {"z_step": 50.0, "spherical_aberr": 0.1, "refractive_index": 1.525})
    table: dict[str, Any] = {}
    for planes in (32, 64):
        geometry = confocal.Geometry(shape=(planes, options.width, options.width), depth_anchors=3)
        for family in FAMILIES:
            measured = simulated(truth, geometry=geometry, family=family, seed=options.first_seed, photons=1000.0)
            plain = problem_of(measured, replace(geometry, depth_anchors=1))
            q = fitted_spectrum(plain, truth)
            cell = {"one blur": bound(plain, q, geometry)}
            for length in [n for n in (12, 16, 24, 32, 40, 48) if n < planes]:
                problem = problem_of(measured, geometry, planes=length)
                windows = len(problem.depth_um or ())
                cell[f"{length} planes, {windows} windows"] = bound(problem, np.append(q, np.zeros(windows)), geometry)
            problem = problem_of(measured, geometry, ideal=5)
            cell["no loss"] = bound(problem, np.append(q, np.zeros(5)), geometry)
            table[f"{planes} planes, {family}"] = cell
            print(planes, family, json.dumps(cell, indent=1), flush=True)
            save("lengths", {"photons": 1000, "table": table})


def reconstructions(options: argparse.Namespace) -> None:
    """PSNR with the PSF of the first plane, of the middle one, and with 2 and 3 anchors; data with a PSF per plane, 5 to 17 um.

    Iterations are fixed, and the total variation has one weight for all, so that only the model differs.
    """
    oil = confocal.Geometry(shape=(64, options.width, options.width), depth_um=5.0)
    water, low = replace(oil, na=1.2), replace(oil, na=0.8, voxel_um=(0.2, 0.12, 0.12))
    cases = {
        "n_s 1.535, NA 1.4": (oil, 1.535, 0.05),
        "n_s 1.36, NA 1.2": (water, 1.36, 0.0),
        "n_s 1.36, NA 0.8": (low, 1.36, 0.0),
    }
    models = {"first plane": (1, 0.0), "middle": (1, 6.3), "2 anchors": (2, 0.0), "3 anchors": (3, 0.0)}
    methods: dict[str, dict[str, Any]] = {
        "richardson_lucy": {"iterations": 60, "stopping": "fixed"},
        "wiener": {},
        "tv": {"weight": 0.02, "iterations": 150},
    }
    table: dict[str, Any] = {}
    for label, (geometry, index, aberration) in cases.items():
        spec = parse(confocal.Spec, confocal.FIELDS, {"z_step": 0.0, "spherical_aberr": aberration, "refractive_index": index})
        for family in ("filaments", "beads"):
            measured = simulated(spec, geometry=geometry, family=family, seed=options.first_seed, photons=1000.0)
            for method, settings in methods.items():
                cell = {}
                for name, (anchors, deeper) in models.items():
                    varying = replace(geometry, depth_anchors=anchors, depth_um=geometry.depth_um + deeper)
                    found = diffphys.reconstruct(
                        measured.y, confocal, spec, geometry=varying, detector=measured.detector, method=method, **settings
                    )
                    cell[name] = demo.psnr(found.image, measured.x)
                table[f"{label}, {family}, {method}"] = cell
                print(label, family, method, {k: round(v, 2) for k, v in cell.items()}, flush=True)
                save("reconstruct", {"photons": 1000, "width": options.width, "psnr_db": table})


def save(key: str, value: Any) -> None:
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    record[key] = value | {"environment": environment()}
    write(RESULT, record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    studies = {"calibrate": calibrations, "lengths": lengths, "reconstruct": reconstructions}
    parser.add_argument("study", choices=sorted(studies))
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--planes", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blind", action="store_true", help="with the search over the ranges and the sign test")
    parser.add_argument("--first-seed", type=int, default=30_000)
    options = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "diffphys" / "xla"))
    studies[options.study](options)


if __name__ == "__main__":
    main()
