# %% [markdown]
# # Calibrate a confocal stack from the stack itself
#
# The log book says: planes every 200 nm, no aberration, specimen index 1.515. The instrument did something else. Here we make
# such a stack, forget how we made it, and let `diffphys.calibrate` find the true settings from the counts alone: no beads, no
# measured PSF. Since the stack is simulated, we can hold the estimate against the truth, error bars included. At the end: the
# same for your own TIFF.

# %%
import os
import tempfile
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffphys
from diffphys.demo import psnr, simulated
from diffphys.io.tiff import read_stack, write_image

SMALL = "DIFFPHYS_NOTEBOOK_SMALL" in os.environ  # the tests run every notebook with small arrays
SHAPE = (16, 32, 32) if SMALL else (32, 64, 64)

geometry = diffphys.confocal.Geometry(
    shape=SHAPE, voxel_um=(0.2, 0.08, 0.08), na=1.4, excitation_nm=488, emission_nm=520, pinhole_au=1.0, depth_um=10
)

# %% [markdown]
# ## A stack from a mismatched instrument
#
# The real step of the stage is 60 nm longer than commanded, there is 0.12 waves of spherical aberration from a wrong correction
# collar, and the specimen is slightly denser than the oil. 1000 photons in the brightest voxel, shot noise, 1 electron of read
# noise and some background: an ordinary stack. The specimen is larger than the field, as in life.

# %%
truth = diffphys.confocal.Spec(z_step=jnp.float32(60.0), spherical_aberr=jnp.float32(0.12), refractive_index=jnp.float32(1.522))
made = simulated("confocal_3d", truth, geometry=geometry, family="filaments", seed=0, photons=1000)
print(f"counts: shape (z, y, x) = {made.y.shape}, from {made.y.min():.0f} to {made.y.max():.0f}")

# %% [markdown]
# ## Calibrate
#
# One call. Besides the counts it gets what a log book knows: the nominal optics (`geometry`) and, if you have it, the camera's
# data sheet (`detector`: gain, offset, read noise). What is left out of the detector is estimated too.
#
# How can this work without knowing the specimen? The spectrum of any specimen falls off smoothly with frequency; the blur
# writes its own, instrument-specific pattern on top. The specimen itself is integrated out.

# %%
found = diffphys.calibrate(made.y, "confocal_3d", geometry=geometry, detector=made.detector)
print(f"status: {found.status.name} ({found.remedy})")
for line in found.warnings:
    print("warning:", line)

print(f"\n{'parameter':18s} {'unit':10s} {'nominal':>9s} {'truth':>9s} {'estimate ± 1 sigma':>22s}   error in sigma")
nominal = diffphys.confocal.nominal(geometry)
for field in diffphys.confocal.FIELDS:
    start, true = float(getattr(nominal, field.name)), float(getattr(truth, field.name))
    value, sigma = found.values[field.name], found.sigma[field.name]
    told = f"{value:.3f} ± {sigma:.3f}"
    print(f"{field.name:18s} {field.unit:10s} {start:9.3f} {true:9.3f} {told:>22s}   {(value - true) / sigma:+.1f}")
c_true = float(diffphys.confocal.derived(truth, geometry=geometry)["c_tot"])
c_found, c_sigma = found.derived["c_tot"]
told = f"{c_found:.3f} ± {c_sigma:.3f}"
print(f"{'c_tot':18s} {'waves rms':10s} {0:9.3f} {c_true:9.3f} {told:>22s}   {(c_found - c_true) / c_sigma:+.1f}")

# %% [markdown]
# **How to read this.** An error bar is the promise that the truth lies within it about two times in three, and within twice of
# it nineteen times in twenty; specimens of few small beads can exceed it, see the README. The bars of `spherical_aberr` and
# `refractive_index` are long for their effect on the image: either can explain the blur. Their sum `c_tot`, the total spherical
# aberration, is known better, and it is the sum that the reconstruction needs. A status other than CONVERGED does not mean
# failure: the remedy beside it says what to check.

