# %% [markdown]
# # Calibrate a second-harmonic microscope from its frames
#
# Three things are never quite as the log book says: the phase matching, the power of the laser while the camera reads its
# rows, and the collection aperture. Here we simulate frames of a mismatched instrument, forget how, and let
# `diffphys.calibrate` find the three from the counts alone. The question on the way: *how many frames does it take?* One, two
# and three frames of the same measurement are calibrated and held against the truth. At the end: the same for your own TIFF.

# %%
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffphys
from diffphys.demo import psnr, simulated
from diffphys.io.tiff import read_stack, write_image

SMALL = "DIFFPHYS_NOTEBOOK_SMALL" in os.environ  # the tests run every notebook with small arrays
SHAPE = (64, 64) if SMALL else (96, 96)
OFFSETS = (0.0, 1.5) if SMALL else (0.0, 1.5, 3.0)  # commanded phase of each frame, rad

geometry = diffphys.shg.Geometry(shape=SHAPE, pixel_um=0.1, na=0.8, excitation_nm=800, slab_um=2.0, phase_offsets_rad=OFFSETS)
units = {field.name: field.unit for field in diffphys.shg.FIELDS}

# %% [markdown]
# ## Frames from a mismatched instrument
#
# The crystal is 0.6 rad off phase matching, the laser's power follows the monitored trace with 2.5 % rms, and the collection
# aperture is 0.82 instead of 0.80. 1000 photons in the brightest pixel of the first frame. Between frames the specimen stays
# and the phase is turned by a *known* amount: look how brightness changes from frame to frame. That change, and the change of
# blur that goes with it, is what will tell the settings apart.

# %%
truth = diffphys.shg.Spec(jnp.float32(0.6), jnp.float32(2.5), jnp.float32(0.02))
made = simulated("shg", truth, geometry=geometry, family="wavy", seed=0, photons=1000)
print(f"counts: shape (frame, y, x) = {made.y.shape}, brightest pixel of each frame {made.y.max(axis=(1, 2)).round()}")

extent = (0, SHAPE[1] * geometry.pixel_um[1], SHAPE[0] * geometry.pixel_um[0], 0)
figure, panels = plt.subplots(1, len(OFFSETS), figsize=(4.2 * len(OFFSETS), 3.8), layout="constrained", sharey=True)
for panel, frame, offset in zip(panels, made.y, OFFSETS, strict=True):
    shown = panel.imshow(frame, extent=extent, cmap="magma", vmin=made.y.min(), vmax=made.y.max())
    panel.set(title=f"commanded phase {offset:g} rad", xlabel="x (µm)")
panels[0].set_ylabel("y (µm)")
figure.colorbar(shown, ax=panels, label="counts")
plt.show()

# %% [markdown]
# ## Calibrate with all frames, with fewer, with one
#
# One call each. `made.y[:k]` are the first k frames of the same measurement, so only the number of frames differs. What to look
# at: the 1 sigma after the ±, and whether the truth lies within about two of them. Fewer frames must mean longer bars, not
# wrong answers.

# %%
frames = [1, 2] if SMALL else [1, 2, 3]
found = {}
for k in frames:
    first = replace(geometry, phase_offsets_rad=OFFSETS[:k])
    found[k] = diffphys.calibrate(made.y[:k], "shg", geometry=first, detector=made.detector)
    print(f"{k} frame{'s' * (k > 1)}: {found[k].status.name}")
    for name, value in found[k].values.items():
        sigma, true = found[k].sigma[name], float(getattr(truth, name))
        told = f"{value:+.4f} ± {sigma:.4f}"
        print(f"  {name:29s} {told:>20s} {units[name]:12s} truth {true:+.4f}, error {(value - true) / sigma:+.1f} sigma")

# %% [markdown]
# The same as a picture. Each panel is as wide as the range that was searched: a bar that fills its panel says that the
# measurement has told nothing that was not known before. An estimate may then lie anywhere, at the edge too.

# %%
figure, panels = plt.subplots(3, 1, figsize=(8, 5), layout="constrained")
for panel, name in zip(panels, units, strict=True):
    low, high = found[frames[-1]].ranges[name]
    for k, calibration in found.items():
        panel.errorbar([calibration.values[name]], [k], xerr=[calibration.sigma[name]], fmt="o", capsize=4, color=f"C{k}")
    panel.axvline(float(getattr(truth, name)), color="black", linestyle="--", label="truth")
    panel.set(xlim=(low, high), ylim=(0.4, frames[-1] + 0.6), yticks=frames, ylabel="frames", xlabel=f"{name} ({units[name]})")
panels[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0))
plt.show()

# %% [markdown]
# ## What one frame cannot tell
#
# Phase mismatch changes how bright a frame is, but a darker frame could as well come from a darker specimen. What is left is
# its faint effect on the blur, and there it looks like another aperture. `calibrate` does not invent an answer: the status is
# NOT_IDENTIFIABLE, each parameter that this data cannot determine is named with the reason, and the remedy says what to do.

