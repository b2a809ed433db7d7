# %% [markdown]
# # Many stacks at once
#
# A screen, a time series, a night of tiles: many stacks of one microscope. `diffphys.calibrate_batch` calibrates them together:
# one compiled program for all, spread over the cores (or accelerators). Two questions are different and both are answered
# here: *each stack for itself* (did the stage drift?) and *one spec for all* (`shared=True`: the same instrument, more light).

# %%
import contextlib
import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffphys
from diffphys.calibrate.lanes import lanes
from diffphys.cli import main
from diffphys.demo import simulated
from diffphys.io.tiff import write_image

SMALL = "DIFFPHYS_NOTEBOOK_SMALL" in os.environ  # the tests run every notebook with small arrays
SHAPE, COUNT = ((16, 32, 32), 2) if SMALL else ((16, 48, 48), 4)

# %% [markdown]
# ## Devices
#
# On a CPU every core takes a fit of its own, of whichever stack comes next. Accelerators take many stacks abreast, and several
# devices share them. `lanes` shows what a batch will do: how many stacks go at a time, on which devices.

# %%
print("devices:", jax.devices())
plan = lanes(COUNT)
print(f"{COUNT} stacks over {len(plan.devices)} device(s), {plan.together} abreast on each: {plan.size} at a time")

# %% [markdown]
# ## Stacks of one instrument
#
# One microscope, mismatched as always, and different specimens: few photons each (150 in the brightest voxel), so that every
# single stack knows its instrument only roughly.

# %%
geometry = diffphys.confocal.Geometry(
    shape=SHAPE, voxel_um=(0.2, 0.08, 0.08), na=1.4, excitation_nm=488, emission_nm=520, pinhole_au=1.0, depth_um=10
)
truth = diffphys.confocal.Spec(z_step=jnp.float32(60.0), spherical_aberr=jnp.float32(0.12), refractive_index=jnp.float32(1.522))
made = [simulated("confocal_3d", truth, geometry=geometry, family="filaments", seed=s, photons=150) for s in range(COUNT)]
stacks, detector = [m.y for m in made], [m.detector for m in made]

extent = (0, SHAPE[2] * geometry.voxel_um[2], SHAPE[1] * geometry.voxel_um[1], 0)
figure, panels = plt.subplots(1, COUNT, figsize=(2.4 * COUNT + 1, 3), layout="constrained", sharey=True)
for number, (panel, y) in enumerate(zip(panels, stacks, strict=True)):
    shown = panel.imshow(y.max(axis=0), extent=extent, cmap="magma", vmin=100, vmax=max(y.max() for y in stacks))
    panel.set(title=f"stack {number}", xlabel="x (µm)")
panels[0].set_ylabel("y (µm)")
figure.colorbar(shown, ax=panels, label="counts, brightest along z")
plt.show()

# %% [markdown]
# ## Each for itself, and one spec for all
#
# Both take the list of stacks. `shared=True` adds up the evidence of all stacks for a single spec, while noise level and the
# specimen's spectrum stay each stack's own. What to expect: its error bars are shorter, by about the square root of the
# number of stacks where each adds as much, and they are the same for every stack.

# %%
each = diffphys.calibrate_batch(stacks, "confocal_3d", geometry=geometry, detector=detector)
shared = diffphys.calibrate_batch(stacks, "confocal_3d", geometry=geometry, detector=detector, shared=True)
assert all(one.values == shared[0].values for one in shared)

c_true = float(diffphys.confocal.derived(truth, geometry=geometry)["c_tot"])
wanted = {"z_step": (float(truth.z_step), "nm"), "c_tot": (c_true, "waves rms")}


def told(calibration, name):
    """(value, 1 sigma) of a parameter or of a derived one."""
    if name in calibration.derived:
        return calibration.derived[name]
    return calibration.values[name], calibration.sigma[name]


