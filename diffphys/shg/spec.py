"""SHG: mismatch parameters, nominal instrument, monitored excitation power, default ranges.

Wide-field excitation, imaging collection and a rolling-shutter camera; or a scanned focus with a bucket or a descanned
detector. Each frame is recorded at a commanded rotation of the phase-matching angle; a photodiode monitors the relative
excitation power, one value per row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

import jax
import numpy as np

from diffphys.spec import Field, parse
from diffphys.types import Array

FIELDS = (
    Field("phase_matching_error", "p_m", "rad", 0.0, -1.2, 2.3, "offset"),
    Field("excitation_power_fluctuation", "e_p", "percent rms", 0.0, -2.4, 4.6, "offset"),
    Field("collection_na_mismatch", "c_n", "NA", 0.0, -0.024, 0.046, "offset"),
)
Detection = Literal["imaging", "bucket", "descanned"]
DARKEST = 18.0  # largest |q L| that still gives light: amplitude exp(-18^2 / (16 ln 2)) = 2e-13, squared inside float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spec:
    """What may be wrong with an SHG microscope; every leaf is traced.

    Attributes:
        phase_matching_error: rad, unknown part of delta-k L / 2; positive compensates the tilt of oblique rays.
        excitation_power_fluctuation: percent rms, amplitude of the monitored trace; negative is anti-phase.
        collection_na_mismatch: absolute NA, added to the nominal collection aperture.
    """

    phase_matching_error: Array
    excitation_power_fluctuation: Array
    collection_na_mismatch: Array


@dataclass(frozen=True)
class Geometry:
    """Nominal SHG instrument; hashable, hence static under jit.

    Attributes:
        shape: pixels (y, x) of one recorded frame.
        pixel_um: pitch in the specimen (y, x); one number means square pixels.
        na: nominal collection aperture NA_c.
        index: specimen index n, taken equal at both wavelengths.
        excitation_nm: excitation wavelength in vacuum; the harmonic has half of it.
        slab_um: full width at half maximum L of the Gaussian slab that generates light.
        phase_offsets_rad: commanded delta-k L / 2 of each frame, one to three frames. One frame cannot tell brightness
            from efficiency: its PSF is then unit-sum, and phase_matching_error is weakly determined (about 0.5 rad).
        power_trace: monitored excitation power (frame, row), "reference" for the published trace, None if not monitored.
            Stored with zero mean and unit rms per frame.
        detection: "imaging" (wide-field excitation, the collection objective images the harmonic), "bucket" (focused
            excitation, one detector takes all light) or "descanned" (focused, the harmonic is imaged onto a point detector).
        excitation_na: aperture of the focused excitation; needed by bucket and descanned, unused by imaging.
    """

    shape: tuple[int, int] = (128, 128)
    pixel_um: Any = (0.1, 0.1)
    na: float = 0.8
    index: float = 1.4
    excitation_nm: float = 800.0
    slab_um: float = 2.0
    phase_offsets_rad: tuple[float, ...] = (0.0, 1.5)
    power_trace: Any = "reference"
    detection: Detection = "imaging"
    excitation_na: float | None = None

    def __post_init__(self) -> None:
        pixel = self.pixel_um if np.ndim(self.pixel_um) else (self.pixel_um, self.pixel_um)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "pixel_um", tuple(float(v) for v in pixel))
        object.__setattr__(self, "phase_offsets_rad", tuple(float(v) for v in np.atleast_1d(self.phase_offsets_rad)))
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ValueError(f"shape is {self.shape}; expected two positive pixel counts (y, x)")
        if len(self.pixel_um) != 2 or not all(math.isfinite(v) and v > 0 for v in self.pixel_um):
            raise ValueError(f"pixel_um is {self.pixel_um}; expected one or two positive micrometres (y, x)")
        if not 0 < self.na < self.index:
            raise ValueError(f"na is {self.na:g}; expected more than 0 and less than the specimen's index {self.index:g}")
        if not 400 <= self.excitation_nm <= 3000:
            raise ValueError(f"excitation_nm is {self.excitation_nm:g}; expected a wavelength of 400 to 3000 nm")
        if not (math.isfinite(self.slab_um) and self.slab_um > 0):
            raise ValueError(f"slab_um is {self.slab_um:g}; expected a positive thickness in micrometres")
        if not 1 <= len(self.phase_offsets_rad) <= 3 or not np.isfinite(self.phase_offsets_rad).all():
            raise ValueError(f"phase_offsets_rad is {self.phase_offsets_rad}; expected one to three finite offsets in rad")
        if self.detection not in get_args(Detection):
            raise ValueError(f"detection is {self.detection!r}; expected one of {list(get_args(Detection))}")
        if self.detection != "imaging" and self.excitation_na is None:
            raise ValueError(f"excitation_na is None; {self.detection} detection needs the aperture of the focused excitation")
        if self.excitation_na is not None and not 0 < self.excitation_na < self.index:
            raise ValueError(
                f"excitation_na is {self.excitation_na:g}; expected more than 0 and less than the index {self.index:g}"
            )
        object.__setattr__(self, "power_trace", _parse_trace(self.power_trace, self.frames, self.shape[0]))

    @property
    def frames(self) -> int:
        """K, frames per exposure set."""
        return len(self.phase_offsets_rad)

    @property
    def harmonic_um(self) -> float:
        """Wavelength of the second harmonic in vacuum."""
        return 0.5e-3 * self.excitation_nm


def _parse_trace(trace: Any, frames: int, rows: int) -> Any:
    """None and "reference" as they are; numbers as nested tuples (hashable), zero mean and unit rms per frame."""
    if trace is None or (isinstance(trace, str) and trace == "reference" and rows > 1):
        return trace
    if isinstance(trace, str):
        allowed = "two rows or more" if trace == "reference" else "'reference', None or numbers (frame, row)"
        raise ValueError(f"power_trace is {trace!r} with {rows} rows; expected {allowed}")
    values = np.asarray(trace, np.float64)
    if values.shape != (frames, rows):
        raise ValueError(f"power_trace has shape {values.shape}; expected (frame, row) = {(frames, rows)}")
    if not np.isfinite(values).all() or not (np.ptp(values, axis=1) > 0).all():
        raise ValueError("power_trace has a frame that is constant or not finite; pass None if the power was not monitored")
    return tuple(map(tuple, _standardise(values).tolist()))


def _standardise(values: np.ndarray) -> np.ndarray:
    """Zero mean, unit rms per row; left alone where that already holds, so that equal geometries stay equal."""
    mean, rms = values.mean(1, keepdims=True), values.std(1, keepdims=True)
    done = (np.abs(mean) < 1e-12) & (np.abs(rms - 1) < 1e-12)
    return np.where(done, values, (values - mean) / rms)


@lru_cache(maxsize=32)
def reference_trace(frames: int, rows: int) -> np.ndarray:
    """Published broad-band power trace (frame, row), zero mean and unit rms per frame; a function of its arguments only.

    Lines at periods of 7.3 and 23 rows plus white noise: some of its energy lies where a specimen has little.
    """
    row = np.arange(rows)
    traces = []
    for frame in range(frames):
        rng = np.random.default_rng([7, frame])
        lines = np.sin(2 * np.pi * row / 7.3 + 0.4 + 1.9 * frame) + 0.7 * np.sin(2 * np.pi * row / 23 + 1.0 + 0.8 * frame)
        traces.append(lines + 0.7 * rng.normal(size=rows))
    trace = _standardise(np.array(traces))
    trace.flags.writeable = False
    return trace


def power_trace(geometry: Geometry) -> np.ndarray:
    """Monitored trace t_k(row) of a geometry, (frame, y), zero mean and unit rms per frame; zeros if not monitored."""
    if geometry.power_trace is None:
        return np.zeros((geometry.frames, geometry.shape[0]))
    if geometry.power_trace == "reference":
        return reference_trace(geometry.frames, geometry.shape[0])
    return np.array(geometry.power_trace)


def nominal(geometry: Geometry | None = None) -> Spec:
    """The spec of a perfect instrument: all three errors are 0."""
    del geometry
    return parse(Spec, FIELDS, {f.name: f.nominal for f in FIELDS})


def default_ranges(geometry: Geometry | None = None) -> dict[str, tuple[float, float]]:
    """The box searched unless told otherwise: the hull of the benchmark's tiers.

    The collection aperture stays above a quarter of its nominal value and below the index. Without a monitored trace the
    power fluctuation has no effect and is fixed at 0.
    """
    geometry = geometry or Geometry()
    ranges = {f.name: (f.low, f.high) for f in FIELDS}
    low, high = ranges["collection_na_mismatch"]
    ranges["collection_na_mismatch"] = (max(low, -0.75 * geometry.na), min(high, 0.999 * geometry.index - geometry.na))
    if geometry.power_trace is None:
        ranges["excitation_power_fluctuation"] = (0.0, 0.0)
    return ranges


def check_ranges(ranges: Mapping[str, tuple[float, float]], geometry: Geometry) -> None:
    """Raise where a range leaves the model's validity."""
    low, high = (geometry.na + bound for bound in ranges["collection_na_mismatch"])
    if not 0 < low <= high < geometry.index:
        raise ValueError(
            f"collection aperture may run from {low:g} to {high:g}; expected more than 0 and less than the index "
            f"{geometry.index:g}; narrow the range of collection_na_mismatch or change na"
        )
    oblique = tilt(geometry, high)
    focused = tilt(geometry, geometry.excitation_na) if geometry.detection != "imaging" and geometry.excitation_na else 0.0
    for offset in geometry.phase_offsets_rad:
        for bound in ranges["phase_matching_error"]:
            turn = 2 * (bound + offset)
            # distance of 0 from the interval of q L over the apertures; focused excitation brings the opposite phase
            if max(turn - oblique, -turn - focused) > DARKEST:
                raise ValueError(
                    f"phase_matching_error may reach {bound:g} rad: the frame at offset {offset:g} rad would be dark; "
                    "narrow the range of phase_matching_error or move the offset"
                )


