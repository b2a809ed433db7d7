"""The whole path on real stacks: what each of them can show, and what it cannot.

    python benchmarks/real_stacks.py --output out/real                  # all data sets
    python benchmarks/real_stacks.py --output out/real --only bars grid

One function per data set: (data folder, output folder) -> numbers. Numbers: benchmarks/results/real_stacks.json. Needs
scikit-image for the SSIM.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tifffile
from environment import environment, write
from scipy import ndimage

import diffphys
from diffphys import confocal, measured, shg
from diffphys.calibrate.detector import estimate, photon_transfer
from diffphys.calibrate.point_source import fit_psf, predict
from diffphys.cli import main as command
from diffphys.operator import from_psf
from diffphys.report.figure import figure, residual_figure
from diffphys.report.gallery import gallery

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "shared" / "data"
RESULTS = HERE / "results" / "real_stacks.json"
NUCLEUS_VOXEL = (0.49941, 0.51188, 0.51188)
NUCLEUS_OPTICS = {"na": 1.2, "immersion_index": 1.333, "emission_nm": 455.0, "depth_um": 5.0}  # depth: assumed, "a few um"
NUCLEUS_SHIFT = 4  # pixels in x by which the widefield channel is displaced
BEAD_VOXEL, GRID_VOXEL = (0.125, 0.02249, 0.02249), (0.125, 0.02196, 0.02196)
COLLAGEN_PIXEL_UM = 0.2  # an assumption: the file does not state it


def nucleus(data: Path, output: Path, *, crop: tuple[slice, slice, slice] = (slice(None),) * 3) -> dict[str, Any]:
    """Command line from the header's optics; then the widefield channel as an independent view."""
    stack = tifffile.imread(data / "confocal" / "nucleus_confocal_widefield_45x2x130x133.tif")
    stack = np.ascontiguousarray(stack[crop[0], :, crop[1], crop[2]])
    source, optics, results = output / "nucleus.tif", output / "nucleus.yaml", output / "nucleus"
    tifffile.imwrite(source, stack, metadata={"axes": "ZCYX"}, ome=True)
    entries = {"voxel_um": list(NUCLEUS_VOXEL), "excitation_nm": 405, "pinhole_au": 1.24, **NUCLEUS_OPTICS}
    optics.write_text("modality: confocal_3d\ngeometry:\n" + "".join(f"  {k}: {v}\n" for k, v in entries.items()))
    options = ["--modality", "confocal_3d", "--optics", optics, "--channel", 0, "--output", results, "--overwrite"]
    code = command(["reconstruct", *map(str, (source, *options))])
    if code:
        raise RuntimeError(f"diffphys reconstruct ended with exit code {code}")
    found = json.loads((results / "calibration.json").read_text())
    restored = tifffile.imread(results / "reconstruction.ome.tif").astype(np.float32)
    counts, view = stack[:, 0].astype(np.float32), stack[:, 1].astype(np.float32)
    detector = diffphys.Detector(**found["detector"])
    geometry = confocal.Geometry(counts.shape, NUCLEUS_VOXEL, excitation_nm=405.0, pinhole_au=1.24, **NUCLEUS_OPTICS)
    plain = diffphys.reconstruct(counts, confocal, confocal.nominal(geometry), geometry=geometry, detector=detector)
    light = np.maximum(counts - detector.offset, 0) / detector.gain
    images = {"raw confocal": light, "nominal reconstruction": plain.image, "calibrated reconstruction": restored}
    blurred = {name: _as_widefield(image, NUCLEUS_VOXEL) for name, image in images.items()}
    plane, pitch = int(restored.sum((1, 2)).argmax()), NUCLEUS_VOXEL[1:]
    cells = [[(name, image[plane], pitch) for name, image in images.items()]]
    cells += [[(f"{name} → widefield", image[plane], pitch) for name, image in blurred.items()]]
    cells[1].append(("widefield channel, measured", _registered(view)[plane], pitch))
    agreement = {name: _agreement(image, view) for name, image in blurred.items()}
    notes = [f"{name} → widefield: " + ", ".join(f"{k} {v:.4f}" for k, v in a.items()) for name, a in agreement.items()]
    gallery(output / "nucleus_widefield.png", cells, title=f"nucleus, plane {plane}", notes=notes)
    kept = ("status", "parameters", "derived", "undetermined", "warnings", "detector")
    return {
        **{k: found[k] for k in kept},
        "goodness_of_fit_sd": found["diagnostics"]["goodness_of_fit_sd"],
        "sign_margin_nats": found["diagnostics"]["sign_margin_nats"],
        "widefield_agreement": agreement,
    }


