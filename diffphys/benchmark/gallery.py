"""The gallery: truth, measurement and reconstruction of the first public scenes in scenarios I to IV, with PSNR and SSIM.

It shares its folder with `benchmark run`: what that has done is not repeated, and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffphys.benchmark import scenarios
from diffphys.benchmark.methods import Method
from diffphys.benchmark.run import Job, read_tier
from diffphys.io.challenge import Truth
from diffphys.noise import to_photons
from diffphys.spec import pitch_um

Progress = Callable[[float, str], None]
SCENES = 4
HEADINGS = {"I": "I ideal", "II": "II mismatch", "III": "III oracle", "IV": "IV blind"}


def gallery(
    method: Method, modality: str, *, data: Path | str, out: Path | str, progress: Progress | None = None
) -> tuple[Path, list[dict[str, Any]]]:
    """Draw `{modality}_{method}_gallery.png` in `out`.

    Args:
        method: a row of `methods.METHODS`.
        modality: name.
        data: folder that `create` filled; of the public tier the truth file too, which holds the ideal counts.
        out: folder of the results.
        progress: called with (fraction done, what is being done).

    Returns:
        The file, and per scene and scenario the sample, PSNR (dB), SSIM and score.
    """
    from diffphys.report.gallery import gallery as draw

    data, out = Path(data), Path(out)
    challenge, truths = read_tier(data, modality, "public")
    names = challenge.held.names[:SCENES]
    if truths is None or not truths[names[0]].y_ideal.size:
        raise ValueError(f"{data} lacks the truth file of the public tier, which holds the ideal instrument's counts")
    job = Job(method, modality, out, scenarios.SCENARIOS, datetime.now(UTC))
    rows, told = [], []
    for number, name in enumerate(names):
        stored = {}
        for step, scenario in enumerate(scenarios.SCENARIOS):
            if progress is not None:
                progress((number + step / 4) / len(names), f"{name} {scenario}")
            job.sample(challenge, truths, name, scenario)
            path = job.place(scenario, "public", name)
            row = json.loads(path.read_text(encoding="utf-8"))["row"]
            stored[scenario] = (np.load(path.with_suffix(".npy"), allow_pickle=False), row)
            told.append({"sample": name, "scenario": scenario, **{k: row[k] for k in ("psnr", "ssim", "score")}})
        rows += _rows(name, truths[name], challenge.samples[name], stored, challenge.held.geometry)
    path = out / f"{modality}_{method.slug}_gallery.png"
    draw(
        path, rows, title=f"{modality}, {method.name}: public scenes; scale of every row is its truth's, 1 at the peak", like=0
    )
    return path, told


def _rows(name: str, truth: Truth, sample: Any, stored: dict[str, Any], geometry: Any) -> list[list[tuple[str, Any, Any]]]:
    """Planes of one scene: one row of an image, xy and xz through the brightest structure of a stack."""
    ideal, mismatched = (_seen(sample, y, truth.x_true.ndim) for y in (truth.y_ideal, sample.y))
    columns = [(f"{name} {truth.family}\ntruth", truth.x_true), ("ideal\nmeasurement", ideal), _cell("I", stored)]
    columns += [("mismatched\nmeasurement", mismatched), *(_cell(s, stored) for s in ("II", "III", "IV"))]
    pitch = pitch_um(geometry)
    if truth.x_true.ndim == 2:
        return [[(label, image, pitch) for label, image in columns]]
    z, y, _ = np.unravel_index(np.argmax(truth.x_true), truth.x_true.shape)
    lateral = [(label, image[z], pitch[1:]) for label, image in columns]
    return [lateral, [("xz", image[:, y], (pitch[0], pitch[2])) for _, image in columns]]


def _cell(scenario: str, stored: dict[str, Any]) -> tuple[str, np.ndarray]:
    image, row = stored[scenario]
    return f"{HEADINGS[scenario]}\n{row['psnr']:.2f} dB, SSIM {row['ssim']:.3f}", image


def _seen(sample: Any, y: np.ndarray, ndim: int) -> np.ndarray:
    """Counts in the specimen's unit, first frame where there are several."""
    detector = sample.detector
    seen = (np.asarray(to_photons(detector, jnp.asarray(y))) - float(detector.background)) / float(detector.peak_photons)
    return seen if seen.ndim == ndim else seen[0]