def tilt(geometry: Geometry, na: float) -> float:
    """k_2w L (1 - cos theta) at an aperture, rad: what an oblique ray lacks over the slab."""
    k = 4 * math.pi * geometry.index / (1e-3 * geometry.excitation_nm)
    return k * geometry.slab_um * (1 - math.sqrt(1 - (na / geometry.index) ** 2))


def weak(geometry: Geometry) -> dict[str, str]:
    """Parameters that this geometry cannot determine whatever the data, with the reason."""
    if geometry.frames > 1:
        return {}
    if geometry.detection != "imaging":
        why = f"{geometry.detection} detection: it changes how much light is collected, hardly the blur; use imaging collection"
        return {"phase_matching_error": why, "collection_na_mismatch": why}
    return {"phase_matching_error": "one frame: it rests on the assumed spectrum of the specimen; add a phase offset"}


def sampling_warnings(geometry: Geometry) -> tuple[str, ...]:
    """One line per axis that is coarser than Nyquist of the band edge 2 NA / λ_2ω, with the formula.

    NA is that of the collection (imaging), of the excitation (bucket: its squared field), or their sum (descanned).
    """
    focused = geometry.excitation_na or 0.0
    na, symbol = {
        "imaging": (geometry.na, "NA_c"),
        "bucket": (focused, "NA_ex"),
        "descanned": (focused + geometry.na, "(NA_ex+NA_c)"),
    }[geometry.detection]
    limit = geometry.harmonic_um / (4 * na)
    return tuple(
        f"{name} pixel {1e3 * step:.0f} nm is coarser than Nyquist λ_2ω/(4{symbol}) = {1e3 * limit:.0f} nm: "
        "fine detail folds back"
        for name, step in zip("yx", geometry.pixel_um, strict=True)
        if step > 1.001 * limit
    )


def block(geometry: Geometry, shape: tuple[int, ...]) -> Geometry:
    """The same instrument with a field of `shape`; the power trace belongs to the whole frame and is dropped."""
    return replace(geometry, shape=(int(shape[0]), int(shape[1])), power_trace=None)