def _as_widefield(x: np.ndarray, voxel_um: tuple[float, float, float]) -> np.ndarray:
    """What a widefield microscope with the nucleus' nominal optics would show of the specimen."""
    geometry = confocal.Geometry(x.shape, voxel_um, excitation_nm=None, **NUCLEUS_OPTICS)
    return np.asarray(confocal.forward(confocal.nominal(geometry), jnp.asarray(x, jnp.float32), geometry=geometry))


def _registered(view: np.ndarray) -> np.ndarray:
    """The widefield channel without its offset, moved back onto the confocal one (what moves in is the edge's value)."""
    level = view - np.median(view)
    return np.concatenate([level[..., NUCLEUS_SHIFT:], np.repeat(level[..., -1:], NUCLEUS_SHIFT, -1)], -1)


def _agreement(predicted: np.ndarray, view: np.ndarray) -> dict[str, float]:
    """Correlation with the measured widefield data: as they are, and of the detail (1 to 4 px) inside the nucleus."""
    a, b = predicted[..., :-NUCLEUS_SHIFT], _registered(view)[..., :-NUCLEUS_SHIFT]
    inside = b > 0.5 * np.quantile(b, 0.995)

    def detail(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, (0, 1, 1)) - ndimage.gaussian_filter(image, (0, 4, 4))

    return {"correlation": _correlation(a, b), "detail": _correlation(detail(a)[inside], detail(b)[inside])}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def widefield_psf(data: Path, output: Path) -> dict[str, Any]:
    """z-step and spherical aberration of a measured PSF from its detection factor; the residual says what is missing."""
    stack = tifffile.imread(data / "psf" / "widefield_520nm_na0.85_25x256x256.tif").astype(float)
    y, optics = stack[:, 108:148, 111:151], {"na": 0.85, "immersion_index": 1.0, "emission_nm": 520.0, "depth_um": 0.0}
    geometry = confocal.Geometry(y.shape, (0.3, 0.13, 0.13), excitation_nm=None, **optics)
    ranges = {"z_step": (-100.0, 150.0), "spherical_aberr": (-0.5, 0.5), "refractive_index": (1.0, 1.0)}
    fit = fit_psf(y, confocal, geometry=geometry, ranges=ranges)
    numbers = _point_numbers(fit)
    model = predict(fit, confocal, geometry=geometry, shape=y.shape)
    _point_figure(output / "widefield_psf.png", y, model, geometry.voxel_um, numbers, "measured widefield PSF")
    return numbers


def _point_numbers(fit: Any) -> dict[str, Any]:
    d = fit.diagnostics
    kept = ("reduced_chi2", "reduced_chi2_radial", "r2", "width_ratio_yx", "source_um")
    parameters = {n: {"value": v, "sigma": fit.sigma[n]} for n, v in fit.values.items()}
    status = {"status": fit.status.name, "undetermined": dict(fit.undetermined), "warnings": list(fit.warnings)}
    return {"parameters": parameters, **status, **{k: d[k] for k in kept}}


