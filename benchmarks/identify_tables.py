"""Tables of what can be known: Cramer-Rao bounds of every modality and geometry, and the best phase offsets for SHG.

    python benchmarks/identify_tables.py [--scenes FILE.py] [--only TABLE] [--quick]

Without --scenes the specimens are the package's own families; FILE.py may bring `scene(kind)` (z, y, x) and `scene2d(kind)`
(y, x), which close on themselves. Writes benchmarks/results/identify.json. Minutes on two cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import environment
import jax
import jax.numpy as jnp
import numpy as np

from diffphys import confocal, shg
from diffphys.calibrate.covariance import propagated
from diffphys.identify import fisher, of_specimen
from diffphys.identify.fisher import Light
from diffphys.spec import parse

RESULT = Path(__file__).parent / "results" / "identify.json"
PHOTONS = (100, 1000)
FRAMES = {"one": (0.0,), "two, -1.5": (0.0, -1.5), "two, +1.5": (0.0, 1.5), "three, -1.5 +1.5": (0.0, -1.5, 1.5)}
FRAMES["three, +1.5 +3"] = (0.0, 1.5, 3.0)
SCANNED = (  # detection, excitation NA, slab in um, collection NA
    ("bucket", 0.9, 3.0, 0.8), ("bucket", 0.9, 3.0, 0.55), ("bucket", 0.9, 3.0, 0.9), ("bucket", 0.8, 5.0, 0.8),
    ("bucket", 0.8, 10.0, 0.5), ("bucket", 0.5, 10.0, 0.5), ("descanned", 0.8, 2.0, 0.8),
)  # fmt: skip
OFFSETS = np.arange(-3.0, 3.01, 0.75)


def spec_of(modality: Any, *values: float) -> Any:
    return parse(modality.Spec, modality.FIELDS, dict(zip((f.name for f in modality.FIELDS), values, strict=True)))


@partial(jax.jit, static_argnames=("modality", "geometry"))
def _signal(spec: Any, x: Any, *, modality: Any, geometry: Any) -> Any:
    return modality.forward(spec, x, geometry=geometry)


class Specimens:
    """Scenes by name: the package's own, or a file's."""

    def __init__(self, path: Path | None) -> None:
        self.file: Any = None
        if path is not None:
            described = importlib.util.spec_from_file_location("scenes", path)
            assert described is not None and described.loader is not None
            self.file = importlib.util.module_from_spec(described)
            described.loader.exec_module(self.file)

    def experiment(self, modality: Any, geometry: Any, spec: Any, kind: str) -> tuple[np.ndarray, Any]:
        """Specimen wider than the field, and its prior."""
        margin = [n // 2 for n in geometry.shape]
        field = tuple(slice(m, m + n) for m, n in zip(margin, geometry.shape, strict=True))
        if self.file is not None:
            x = self.file.scene(kind) if modality is confocal else self.file.scene2d(kind)
            wide = np.pad(x, [(m, m) for m in margin], mode="wrap")
        else:
            pitch = {"voxel_um": geometry.voxel_um} if modality is confocal else {"pixel_um": geometry.pixel_um}
            shape = tuple(n + 2 * m for n, m in zip(geometry.shape, margin, strict=True))
            wide = modality.scene(kind, shape=shape, seed=0, **pitch)
        signal = np.asarray(_signal(spec, jnp.asarray(wide, jnp.float32), modality=modality, geometry=geometry))
        peak = float(signal.reshape(-1, *geometry.shape)[0].max())
        return wide, of_specimen(wide[field], geometry, peak=peak, periodic=self.file is not None)


def sigma(matrix: np.ndarray) -> list[float]:
    return np.sqrt(np.abs(np.diag(np.linalg.inv(matrix)))).tolist()


def light_of(photons: float) -> Light:
    return Light(float(photons), 0.02 * photons, 1.0)


def confocal_rows(specimens: Specimens, kinds: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """z_step nm, c_s waves, n_s at (50 nm, 0.1, 1.525), 32 x 64 x 64, depth 10 um and 0."""
    spec = spec_of(confocal, 50.0, 0.1, 1.525)
    for depth in (10.0, 0.0):
        geometry = confocal.Geometry(depth_um=depth)
        for kind in kinds:
            x, prior = specimens.experiment(confocal, geometry, spec, kind)
            for photons in PHOTONS:
                light = light_of(photons)
                known = fisher.known(confocal, spec, x, geometry=geometry, light=light)
                blind = fisher.marginal(confocal, spec, prior, geometry=geometry, light=light)
                varying = fisher.marginal(confocal, spec, prior, geometry=replace(geometry, depth_anchors=3), light=light)
                yield {
                    "depth_um": depth, "scene": kind, "photons": photons, "known": sigma(known), "unknown": sigma(blind),
                    "unknown, index fixed": sigma(blind[:2, :2]), "unknown, depth-varying": sigma(varying),
                    "c_tot": propagated(confocal, geometry, spec, np.linalg.inv(blind))["c_tot"][1],
                }  # fmt: skip


def shg_rows(specimens: Specimens, kinds: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """p_m rad, e_p percent, c_n at (1 rad, 2 %, 0.02), 128 x 128, imaging collection."""
    spec = spec_of(shg, 1.0, 2.0, 0.02)
    for name, offsets in FRAMES.items():
        yield from _frames(specimens, kinds, shg.Geometry(phase_offsets_rad=offsets), spec, PHOTONS, {"frames": name})


def scanned_rows(specimens: Specimens, kinds: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """p_m rad (and percent of k_2w), e_p percent, c_n at (1 %, 2 %, 0.02; descanned 1 rad), peak 1000, one and two frames."""
    for detection, focus, slab, na in SCANNED:
        geometry = shg.Geometry(detection=detection, excitation_na=focus, slab_um=slab, na=na, phase_offsets_rad=(0.0,))
        percent = 2 * math.pi * geometry.index / geometry.harmonic_um * slab / 200
        spec = spec_of(shg, percent if detection == "bucket" else 1.0, 2.0, 0.02)
        told = {"detection": detection, "excitation_na": focus, "slab_um": slab, "na": na, "rad_per_percent": percent}
        yield from _frames(specimens, kinds, geometry, spec, (1000,), {**told, "frames": "one"})
        pair = replace(geometry, phase_offsets_rad=(0.0, 1.5))
        yield from _frames(specimens, kinds[:1], pair, spec, (1000,), {**told, "frames": "two, +1.5"})


def _frames(
    specimens: Specimens, kinds: tuple[str, ...], geometry: Any, spec: Any, peaks: tuple[int, ...], told: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for kind in kinds:
        x, prior = specimens.experiment(shg, geometry, spec, kind)
        for photons in peaks:
            known = fisher.known(shg, spec, x, geometry=geometry, light=light_of(photons))
            blind = fisher.marginal(shg, spec, prior, geometry=geometry, light=light_of(photons))
            covariance = np.linalg.inv(blind)
            correlation = covariance[0, 2] / math.sqrt(covariance[0, 0] * covariance[2, 2])
            yield {
                **told, "scene": kind, "photons": photons, "known": sigma(known), "unknown": sigma(blind),
                "correlation of p_m and c_n, unknown": correlation,
            }  # fmt: skip


def offset_rows(specimens: Specimens, kinds: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Bounds of p_m and c_n with a second, and with a third frame, over the commanded offset; mean over three specs."""
    specs = [spec_of(shg, p, 0.0, c) for p, c in ((-0.5, 0.0), (0.5, 0.0), (1.5, 0.02))]
    for first in ((0.0,), (0.0, 1.5)):
        for offset in OFFSETS:
            if min(abs(offset - f) for f in first) < 0.1:
                continue
            geometry = shg.Geometry(phase_offsets_rad=(*first, float(offset)))
            widths = []
            for spec in specs:
                _, prior = specimens.experiment(shg, geometry, spec, kinds[0])
                widths.append(sigma(fisher.marginal(shg, spec, prior, geometry=geometry, light=light_of(1000))))
            mean = np.exp(np.log(widths).mean(0))
            yield {"frames so far": first, "offset_rad": float(offset), "p_m": mean[0], "c_n": mean[2]}


