"""Real, visibly bent beads: which aberrations explain them, and does the PSF so found deconvolve another sample better?

    python benchmarks/aberrated_beads.py --output out/beads

Four models of growing freedom are fitted to the PSF distilled from the beads (pixels binned 2 x 2): spherical aberration
only; with astigmatism and coma; and with a slanted scan axis and polarised light; each with its chi^2 per degree of freedom
and BIC. Then the line grid of the same microscope is deconvolved with each of them, with the nominal and with the measured
PSF, on 90 % of its photons; the held-out 10 % judge, thinning by thinning. No PSF enters the score. The optics are not
stated in the files: the default instrument (NA 1.4 oil, 488 / 520 nm, 1 AU) is assumed. Numbers:
benchmarks/results/aberrated_beads.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from environment import environment, write

import diffphys
from diffphys import confocal, measured
from diffphys.calibrate.detector import estimate
from diffphys.calibrate.point_source import fit_psf, predict
from diffphys.confocal.aberrated import with_zernike
from diffphys.report.figure import residual_figure

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data" / "confocal"
RESULTS = HERE / "results" / "aberrated_beads.json"
BEAD_VOXEL, GRID_VOXEL = (0.125, 0.02249, 0.02249), (0.125, 0.02196, 0.02196)
BINNING = 2
SUPPORT = (21, 45, 33)  # voxels of the grid that every PSF is given on
MODELS: dict[str, Any] = {
    "spherical": confocal,
    "astigmatism, coma": with_zernike((5, 6, 7, 8)),
    "astigmatism, coma, slant, polarisation": with_zernike((5, 6, 7, 8), slanted=True, polarised=True),
    "astigmatism, coma, trefoil, slant, polarisation": with_zernike((5, 6, 7, 8, 9, 10), slanted=True, polarised=True),
}


def binned(psf: measured.Measured, factor: int) -> measured.Measured:
    """The PSF on pixels `factor` times larger (y, x); its point lies half a fine pixel off, which the fit finds."""
    nz, ny, nx = psf.psf.shape
    hy, hx = ny // 2 // factor * factor, nx // 2 // factor * factor

    def pool(a: np.ndarray) -> np.ndarray:
        cut = a[:, ny // 2 - hy : ny // 2 + hy, nx // 2 - hx : nx // 2 + hx].astype(np.float64)
        return cut.reshape(nz, 2 * hy // factor, factor, 2 * hx // factor, factor).sum((2, 4))

    z, y, x = psf.voxel_um
    return psf._replace(psf=pool(psf.psf), sigma=np.sqrt(pool(psf.sigma**2)), voxel_um=(z, factor * y, factor * x))


def fit_models(beads: measured.Measured, names: list[str], output: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Every model's calibration; their numbers go into `record`."""
    geometry = confocal.Geometry(beads.psf.shape, beads.voxel_um, depth_um=0.0)
    fits = {}
    for name in names:
        started = time.perf_counter()
        fit = fit_psf(beads, MODELS[name], geometry=geometry, ranges={"refractive_index": (1.515, 1.515)})
        d = fit.diagnostics
        record["fits"][name] = {
            "parameters": {n: {"value": v, "sigma": fit.sigma[n]} for n, v in fit.values.items()},
            **{k: d[k] for k in ("chi2", "reduced_chi2", "reduced_chi2_radial", "bic", "r2", "dof", "source_um")},
            "status": fit.status.name,
            "seconds": round(time.perf_counter() - started, 1),
        }
        model = predict(fit, MODELS[name], geometry=geometry, shape=beads.psf.shape)
        notes = [f"{n} = {v:.4g} ± {fit.sigma[n]:.2g}" for n, v in fit.values.items()]
        notes.append(f"chi^2 per degree of freedom {d['reduced_chi2']:.2f}, r2 {d['r2']:.4f}")
        path = output / f"beads_{names.index(name)}.png"
        residual_figure(path, beads.psf, model, voxel_um=beads.voxel_um, title=f"beads: {name}", notes=notes)
        fits[name] = fit
        print(name, json.dumps(record["fits"][name], default=float))
    first = record["fits"][names[0]]["bic"]
    for name in names:
        record["fits"][name]["bic_below_spherical"] = first - record["fits"][name]["bic"]
    return fits


def kernels(fits: dict[str, Any], bead: measured.Measured) -> dict[str, np.ndarray]:
    """PSFs at the grid's voxel size, on one support: nominal, fitted, measured."""
    geometry = confocal.Geometry(SUPPORT, GRID_VOXEL, depth_um=0.0)
    out = {"nominal": np.asarray(confocal.psf(confocal.nominal(geometry), geometry=geometry))}
    out |= {name: np.asarray(MODELS[name].psf(fit.spec, geometry=geometry)) for name, fit in fits.items()}
    moved = measured.resample(bead.psf, voxel_um=BEAD_VOXEL, to_voxel_um=GRID_VOXEL, shape=SUPPORT)
    return out | {"measured": moved.psf}


def held_out(psfs: dict[str, np.ndarray], *, rows: int, seeds: int, iterations: int, record: dict[str, Any]) -> None:
    """Held-out negative log-likelihood of the line grid, nats below the nominal PSF's, per thinning."""
    y = tifffile.imread(DATA / "grid_1au_21x150x150.tif").astype(np.float32)
    detector, doubts = estimate(y, confocal, geometry=confocal.Geometry(y.shape, GRID_VOXEL, depth_um=0.0))
    y = y[:, 75 - rows // 2 : 75 + rows // 2]
    geometry = confocal.Geometry(y.shape, GRID_VOXEL, depth_um=0.0)
    scores: dict[str, list[float]] = {name: [] for name in psfs}
    ends: dict[str, list[int]] = {name: [] for name in psfs}
    for seed in range(seeds):
        for name, psf in psfs.items():
            common = {"geometry": geometry, "detector": detector, "psf": psf, "iterations": iterations}
            run = diffphys.reconstruct(y, None, None, stopping="held_out", seed=seed, **common)
            scores[name].append(float(run.curve.min()) * y.size)
            ends[name].append(run.iterations)
        print(seed, {n: round(scores["nominal"][-1] - v[-1], 1) for n, v in scores.items()})
    gains = {n: (np.array(scores["nominal"]) - np.array(v)) for n, v in scores.items()}
    record["held_out"] = {
        "rows": rows,
        "photons": float((y - float(detector.offset)).sum() / float(detector.gain)),
        "gain": float(detector.gain),
        "doubts": list(doubts),
        "nats_better_than_nominal": {n: g.tolist() for n, g in gains.items()},
        "mean": {n: float(g.mean()) for n, g in gains.items()},
        "standard_error": {n: float(g.std(ddof=1) / np.sqrt(seeds)) for n, g in gains.items()},
        "iterations": ends,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for figures")
    parser.add_argument("--models", type=int, default=len(MODELS), help="how many of the models, simplest first")
    parser.add_argument("--rows", type=int, default=48, help="rows of the grid")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    bead = measured.distil(tifffile.imread(DATA / "beads_41x150x150.tif"), voxel_um=BEAD_VOXEL)
    record: dict[str, Any] = {"binning": BINNING, "support": SUPPORT, "fits": {}, "environment": environment()}
    chosen = list(MODELS)[: given.models]
    fits = fit_models(binned(bead, BINNING), chosen, given.output, record)
    write(given.results, record)
    held_out(kernels(fits, bead), rows=given.rows, seeds=given.seeds, iterations=given.iterations, record=record)
    write(given.results, record)