def _point_figure(path: Path, y: Any, model: Any, voxel_um: Any, numbers: dict[str, Any], title: str) -> None:
    notes = [f"{n} = {p['value']:.4g} ± {p['sigma']:.2g}" for n, p in numbers["parameters"].items()]
    notes += [f"{k} = {numbers[k]:.3g}" for k in ("reduced_chi2", "reduced_chi2_radial", "r2")]
    notes += [numbers["status"], *numbers["warnings"]]
    residual_figure(path, y, model, voxel_um=voxel_um, title=title, notes=notes)


def beads(data: Path, output: Path) -> dict[str, Any]:
    """PSF of the beads, and whether a radially symmetric model explains it. The optics are unknown: defaults are assumed."""
    stack = tifffile.imread(data / "confocal" / "beads_41x150x150.tif")
    psf = measured.distil(stack, voxel_um=BEAD_VOXEL)
    geometry = confocal.Geometry(psf.psf.shape, BEAD_VOXEL, depth_um=0.0)
    fit = fit_psf(psf, confocal, geometry=geometry)
    numbers = _point_numbers(fit)
    model = predict(fit, confocal, geometry=geometry, shape=psf.psf.shape)
    _point_figure(output / "beads.png", psf.psf, model, BEAD_VOXEL, numbers, f"PSF of {psf.beads} beads")
    widths = measured.widths_um(psf.psf, voxel_um=BEAD_VOXEL)
    return {"beads": psf.beads, "scatter": psf.spread, "widths_um_zyx": list(widths), **numbers}


def grid(data: Path, output: Path, *, crop: int = 150, seeds: int = 3, iterations: int = 200) -> dict[str, Any]:
    """Few photons: the line grid with the PSF of the beads and with a nominal model, judged by the same held-out photons.

    The optics are not stated: the nominal model is the default instrument (NA 1.4 oil, 488/520 nm), the gain an estimate.
    """
    y = tifffile.imread(data / "confocal" / "grid_1au_21x150x150.tif")[:, :crop, :crop].astype(np.float32)
    stack = tifffile.imread(data / "confocal" / "beads_41x150x150.tif")
    bead = measured.distil(stack, voxel_um=BEAD_VOXEL)
    moved = measured.resample(bead.psf, voxel_um=BEAD_VOXEL, to_voxel_um=GRID_VOXEL)
    geometry = confocal.Geometry(y.shape, GRID_VOXEL, depth_um=0.0)
    detector, doubts = estimate(y, confocal, geometry=geometry)
    model = confocal.psf(confocal.nominal(geometry), geometry=geometry)
    kernels, images, scores = {"bead PSF": moved.psf, "nominal model": np.asarray(model)}, {}, {}
    for name, kernel in kernels.items():
        common = {"geometry": geometry, "detector": detector, "psf": kernel, "iterations": iterations}
        runs = [diffphys.reconstruct(y, None, None, stopping="held_out", seed=s, **common) for s in range(seeds)]
        images[name] = runs[0].image
        scores[name] = {"held_out_nll": [float(r.curve.min()) for r in runs], "iterations": [r.iterations for r in runs]}
    gain = y.size * np.subtract(*(scores[n]["held_out_nll"] for n in ("nominal model", "bead PSF")))
    plane = y.shape[0] // 2
    cells = [[("measured, counts", y[plane], GRID_VOXEL[1:])]]
    cells[0] += [(f"{n}, photons", image[plane], GRID_VOXEL[1:]) for n, image in images.items()]
    notes = [f"{n}: stopped after {s['iterations']} iterations" for n, s in scores.items()]
    notes.append(f"held-out photons prefer the bead PSF by {gain.mean():.0f} nats (single thinnings: {gain.round().tolist()})")
    gallery(output / "grid.png", cells, title=f"line grid, plane {plane}", notes=[*notes, *doubts])
    found = {n: float(np.asarray(getattr(detector, n))) for n in ("gain", "offset", "background", "read_sigma")}
    return {
        "detector": found,
        "doubts": list(doubts),
        "resampling": {"clipped": moved.clipped, "lost": moved.lost},
        "scores": scores,
        "nats_for_bead_psf": gain.tolist(),
    }