# %%
one = found[1]
print(f"status: {one.status.name}: {one.remedy}")
for name, why in one.undetermined.items():
    print(f"  {name}: {why}")
assert one.status is diffphys.types.Status.NOT_IDENTIFIABLE and "phase_matching_error" in one.undetermined

# %% [markdown]
# ## Two frames against three: the correlation of phase and aperture
#
# With two frames the phase is found, and yet its error and that of the aperture go hand in hand: a correlation near 1. The
# ellipse of probable values is a needle: along it phase and aperture can be exchanged with hardly a change in the data. A
# third frame on the other flank of the phase-matching curve cuts the needle short. The error of two frames lies along the
# needle.

# %%
pair = [0, 2]  # phase_matching_error, collection_na_mismatch
turn = np.linspace(0, 2 * np.pi, 200)
figure, panel = plt.subplots(figsize=(7, 4.5), layout="constrained")
for k, calibration in found.items():
    if k == 1:
        continue  # its ellipse would fill the room
    correlation = calibration.correlation[0, 2]
    print(f"{k} frames: correlation of phase mismatch and collection NA {correlation:+.2f}")
    root = np.linalg.cholesky(calibration.covariance[np.ix_(pair, pair)]) @ [np.cos(turn), np.sin(turn)]
    middle = [calibration.values[n] for n in ("phase_matching_error", "collection_na_mismatch")]
    panel.plot(middle[0] + root[0], middle[1] + root[1], color=f"C{k}", label=f"{k} frames, correlation {correlation:+.2f}")
    panel.plot(middle[0] + 2 * root[0], middle[1] + 2 * root[1], color=f"C{k}", linestyle=":")
panel.plot(0.6, 0.02, "k+", markersize=12, label="truth")
panel.set(xlabel="phase_matching_error (rad)", ylabel="collection_na_mismatch (NA)", title="1 sigma; dotted: 2 sigma")
panel.legend(frameon=False)
plt.show()

# %% [markdown]
# So: two frames where the aperture is known anyway (fix it with `ranges={"collection_na_mismatch": (0, 0)}`), three where it is
# not. `diffphys.identify("shg", geometry=...)` answers this for your own instrument before the experiment.
#
# ## Reconstruct
#
# The same counts, the same algorithm (Richardson–Lucy with its own stopping rule); only the spec differs: the log book's, the
# calibrated one, and the true one, the *oracle* that no one has. PSNR compares with the true specimen; what the estimate loses
# against the oracle is the price of not knowing the instrument.

# %%
best = found[frames[-1]]
specs = {"nominal": diffphys.shg.nominal(geometry), "estimated": best.spec, "oracle": truth}
restored = {
    name: diffphys.reconstruct(made.y, "shg", spec, geometry=geometry, detector=made.detector).image
    for name, spec in specs.items()
}
quality = {name: psnr(image, made.x) for name, image in restored.items()}
for name, value in quality.items():
    print(f"{name:10s} PSNR {value:.1f} dB")
assert quality["estimated"] > quality["nominal"]

panes = {**restored, "truth": made.x}
figure, panels = plt.subplots(1, 4, figsize=(14, 3.8), layout="constrained", sharex=True, sharey=True)
for panel, (name, image) in zip(panels, panes.items(), strict=True):
    shown = panel.imshow(np.sqrt(np.clip(image, 0, 1)), extent=extent, cmap="magma", vmin=0, vmax=1)
    panel.set(title=f"{name}, {quality[name]:.1f} dB" if name in quality else name, xlabel="x (µm)")
panels[0].set_ylabel("y (µm)")
figure.colorbar(shown, ax=panels, label="√(brightness / peak of the specimen)")
plt.show()

# %% [markdown]
# ## Your own frames
#
# A TIFF with one plane per frame, raw counts. `read_stack` brings the axes into order and asks for what the file does not
# say; the phase of each frame and the power trace of the photodiode are in no header, so you state them in `Geometry`
# (`power_trace`: rows of numbers, one row per frame; `None` if nobody watched the laser, and the fluctuation is then fixed at
# 0).

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "my_frames.ome.tif"  # <- your file
    write_image(path, made.y, geometry.pixel_um)
    read = read_stack(path, modality="shg", axes="fyx")  # the axes are frame, y, x, whatever the header calls them
own = diffphys.shg.Geometry(shape=read.data.shape[1:], pixel_um=read.voxel_um, na=0.8, phase_offsets_rad=OFFSETS)
assert own == geometry and np.array_equal(read.data, made.y)
print(f"{len(read.data)} frames of {read.data.shape[1:]} pixels, pixel (y, x) = {read.voxel_um} µm")
for line in diffphys.shg.sampling_warnings(own):
    print("warning:", line)

# %% [markdown]
# Then `diffphys.calibrate(read.data, "shg", geometry=own)`. Or without Python, with a report to look at:
#
# ```text
# diffphys optics --init shg -o optics.yaml      # fill in NA, wavelength, slab, phase offsets
# diffphys reconstruct my_frames.ome.tif --modality shg --axes fyx --optics optics.yaml -o OUT/
# diffphys report OUT/
# ```