def best(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each number of frames, the offset of the smallest p_m and of the smallest c_n."""
    out = []
    for first in dict.fromkeys(tuple(r["frames so far"]) for r in rows):
        here = [r for r in rows if tuple(r["frames so far"]) == first]
        lowest = {name: min(here, key=lambda r: r[name]) for name in ("p_m", "c_n")}
        out.append({"frames so far": first, **{f"best for {n}": r for n, r in lowest.items()}})
    return out


TABLES = {
    "confocal": ("z_step nm, spherical_aberr waves, refractive_index", confocal_rows, ("beads", "filaments", "cells")),
    "shg imaging": ("p_m rad, e_p percent, c_n", shg_rows, ("collagen", "wavy", "sparse")),
    "shg point scanning": ("p_m rad, e_p percent, c_n", scanned_rows, ("collagen", "wavy", "sparse")),
    "shg offsets": ("p_m rad, c_n; geometric mean over three specs", offset_rows, ("collagen",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--only", choices=sorted(TABLES), help="renew one table of the result")
    parser.add_argument("--quick", action="store_true", help="one scene each")
    asked = parser.parse_args()
    specimens = Specimens(asked.scenes)
    for name in [asked.only] if asked.only else TABLES:
        unit, rows, kinds = TABLES[name]
        started = time.perf_counter()
        found = list(rows(specimens, kinds[:1] if asked.quick else kinds))
        table = {"order": unit, "rows": found, "specimens": "own" if asked.scenes is None else asked.scenes.name}
        if name == "shg offsets":
            table["best"] = best(found)
        table |= {"seconds": round(time.perf_counter() - started, 1), "environment": environment.environment()}
        record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        environment.write(RESULT, record | {name: table})
        jax.clear_caches()


if __name__ == "__main__":
    main()
