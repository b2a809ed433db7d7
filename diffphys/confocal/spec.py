"""Confocal: mismatch parameters, nominal instrument, default ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import jax

from diffphys.optics.sampling import confocal_nyquist_um, widefield_nyquist_um
from diffphys.spec import Field, parse
from diffphys.types import Array

REFERENCE_UM = 0.520  # wavelength in which spherical aberration is counted
OIL = 1.515
WATERY = 1.32  # lowest specimen index that is searched when total internal reflection is allowed

FIELDS = (
    Field("z_step", "Δz", "nm", 0.0, -60.0, 115.0, "offset"),
    Field("spherical_aberr", "c_s", "waves rms", 0.0, -0.12, 0.23, "offset"),
    Field("refractive_index", "n_s", "1", OIL, 1.503, 1.538, "absolute", prior_half_widths=1.8),
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spec:
    """What may be wrong with a confocal microscope; every leaf is traced.

    Attributes:
        z_step: nm, added to the nominal distance of planes.
        spherical_aberr: waves rms at 520 nm, Noll Z11; positive has the sign that n_s > n_i produces.
        refractive_index: of the specimen, absolute.
    """

    z_step: Array
    spherical_aberr: Array
    refractive_index: Array


@dataclass(frozen=True)
class Geometry:
    """Nominal confocal instrument; hashable, hence static under jit.

    Attributes:
        shape: voxels (z, y, x) of the recorded stack.
        voxel_um: pitch (z, y, x).
        na: numerical aperture of the objective.
        immersion_index: n_i of the immersion (the coverslip is matched to it).
        excitation_nm: excitation wavelength in vacuum; None for a wide-field microscope (detection factor only).
        emission_nm: emission wavelength in vacuum.
        pinhole_au: pinhole diameter in Airy units; 0 is a point pinhole.
        depth_um: depth of the first plane below the coverslip.
        attenuation_per_um: mu of the signal's decay exp(-mu z) from the first plane on.
        total_internal_reflection: allow a specimen index below the NA: rays beyond the critical angle are evanescent.
        depth_anchors: PSFs along depth (1: shift-invariant; 2 for stacks up to 10 um; 3 beyond).
    """

    shape: tuple[int, int, int] = (32, 64, 64)
    voxel_um: tuple[float, float, float] = (0.2, 0.08, 0.08)
    na: float = 1.4
    immersion_index: float = OIL
    excitation_nm: float | None = 488.0
    emission_nm: float = 520.0
    pinhole_au: float = 1.0
    depth_um: float = 10.0
    attenuation_per_um: float = 0.0
    depth_anchors: int = 1
    total_internal_reflection: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "voxel_um", tuple(float(v) for v in self.voxel_um))
        object.__setattr__(self, "total_internal_reflection", bool(self.total_internal_reflection))
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape is {self.shape}; expected three positive voxel counts (z, y, x)")
        if len(self.voxel_um) != 3 or not all(math.isfinite(v) and v > 0 for v in self.voxel_um):
            raise ValueError(f"voxel_um is {self.voxel_um}; expected three positive micrometres (z, y, x)")
        if not 0 < self.na < self.immersion_index:
            raise ValueError(f"na is {self.na:g}; expected more than 0 and less than immersion_index {self.immersion_index:g}")
        for name in ("excitation_nm", "emission_nm"):
            value = getattr(self, name)
            if value is not None and not 200 <= value <= 3000:
                raise ValueError(f"{name} is {value:g}; expected a wavelength of 200 to 3000 nm")
        for name in ("pinhole_au", "depth_um", "attenuation_per_um"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if self.depth_anchors not in (1, 2, 3):
            raise ValueError(f"depth_anchors is {self.depth_anchors}; expected 1, 2 or 3")


def nominal(geometry: Geometry | None = None) -> Spec:
    """The spec of a perfect instrument: no error of z-step, no aberration, specimen index equal to the immersion's."""
    index = OIL if geometry is None else geometry.immersion_index
    return parse(Spec, FIELDS, {"z_step": 0.0, "spherical_aberr": 0.0, "refractive_index": index})


def default_ranges(geometry: Geometry | None = None) -> dict[str, tuple[float, float]]:
    """The box searched unless told otherwise: the hull of the benchmark's tiers, around this immersion's index.

    The index range starts just above the NA, where every ray still enters the specimen; with total internal reflection it
    starts at a watery specimen. The z-step may not fall below a
    quarter of its nominal value.
    """
    geometry = geometry or Geometry()
    ranges = {f.name: (f.low, f.high) for f in FIELDS}
    shift = geometry.immersion_index - OIL
    low, high = (bound + shift for bound in ranges["refractive_index"])
    low = min(low, WATERY) if geometry.total_internal_reflection else max(low, geometry.na + 1e-3)
    ranges["refractive_index"] = (low, high)
    nominal_nm = 1e3 * geometry.voxel_um[0]
    ranges["z_step"] = (max(ranges["z_step"][0], -0.75 * nominal_nm), ranges["z_step"][1])
    return ranges


def check_ranges(ranges: dict[str, tuple[float, float]], geometry: Geometry) -> None:
    """Raise where a range leaves the model's validity."""
    low = ranges["refractive_index"][0]
    if low <= geometry.na and not geometry.total_internal_reflection:
        raise ValueError(
            f"refractive_index {low:g} of the specimen is not above na {geometry.na:g}: rays would be totally reflected; "
            "raise the range of refractive_index, lower na, or state total_internal_reflection: true"
        )
    if ranges["z_step"][0] <= -1e3 * geometry.voxel_um[0]:
        raise ValueError(f"z_step may fall to {ranges['z_step'][0]:g} nm; expected above minus the voxel's z size")


def weak(geometry: Geometry) -> dict[str, str]:
    """Parameters that this geometry cannot determine whatever the data, with the reason."""
    if geometry.depth_um > 0:
        return {}
    return {"refractive_index": "at depth 0 the index of the specimen leaves no trace in the blur"}


def sampling_warnings(geometry: Geometry) -> tuple[str, ...]:
    """One line per axis that is coarser than Nyquist, with the formula."""
    if geometry.excitation_nm is None:
        axial, lateral = widefield_nyquist_um(1e-3 * geometry.emission_nm, geometry.na, geometry.immersion_index)
        forms = ("λ/(2n(1-cos α))", "λ/(4NA)")
    else:
        axial, lateral = confocal_nyquist_um(1e-3 * geometry.excitation_nm, geometry.na, geometry.immersion_index)
        lateral *= 2  # a pinhole of 1 Airy unit leaves the wide-field band
        forms = ("λ/(4n(1-cos α))", "λ/(4NA)")
    lines = []
    for name, step, limit, form in (
        ("z", geometry.voxel_um[0], axial, forms[0]),
        ("y", geometry.voxel_um[1], lateral, forms[1]),
        ("x", geometry.voxel_um[2], lateral, forms[1]),
    ):
        if step > 1.001 * limit:
            lines.append(
                f"{name} step {1e3 * step:.0f} nm is coarser than Nyquist {form} = {1e3 * limit:.0f} nm: fine detail folds back"
            )
    return tuple(lines)


def block(geometry: Geometry, shape: tuple[int, ...]) -> Geometry:
    """The same instrument with a field of `shape`."""
    return replace(geometry, shape=(int(shape[0]), int(shape[1]), int(shape[2])))