def bars(data: Path, output: Path, *, iterations: int = 100) -> dict[str, Any]:
    """Richardson-Lucy and total variation with the given kernel, against the truth; the triple is not self-consistent."""
    truth, y, kernel = (
        tifffile.imread(data / "confocal" / f"bars_{n}_32x64x64.tif").astype(np.float32) for n in ("actual", "data", "kernel")
    )
    geometry = confocal.Geometry(y.shape, (1.0, 1.0, 1.0))
    detector, doubts = estimate(y, confocal, geometry=geometry, detector=diffphys.Detector(1.0, 0.0, np.nan, 0.0, np.nan))
    common = {"geometry": geometry, "detector": detector, "psf": kernel, "iterations": iterations}
    images, ends = {"data": y}, {}
    for name, choice in {"RL": {"method": "richardson_lucy", "stopping": "fixed"}, "TV": {"method": "tv"}}.items():
        restored = diffphys.reconstruct(y, None, None, **common, **choice)
        images[name], ends[name] = restored.image, f"{restored.status.name} after {restored.iterations} iterations"
    numbers = {name: _against_truth(image, truth) for name, image in images.items()}
    plane, pitch = y.shape[0] // 2, (1.0, 1.0)
    cells = [[(n, x[plane], pitch) for n, x in {**images, "truth": truth}.items()]]
    cells += [[(f"{n}, xz", x[:, y.shape[1] // 2], pitch) for n, x in {**images, "truth": truth}.items()]]
    predicted = np.asarray(from_psf(kernel, field=y.shape, specimen=y.shape).apply(jnp.asarray(truth)))
    numbers["kernel ⊛ truth against data"] = _against_truth(predicted, y)
    notes = [f"{n}: PSNR {v['psnr_db']:.2f} dB, SSIM {v['ssim']:.3f}, shift {v['shift_voxels']}" for n, v in numbers.items()]
    notes += [f"{name}: {end}" for name, end in ends.items()] + list(doubts)
    gallery(output / "bars.png", cells, title="hollow bars", length="px", notes=notes)
    return {
        "images": numbers,
        "reconstruction": ends,
        "detector": {n: float(getattr(detector, n)) for n in ("gain", "read_sigma")},
    }


def _against_truth(image: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """PSNR and SSIM after the best gain and offset, and the shift (within one voxel) that fits the truth best."""
    from skimage.metrics import structural_similarity
    from skimage.registration import phase_cross_correlation

    basis = np.stack([image.ravel(), np.ones(image.size)], 1).astype(float)
    fitted = (basis @ np.linalg.lstsq(basis, truth.ravel().astype(float), rcond=None)[0]).reshape(truth.shape)
    span = float(np.ptp(truth))
    psnr = 10 * np.log10(span**2 / np.mean((fitted - truth) ** 2))
    steps = list(np.ndindex(3, 3, 3))
    core = (slice(1, -1),) * 3
    match = [_correlation(np.roll(image, np.subtract(s, 1), (0, 1, 2))[core], truth[core]) for s in steps]
    shift = [1 - int(k) for k in steps[int(np.argmax(match))]]  # of the image against the truth
    mirrored = [_correlation(np.flip(image, a), truth) for a in range(3)]
    return {
        "psnr_db": float(psnr),
        "ssim": float(structural_similarity(truth, fitted.astype(np.float32), data_range=span)),
        "correlation": _correlation(image, truth),
        "shift_voxels": shift,
        "correlation_mirrored_zyx": mirrored,
        "shift_tenths": phase_cross_correlation(image, truth, upsample_factor=10, normalization=None)[0].tolist(),
    }


def collagen(data: Path, output: Path, *, crop: int = 512) -> dict[str, Any]:
    """One SHG frame of unknown optics: what calibration can and cannot say, and the nominal reconstruction."""
    y = tifffile.imread(data / "shg" / "collagen_512x512.tif")[None, :crop, :crop].astype(np.float32)
    pixel = (COLLAGEN_PIXEL_UM, COLLAGEN_PIXEL_UM)
    geometry = shg.Geometry(y.shape[1:], pixel, phase_offsets_rad=(0.0,), power_trace=None)
    found = diffphys.calibrate(y, shg, geometry=geometry)
    restored = diffphys.reconstruct(y, shg, shg.nominal(geometry), geometry=geometry, detector=found.detector)
    title = f"SHG collagen, nominal reconstruction; pixel of {COLLAGEN_PIXEL_UM:g} µm assumed"
    panels = {"modality": shg, "geometry": geometry, "calibration": found, "reconstruction": restored, "title": title}
    figure(output / "collagen.png", y=y, **panels)
    return {
        "assumed_pixel_um": COLLAGEN_PIXEL_UM,
        "status": found.status.name,
        "parameters": {n: {"value": v, "sigma": found.sigma[n], "range": found.ranges[n]} for n, v in found.values.items()},
        "undetermined": dict(found.undetermined),
        "warnings": list(found.warnings),
        "goodness_of_fit_sd": found.diagnostics["goodness_of_fit_sd"],
        "reconstruction": {"status": restored.status.name, "iterations": restored.iterations},
    }


def collagen_frames(data: Path, output: Path) -> dict[str, Any]:
    """Gain, offset and excitation power of three frames, and the same ratios by total least squares."""
    frames = np.moveaxis(tifffile.imread(data / "shg" / "collagen_frames_200x200x3.tif"), -1, 0).astype(float)
    found = photon_transfer(frames)
    smooth = np.array([ndimage.gaussian_filter(f, 2.0) for f in frames])
    pitch, ratios = (1.0, 1.0), [_total_least_squares(smooth[0], s) for s in smooth]
    notes = [f"gain {found.gain[0]:.2f} ± {found.gain[1]:.2f}, offset {found.offset[0]:.2f} ± {found.offset[1]:.2f} counts"]
    notes += [
        f"frame {k}: signal {s:.3f} ± {e:.3f}, power {p:.3f} ± {q:.3f}; signal by total least squares {ratios[k]:.3f}"
        for k, ((s, e), (p, q)) in enumerate(zip(found.signal, found.power, strict=True))
    ]
    notes += found.warnings
    cells = [[(f"frame {k}, counts", f, pitch) for k, f in enumerate(frames)]]
    gallery(output / "collagen_frames.png", cells, title="three frames of one field", length="px", notes=notes)
    return {
        "gain": found.gain,
        "offset": found.offset,
        "photons": found.photons,
        "signal": found.signal.tolist(),
        "power": found.power.tolist(),
        "signal_total_least_squares": ratios,
        "noise_correlation": found.noise_correlation,
        "warnings": list(found.warnings),
    }


def _total_least_squares(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of y on x with equal errors in both: direction of the largest eigenvector of their covariance."""
    direction = np.linalg.eigh(np.cov(x.ravel(), y.ravel()))[1][:, -1]
    return float(direction[1] / direction[0])


SETS: dict[str, Callable[..., dict[str, Any]]] = {
    f.__name__: f for f in (nucleus, widefield_psf, beads, grid, bars, collagen, collagen_frames)
}


def run(data: Path, output: Path, only: list[str], results: Path) -> None:
    """Run the data sets named; results of the others are kept."""
    output.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"data": {}}
    with contextlib.suppress(FileNotFoundError):
        record = json.loads(results.read_text())
    for name in only:
        started = time.perf_counter()
        numbers = SETS[name](data, output)
        numbers |= {"seconds": round(time.perf_counter() - started, 1), "environment": environment()}
        record["data"][name] = numbers
        write(results, record)
        print(name, json.dumps(numbers, default=float)[:1500])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, required=True, help="folder for figures")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    run(given.data, given.output, given.only, given.results)
