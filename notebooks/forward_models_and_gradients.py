# %% [markdown]
# # What the two microscopes do to an image, and how that changes with a mismatch
#
# A forward model answers one question: *if the specimen looked like this and the instrument were set like that, what would the
# camera record?* diffphys has one for confocal 3-D stacks and one for second-harmonic (SHG) frames. Both take a **spec**: the
# few numbers that say how far the real instrument is from its log book. This notebook shows the blur of both, what each number
# does to it, and that the derivative of an image with respect to the instrument is exact and one line long.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import diffphys

SMALL = "DIFFPHYS_NOTEBOOK_SMALL" in os.environ  # the tests run every notebook with small arrays
STACK = (16, 24, 24) if SMALL else (40, 64, 64)
FRAME = (32, 32) if SMALL else (64, 64)

confocal = diffphys.confocal.Geometry(
    shape=STACK, voxel_um=(0.15, 0.06, 0.06), na=1.4, excitation_nm=488, emission_nm=520, depth_um=30
)
shg = diffphys.shg.Geometry(shape=FRAME, pixel_um=0.1, na=0.8, excitation_nm=800, phase_offsets_rad=(0.0, 1.5))
GEOMETRY = {"confocal_3d": confocal, "shg": shg}
MODALITY = {"confocal_3d": diffphys.confocal, "shg": diffphys.shg}

# %% [markdown]
# ## The blur of a perfect instrument
#
# The **PSF** is the image of a point. The **OTF** is its Fourier transform: which fineness of detail (in cycles per micrometre)
# still reaches the detector, and with what contrast. In the confocal the point is longer along the axis (z) than across: that
# is why stacks look stretched. SHG records one frame per commanded phase offset, and the second frame (+1.5 rad) is not just a
# dimmer copy of the first: it favours oblique light, so its blur is another one. Two different blurs of one specimen are what
# makes the instrument's own error visible.


