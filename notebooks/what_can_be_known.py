# %% [markdown]
# # What can be known at all, before the experiment
#
# No cleverness extracts what the photons do not carry. `diffphys.identify` computes the **Cramér–Rao bound**: the smallest
# error bar that any unbiased method could reach with this instrument, this light and this kind of specimen. It needs no
# measurement, so ask it *before* you book the microscope: are my photons enough? Which setting would help most?

# %%
import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffphys

SMALL = "DIFFPHYS_NOTEBOOK_SMALL" in os.environ  # the tests run every notebook with small arrays
SHAPE = (8, 24, 24) if SMALL else (32, 64, 64)
LIGHT = (100, 1000) if SMALL else (30, 100, 300, 1000, 3000)

geometry = diffphys.confocal.Geometry(
    shape=SHAPE, voxel_um=(0.15, 0.08, 0.08), na=1.4, excitation_nm=488, emission_nm=520, depth_um=10
)
here = diffphys.confocal.Spec(z_step=jnp.float32(30.0), spherical_aberr=jnp.float32(0.08), refractive_index=jnp.float32(1.522))

# %% [markdown]
# ## Bounds against light
#
# `photons` is the signal of the brightest voxel. Two cases: the specimen is *unknown* (you calibrate from an ordinary stack) or
# *known* (a calibration sample whose structure you know exactly). The dashed line is the half width of the range in which the
# parameter is searched: a bound above it means that the measurement adds nothing to what you knew before.

# %%
cases = {"unknown specimen": "unknown", "known specimen": "known"}
bounds = {
    told: [
        diffphys.identify("confocal_3d", geometry=geometry, spec=here, photons=n, image=image, suggest_changes=False)
        for n in LIGHT
    ]
    for told, image in cases.items()
}

units = {field.name: field.unit for field in diffphys.confocal.FIELDS} | {"c_tot": "waves rms"}
figure, panels = plt.subplots(1, 4, figsize=(14, 3.8), layout="constrained")
for panel, name in zip(panels, units, strict=True):
    for told, results in bounds.items():
        sigma = [result.derived["c_tot"][1] if name == "c_tot" else result.bounds[name] for result in results]
        panel.loglog(LIGHT, sigma, "o-", label=told)
    if name != "c_tot":
        low, high = results[0].ranges[name]
        panel.axhline((high - low) / 2, color="black", linestyle="--", label="half the range")
    unit = "" if units[name] == "1" else f" ({units[name]})"
    panel.set(title=name, xlabel="photons in the brightest voxel", ylabel=f"smallest 1 sigma{unit}")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
plt.show()

for n, result in zip(LIGHT, bounds["unknown specimen"], strict=True):
    told = ", ".join(f"{k} {v:.2g}{'' if units[k] == '1' else ' ' + units[k]}" for k, v in result.bounds.items())
    print(f"{n:5d} photons, unknown specimen: 1 sigma at best {told}; c_tot {result.derived['c_tot'][1]:.2g} waves rms")

# %% [markdown]
# Where the bound falls as one over the square root of the photons, shot noise limits the measurement: four times the light,
# half the error. Where the curve flattens, it is no longer the light but the specimen that limits: its own unknown structure
# hides the instrument's. `c_tot`, the total aberration, lies well below `spherical_aberr` in all cases.
#
# ## The worst direction, in words
#
# Errors come in combinations. The bound is an ellipsoid, and its longest axis is the mistake that your data forgives most.

# %%
plan = diffphys.identify("confocal_3d", geometry=geometry, spec=here, photons=LIGHT[1])
print(plan.worst)
for name, why in plan.undetermined.items():
    print(f"cannot be determined: {name}: {why}")

figure, panel = plt.subplots(figsize=(5, 4), layout="constrained")
shown = panel.imshow(plan.correlation, cmap="RdBu_r", vmin=-1, vmax=1)
panel.set(
    xticks=range(3),
    yticks=range(3),
    xticklabels=plan.names,
    yticklabels=plan.names,
    title="correlation of the best errors",
    xlabel="parameter",
)
panel.tick_params(axis="x", rotation=30)
for (i, j), value in np.ndenumerate(plan.correlation):
    panel.text(j, i, f"{value:+.2f}", ha="center", va="center", color="white" if abs(value) > 0.6 else "black")
figure.colorbar(shown, ax=panel, label="correlation")
plt.show()

# %% [markdown]
# ## What to change
#
# Every suggestion was computed: the changed experiment has a bound of its own. The factor says by how much the error bar of the
# least known parameter shrinks. Suggestions differ in what they cost you, and only you know that.

# %%
for suggestion in plan.suggestions:
    print(f"{suggestion.gain:6.1f} x smaller error of {suggestion.parameter} by {suggestion.change}")
assert plan.suggestions, "there is always something to change"
best = plan.suggestions[0]
assert best.bounds[best.parameter] < plan.bounds[best.parameter]

# %% [markdown]
# The same from the shell, with your optics file: `diffphys identify --optics optics.yaml --photons 300`.
#
# A bound is what the best method could do; `diffphys.calibrate` comes near it but is not it: the README lists how near.
