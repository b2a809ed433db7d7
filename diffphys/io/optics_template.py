"""Commented optics files, one per modality, as `diffphys optics --init` writes them."""

from __future__ import annotations

_DETECTOR = """
# Each number may be `auto`: it is then estimated from the data. State what you know.
detector:
  gain: auto          # counts per photon. From a photon transfer curve or the camera's data sheet (1 / (electrons per count)).
  offset: auto        # counts without light. Mean of an image taken with the shutter closed.
  background: auto    # photons per voxel that do not come from the specimen. Mean of an empty region, offset removed.
  read_sigma: auto    # read noise, photo-electrons rms. Camera's data sheet; 0 for a photon counter.
  peak_photons: auto  # photons that unit brightness of the specimen gives; auto leaves the specimen in photons.
"""

CONFOCAL = (
    """\
# Optics of a confocal stack: the NOMINAL instrument, as its software and its labels state it.
# What is really wrong with it (z-step, spherical aberration, specimen index) is found by the calibration.
modality: confocal_3d

geometry:
  # voxel_um: [0.2, 0.08, 0.08]  # micrometres, z y x. Leave it out when the image's header states it.
  na: 1.4                # numerical aperture. Engraved on the objective.
  immersion_index: 1.515 # oil 1.515, glycerol 1.47, water 1.333, air 1.0. Label of the immersion medium.
  excitation_nm: 488     # laser line. `null` for a wide-field microscope.
  emission_nm: 520       # middle of the detection band, weighted with the dye's spectrum.
  pinhole_au: 1.0        # pinhole diameter in Airy units, as the acquisition software shows it.
  depth_um: 10           # depth of the first plane below the coverslip, micrometres. Read it off the focus drive.
  attenuation_per_um: 0  # mu of the signal's decay exp(-mu z) along the stack; 0 if unknown.
  depth_anchors: 1       # PSFs along depth: 1 is shift-invariant, 2 for stacks up to 10 um, 3 beyond.
  # total_internal_reflection: true  # allow a specimen index below na (TIRF objective, watery specimen): evanescent rays.
"""
    + _DETECTOR
    + """
# Search ranges [low, high]; low = high fixes a parameter. Left out: the default around the nominal value.
ranges:
  # z_step: [-60, 115]                # nm, added to the nominal distance of planes. Drives are rarely off by more than 100 nm.
  # spherical_aberr: [-0.12, 0.23]    # waves rms at 520 nm (Noll Z11). Correction collar, coverslip thickness.
  # refractive_index: [1.503, 1.538]  # of the specimen, absolute; must stay above na. Data sheet of the mounting medium.
"""
)

SHG = (
    """\
# Optics of SHG image frames: the NOMINAL instrument, as its software and its labels state it.
# What is really wrong with it (phase matching, power fluctuation, collection NA) is found by the calibration.
modality: shg

geometry:
  # pixel_um: [0.1, 0.1]        # micrometres in the specimen, y x. Leave it out when the image's header states it.
  na: 0.8                       # numerical aperture of the collection objective. Engraved on it.
  index: 1.4                    # refractive index of the specimen, taken equal at both wavelengths.
  excitation_nm: 800            # laser wavelength; the harmonic has half of it.
  slab_um: 2.0                  # thickness (full width at half maximum) of the layer that makes light: section or focus depth.
  phase_offsets_rad: [0.0, 1.5] # commanded phase mismatch, radians of delta-k L / 2: one number per frame, 1 to 3.
  power_trace: reference        # monitored excitation power, one value per image row: a .csv or .npy file with one column per
                                # frame; `none` if not monitored; `reference` for the published trace of simulated data.
  detection: imaging            # wide-field excitation, harmonic imaged on a camera. `bucket` or `descanned`: a scanned focus,
                                # whose phase mismatch and collection NA cannot be found from an unknown specimen.
  # excitation_na: 0.9          # aperture of the scanned focus; needed by bucket and descanned.
"""
    + _DETECTOR
    + """
# Search ranges [low, high]; low = high fixes a parameter. Left out: the default around the nominal value.
ranges:
  # phase_matching_error: [-1.2, 2.3]          # rad, unknown part of delta-k L / 2.
  # excitation_power_fluctuation: [-2.4, 4.6]  # percent rms of the monitored trace.
  # collection_na_mismatch: [-0.024, 0.046]    # added to na. Immersion, aperture stop, overfilling.
"""
)

TEMPLATES = {"confocal_3d": CONFOCAL, "shg": SHG}


def template(modality: str) -> str:
    """The commented optics file of a modality; it parses as it stands."""
    if modality not in TEMPLATES:
        raise ValueError(f"modality is {modality!r}; expected one of {sorted(TEMPLATES)}")
    return TEMPLATES[modality]