# %%
def axis_um(count, pitch_um):
    """Positions of the pixels of one axis, 0 at the centre."""
    return (np.arange(count) - count // 2) * pitch_um


def contrast(psf, pitch_um):
    """|OTF| along x over cycles per micrometre; `psf` is (..., y, x), summed over the other axes."""
    line = psf.sum(axis=tuple(range(psf.ndim - 1)))
    return np.fft.rfftfreq(line.size, pitch_um), np.abs(np.fft.rfft(line))


def extent(axes, pitch_um):
    """Borders of an image in micrometres, for imshow."""
    y, x = (axis_um(n, d) for n, d in zip(axes, pitch_um, strict=True))
    return (x[0] - pitch_um[1] / 2, x[-1] + pitch_um[1] / 2, y[-1] + pitch_um[0] / 2, y[0] - pitch_um[0] / 2)


psf_confocal = np.asarray(diffphys.confocal.psf(diffphys.confocal.nominal(confocal), geometry=confocal))
psf_shg = np.asarray(diffphys.shg.psf(diffphys.shg.nominal(shg), geometry=shg))
side = psf_confocal[:, STACK[1] // 2]
pictures = [
    ("confocal, side view", side / side.max(), extent(side.shape, confocal.voxel_um[::2]), "z (µm)"),
    ("SHG, frame at 0 rad", psf_shg[0] / psf_shg[0].max(), extent(FRAME, shg.pixel_um), "y (µm)"),
    ("SHG, frame at +1.5 rad", psf_shg[1] / psf_shg[1].max(), extent(FRAME, shg.pixel_um), "y (µm)"),
]

figure, panels = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained", width_ratios=(0.8, 1, 1, 1.2))
for panel, (title, image, border, vertical) in zip(panels[:3], pictures, strict=True):
    shown = panel.imshow(np.sqrt(image), extent=border, cmap="magma", vmin=0, vmax=1)
    panel.set(title=title, xlabel="x (µm)", ylabel=vertical)
    panel.set_xlim(-1.2, 1.2)
    if vertical.startswith("y"):
        panel.set_ylim(1.2, -1.2)
figure.colorbar(shown, ax=panels[:3], label="√(PSF / its peak)", shrink=0.9)
for label, psf, pitch in (
    ("confocal", psf_confocal, 0.06),
    ("SHG, 0 rad", psf_shg[0], 0.1),
    ("SHG, +1.5 rad", psf_shg[1], 0.1),
):
    frequency, value = contrast(psf, pitch)
    panels[3].semilogy(frequency, value / value[0], label=label)
panels[3].set(title="|OTF| along x", xlabel="spatial frequency (1/µm)", ylabel="contrast", ylim=(1e-3, 1.3), xlim=(0, 6))
panels[3].legend(frameon=False)
plt.show()

# %% [markdown]
# ## What each mismatch parameter does
#
# Each panel shows *the image with this one error, minus the perfect instrument's image*, of the same specimen. Red: brighter
# than it should be; blue: darker. Look for three things:
#
# * `z_step` of the confocal moves light along z only: planes further apart than the log says make every object look shorter.
#   `spherical_aberr` takes light out of the centre of every object, much more of it, and sends it up and down unequally.
#   That difference is how a calibration can tell them apart.
# * `refractive_index` changes the image in the way of an aberration: a specimen of another index *is* mostly spherical
#   aberration, the more the deeper one looks. The two trade off, and mainly their sum (`c_tot`, printed below) is known.
# * `phase_matching_error` of SHG changes brightness and sharpness, differently in each frame;
#   `excitation_power_fluctuation` makes stripes along the rows, since the frame is read row by row;
#   `collection_na_mismatch` touches only the finest detail, by much less than the other two.


# %%
def specimen(name):
    """A drawn specimen with a peak of 1, a little larger than the field: light from outside blurs into it."""
    geometry = GEOMETRY[name]
    shape = tuple(round(1.5 * n) for n in geometry.shape)
    pitch = {"voxel_um": geometry.voxel_um} if name == "confocal_3d" else {"pixel_um": geometry.pixel_um}
    family = "beads" if name == "confocal_3d" else "collagen"
    density = 4.0 if name == "confocal_3d" else 1.0
    return jnp.asarray(MODALITY[name].scene(family, shape=shape, seed=1, haze=0.02, density=density, **pitch), jnp.float32)


def changed(name, **values):
    """The nominal spec with some values replaced."""
    modality = MODALITY[name]
    nominal = modality.nominal(GEOMETRY[name])
    held = {field.name: float(getattr(nominal, field.name)) for field in modality.FIELDS} | values
    return modality.Spec(**{key: jnp.float32(value) for key, value in held.items()})


CHANGES = [
    ("confocal_3d", "z_step", 60.0, "+60 nm"),
    ("confocal_3d", "spherical_aberr", 0.15, "+0.15 waves"),
    ("confocal_3d", "refractive_index", 1.53, "1.53 for 1.515"),
    ("shg", "phase_matching_error", 0.8, "+0.8 rad"),
    ("shg", "excitation_power_fluctuation", 4.0, "4 % rms"),
    ("shg", "collection_na_mismatch", 0.04, "+0.04 NA"),
]

images = {name: specimen(name) for name in MODALITY}
record = {
    name: jax.jit(lambda spec, x, name=name: MODALITY[name].forward(spec, x, geometry=GEOMETRY[name])) for name in MODALITY
}

figure, panels = plt.subplots(2, 3, figsize=(12, 7.2), layout="constrained")
for panel, (name, parameter, value, told) in zip(panels.flat, CHANGES, strict=True):
    perfect = np.asarray(record[name](changed(name), images[name]))
    wrong = np.asarray(record[name](changed(name, **{parameter: value}), images[name]))
    stack = name == "confocal_3d"
    view = (slice(None), STACK[1] // 2) if stack else (1,)  # the middle plane from the side; SHG's frame at +1.5 rad
    difference = 100 * (wrong - perfect)[view] / perfect[view].max()
    limit = np.abs(difference).max()
    border = extent(difference.shape, confocal.voxel_um[::2] if stack else shg.pixel_um)
    shown = panel.imshow(difference, extent=border, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    panel.set(title=f"{parameter}: {told}", xlabel="x (µm)", ylabel="z (µm)" if stack else "y (µm)")
    figure.colorbar(shown, ax=panel, label="change (% of the peak)")
    print(f"{parameter:30s} {told:15s} changes the image by up to {limit:5.1f} % of its peak")
plt.show()

total = {
    p: diffphys.confocal.derived(changed("confocal_3d", **{p: v}), geometry=confocal)["c_tot"] for _, p, v, _ in CHANGES[:3]
}
print("total spherical aberration c_tot:", ", ".join(f"{float(v):+.3f} waves rms with {p}" for p, v in total.items()))

# %% [markdown]
# ## The derivative, exactly
#
# "How does the sharpness of the PSF react to 1 nm more of z-step?" One way is to compute the PSF twice and subtract (a *finite
# difference*). That needs one more run per parameter, and a step neither too large (curvature) nor too small (rounding).
# `jax.grad` walks the computation backwards instead, once, for all parameters. Both must agree; in double precision they do to
# many digits. This derivative is what lets a calibration walk downhill instead of searching.


# %%
def sharpness(values, modality, geometry):
    """Sum of the squared PSF: larger is sharper. `values` in the order of the modality's fields."""
    names = [field.name for field in modality.FIELDS]
    psf = modality.psf(modality.Spec(**dict(zip(names, values, strict=True))), geometry=geometry)
    return jnp.log(jnp.sum(psf**2))


STEP = {"z_step": 1e-2, "spherical_aberr": 1e-4, "refractive_index": 1e-5, "phase_matching_error": 1e-4}
largest = 0.0
print(f"\n{'parameter':30s} {'unit':12s} {'jax.grad':>14s} {'finite diff.':>14s}   of log sharpness per unit")
with jax.enable_x64(True):
    for name, at in (("confocal_3d", (40.0, 0.08, 1.522)), ("shg", (0.5, 1.0, 0.02))):
        modality, geometry = MODALITY[name], GEOMETRY[name]
        value = jax.jit(lambda v, m=modality, g=geometry: sharpness(v, m, g))
        here = jnp.asarray(at, jnp.float64)
        exact = jax.jit(jax.grad(value))(here)
        for i, field in enumerate(modality.FIELDS):
            step = STEP.get(field.name, 1e-4)
            aside = jnp.zeros(3, jnp.float64).at[i].set(step)
            finite = float(value(here + aside) - value(here - aside)) / (2 * step)
            largest = max(largest, abs(float(exact[i]) - finite) / max(abs(finite), 1e-6))
            print(f"{field.name:30s} {field.unit:12s} {float(exact[i]):14.8f} {finite:14.8f}")
print(f"largest relative disagreement: {largest:.1e}")
assert largest < 1e-4, "the derivative and the finite difference disagree"

# %% [markdown]
# The power fluctuation has slope 0: it modulates rows of the recorded frame and leaves the PSF alone.
#
# ## A picture of the derivative
#
# `jax.jvp` gives the derivative of the *whole stack* by one parameter: where in the image does the information about the z-step
# sit? At the upper and lower edges of small objects. A stack without such edges could not be calibrated.

# %%
nominal = changed("confocal_3d")
direction = diffphys.confocal.Spec(z_step=jnp.float32(1.0), spherical_aberr=jnp.float32(0.0), refractive_index=jnp.float32(0.0))
image, slope = jax.jvp(lambda spec: record["confocal_3d"](spec, images["confocal_3d"]), (nominal,), (direction,))
row, peak = STACK[1] // 2, float(image.max())
border = extent((STACK[0], STACK[2]), confocal.voxel_um[::2])

figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
shown = panels[0].imshow(np.asarray(image)[:, row] / peak, extent=border, cmap="magma", aspect="auto")
figure.colorbar(shown, ax=panels[0], label="signal (of the stack's peak)")
change = 1000 * np.asarray(slope)[:, row] / peak
limit = np.abs(change).max()
shown = panels[1].imshow(change, extent=border, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
figure.colorbar(shown, ax=panels[1], label="derivative (‰ of the peak per nm)")
for panel, title in zip(panels, ("recorded stack, side view", "its derivative by z_step"), strict=True):
    panel.set(title=title, xlabel="x (µm)", ylabel="z (µm)")
plt.show()