for name, (true, unit) in wanted.items():
    single = ", ".join("{:.3f} ± {:.3f}".format(*told(c, name)) for c in each)
    print(f"{name} ({unit}), truth {true:.3f}\n  each: {single}\n  shared: {{:.3f}} ± {{:.3f}}".format(*told(shared[0], name)))

# %% [markdown]
# Points: single stacks with 1 sigma. Band: the shared spec with its 1 sigma. The band should cover the dashed truth or miss it
# narrowly, and the points should scatter about it as far as their bars say: about two in three bars touch the truth.

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for panel, (name, (true, unit)) in zip(panels, wanted.items(), strict=True):
    values, sigmas = np.transpose([told(c, name) for c in each])
    panel.errorbar(range(COUNT), values, yerr=sigmas, fmt="o", capsize=4, label="each stack ± 1 sigma")
    value, sigma = told(shared[0], name)
    panel.axhspan(value - sigma, value + sigma, color="C1", alpha=0.4, label="shared ± 1 sigma")
    panel.axhline(true, color="black", linestyle="--", label="truth")
    panel.set(xlabel="stack", ylabel=f"{name} ({unit})", xticks=range(COUNT))
panels[0].legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0))
plt.show()

# %% [markdown]
# ## The same numbers as one by one
#
# A batch is a way of computing, not another method: stack 0 alone gives the same estimate. The difference, in units of the
# error bar, is the rounding of another compiled program.

# %%
alone = diffphys.calibrate(stacks[0], "confocal_3d", geometry=geometry, detector=detector[0])
for name, value in alone.values.items():
    difference = abs(value - each[0].values[name]) / alone.sigma[name]
    print(f"{name:18s} alone {value:.5f}, in the batch {each[0].values[name]:.5f}: differ by {difference:.4f} sigma")
    assert difference < 0.2

# %% [markdown]
# ## Stacks per second, here
#
# The first call compiles, the second one shows the speed. It is measured on whatever machine runs this; the ratio depends on
# the cores and on who else uses them. (`benchmarks/batch_calibration.py` compares more fairly: each way in a process of its
# own.)

# %%
started = time.perf_counter()
again = diffphys.calibrate_batch(stacks, "confocal_3d", geometry=geometry, detector=detector)
together = (time.perf_counter() - started) / COUNT
started = time.perf_counter()
diffphys.calibrate(stacks[0], "confocal_3d", geometry=geometry, detector=detector[0])
single = time.perf_counter() - started
assert all(a.values == b.values for a, b in zip(each, again, strict=True))  # the same call, the same numbers
print(f"one by one {single:.2f} s per stack, in a batch {together:.2f} s per stack on {len(plan.devices)} device(s)")

# %% [markdown]
# ## A folder, from the shell
#
# `diffphys calibrate FOLDER/ --modality confocal_3d --optics optics.yaml -o OUT/` calibrates every stack of a folder, equal
# ones together, and writes one table. Stop it and repeat the command: finished stacks are kept. `--shared` finds one spec for
# all. The cell writes two of our stacks as files, runs this very command and prints the table.

# %%
OPTICS = f"""
modality: confocal_3d
geometry:
  {{voxel_um: [0.2, 0.08, 0.08], na: 1.4, immersion_index: 1.515,
    excitation_nm: 488, emission_nm: 520, pinhole_au: 1.0, depth_um: 10}}
detector: {{gain: 1, offset: 100, read_sigma: 1, background: {float(detector[0].background):g}}}
"""
with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
    folder, out = Path("FOLDER"), Path("OUT")
    folder.mkdir()
    for number, y in enumerate(stacks[:2]):
        write_image(folder / f"stack_{number}.ome.tif", y, geometry.voxel_um)
    Path("optics.yaml").write_text(OPTICS)
    options = ["--modality", "confocal_3d", "--optics", "optics.yaml", "-o", str(out)]
    code = main(["calibrate", str(folder), *options])
    print((out / "calibrations.csv").read_text())
    print("beside it:", sorted(path.name for path in out.iterdir()))
assert code == 0