# %%
parameters = [*diffphys.confocal.FIELDS]
rows = [
    (f.name, float(getattr(truth, f.name)), found.values[f.name], found.sigma[f.name], found.ranges[f.name], f.unit)
    for f in parameters
]
figure, panels = plt.subplots(len(rows) + 1, 1, figsize=(8, 5), layout="constrained")
rows.append(("c_tot", c_true, c_found, c_sigma, (-0.25, 0.35), "waves rms"))
for panel, (name, true, value, sigma, (low, high), unit) in zip(panels, rows, strict=True):
    panel.errorbar([value], [0], xerr=[sigma], fmt="o", capsize=4, label="estimate ± 1 sigma")
    panel.axvline(true, color="black", linestyle="--", label="truth")
    panel.set(xlim=(low - 0.05 * (high - low), high + 0.05 * (high - low)), yticks=[], ylim=(-1, 1))
    panel.set_xlabel(name if unit == "1" else f"{name} ({unit})")
panels[0].legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
plt.show()

# %% [markdown]
# ## Reconstruct, with the log book's optics and with the calibrated ones
#
# The same counts, the same algorithm (Richardson–Lucy, stopped by its own rule); only the spec differs. PSNR compares with the
# true specimen, in decibels: +3 dB halves the mean squared error.

# %%
restored = {
    "log book": diffphys.reconstruct(made.y, "confocal_3d", nominal, geometry=geometry, detector=made.detector),
    "calibrated": diffphys.reconstruct(made.y, "confocal_3d", found.spec, geometry=geometry, detector=made.detector),
}
quality = {name: psnr(result.image, made.x) for name, result in restored.items()}
for name, result in restored.items():
    print(f"{name:12s} {result.iterations:3d} iterations, PSNR {quality[name]:.1f} dB")

photons = np.asarray((made.y - made.detector.offset) / made.detector.gain - made.detector.background)
row = int(np.argmax(made.x.max(axis=(0, 2))))  # the plane through the brightest object
panes = [("measured", photons / made.detector.peak_photons), *((n, r.image) for n, r in restored.items()), ("truth", made.x)]
(depth, _, width), (dz, _, dx) = SHAPE, geometry.voxel_um
figure, panels = plt.subplots(1, 4, figsize=(14, 4.4), layout="constrained", sharex=True, sharey=True)
for panel, (name, image) in zip(panels, panes, strict=True):
    shown = panel.imshow(
        np.sqrt(np.clip(image[:, row], 0, 1)), extent=(0, width * dx, depth * dz, 0), cmap="magma", vmin=0, vmax=1
    )
    panel.set(title=f"{name}, {quality[name]:.1f} dB" if name in quality else name, xlabel="x (µm)", aspect="auto")
panels[0].set_ylabel("z (µm)")
figure.colorbar(shown, ax=panels, label="√(brightness / peak of the specimen)")
plt.show()

# %% [markdown]
# ## Your own stack
#
# Everything above takes an array of raw counts: not background-subtracted, not filtered, not stretched. From a TIFF or
# OME-TIFF, `read_stack` brings the axes into order and asks for what the file does not say. The cell writes our stack as an
# OME-TIFF and reads it back; for your own, replace the path and the numbers of `geometry`.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "my_stack.ome.tif"  # <- your file
    write_image(path, made.y, geometry.voxel_um)
    stack = read_stack(path, modality="confocal_3d", channel=None, voxel_um=None, axes=None, detector=None)
print(f"{stack.data.shape[0]} planes of {stack.data.shape[1:]} pixels, voxel (z, y, x) = {stack.voxel_um} µm")
own = diffphys.confocal.Geometry(
    shape=stack.data.shape, voxel_um=stack.voxel_um, na=1.4, excitation_nm=488, emission_nm=520, depth_um=10
)
assert own == geometry and np.array_equal(stack.data, made.y)
for line in diffphys.confocal.sampling_warnings(own):
    print("warning:", line)

# %% [markdown]
# Then `diffphys.calibrate(stack.data, "confocal_3d", geometry=own)` as above. Or without Python, with a report to look at:
#
# ```text
# diffphys optics --init confocal_3d -o optics.yaml      # fill in NA, wavelengths, pinhole, depth
# diffphys reconstruct my_stack.ome.tif --modality confocal_3d --optics optics.yaml -o OUT/
# diffphys report OUT/
# ```
