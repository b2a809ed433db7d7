# %% [markdown]
# # Plug the microscope into your own solver
#
# You have a reconstruction method and need its physics: "apply the blur", "apply its transpose", "tell me the gradient". And
# you would like the instrument's settings to be learned along with the rest. `diffphys.plugin.layer.Optics` is that: a layer
# (flax NNX) whose only parameters are the mismatch numbers, always inside their allowed ranges.

# %%
import os
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

import diffphys
from diffphys.noise import Detector, sample
from diffphys.plugin.layer import Optics
from diffphys.plugin.unrolled import Unrolled, objective

SMALL = "DIFFPHYS_NOTEBOOK_SMALL" in os.environ  # the tests run every notebook with small arrays
SHAPE = (10, 16, 16) if SMALL else (24, 48, 48)
ROUNDS = 10 if SMALL else 40  # of training the unrolled solver

geometry = diffphys.confocal.Geometry(shape=SHAPE, voxel_um=(0.15, 0.08, 0.08), na=1.4, excitation_nm=488, emission_nm=520)
truth = diffphys.confocal.Spec(z_step=jnp.float32(40.0), spherical_aberr=jnp.float32(0.0), refractive_index=jnp.float32(1.515))

# %% [markdown]
# ## Find the z-step with a specimen that you know
#
# Suppose the specimen is known, say a fabricated structure. Then the z-step is the number for which the model's stack looks
# like the recorded one. Four lines of training: misfit, gradient, optimiser, loop. Adam is any optax optimiser.

# %%
optics = Optics("confocal_3d", geometry, trainable=["z_step"])
shape, pitch = optics.specimen, geometry.voxel_um  # the specimen reaches beyond the recorded field
known = jnp.asarray(diffphys.confocal.scene("beads", shape=shape, voxel_um=pitch, seed=5, haze=0.02, density=4.0), jnp.float32)
clean = optics(known, spec=truth)
detector = Detector(peak_photons=1000 / clean.max(), background=20.0, read_sigma=1.0)
recorded = (sample(jax.random.key(0), detector, clean) - detector.background) / detector.peak_photons


def misfit(layer):
    """Mean squared difference of the model's stack and the recorded one, in units of its brightness."""
    return jnp.mean((layer(known) - recorded) ** 2) / jnp.mean(recorded**2)


@nnx.jit
def step(layer, optimizer):
    value, slope = nnx.value_and_grad(misfit)(layer)
    optimizer.update(layer, slope)
    return value


optimizer = nnx.Optimizer(optics, optax.adam(0.05), wrt=nnx.Param)
path, values = [optics.values["z_step"]], []
for _ in range(80):
    values.append(float(step(optics, optimizer)))
    path.append(optics.values["z_step"])
print(f"z_step: from {path[0]:.1f} nm to {path[-1]:.2f} nm; the truth is {float(truth.z_step):.1f} nm")
assert abs(path[-1] - 40.0) < 4.0

figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
panels[0].plot(path)
panels[0].axhline(float(truth.z_step), color="black", linestyle="--", label="truth")
panels[0].set(xlabel="step of Adam", ylabel="z_step (nm)", title="the layer's parameter")
panels[0].legend(frameon=False)
panels[1].semilogy(values)
panels[1].set(xlabel="step of Adam", ylabel="misfit (relative squared)", title="what is left is noise")
plt.show()

# %% [markdown]
# ## What a solver calls
#
# `optics.at()` is the operator at the layer's spec. Any iterative method can be written with these five: the forward model, its
# transpose, the gradient of the squared misfit, the proximal step and a bound of the operator's norm (for a safe step size).
# A transpose is right when ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ for every x and y: check that of any operator you are given.

# %%
physics = optics.at()
image = jax.random.uniform(jax.random.key(1), physics.specimen)
data = jax.random.uniform(jax.random.key(2), physics.measurement)
left, right = float(jnp.vdot(physics.apply(image), data)), float(jnp.vdot(image, physics.adjoint(data)))
print(f"<A x, y> = {left:.5f}, <x, A^T y> = {right:.5f}; |A|^2 is at most {float(physics.lipschitz()):.3f}")
assert abs(left - right) < 1e-4 * abs(left)

x, rate = jnp.full(physics.specimen, recorded.mean()), 1.0 / physics.lipschitz()
descend = jax.jit(lambda x: jnp.maximum(x - rate * physics.gradient(x, recorded), 0.0))
start = float(jnp.linalg.norm(physics.apply(x) - recorded))
for _ in range(50):
    x = descend(x)
end = float(jnp.linalg.norm(physics.apply(x) - recorded))
print(f"50 projected gradient steps lower the residual from {start:.3f} to {end:.3f} (units of the specimen's peak)")
assert end < start

# %% [markdown]
# ## An unrolled solver
#
# The same steps, few of them, with a small network after each, trained as one: `diffphys.plugin.unrolled` is made to be copied
# and changed. Its objective holds the error of the image *and* the misfit of the training specimens. The second term is no
# ornament: the image error alone prefers wrong optics that happen to sharpen.

# %%
restorer = Unrolled(Optics("confocal_3d", geometry, trainable=["z_step"]), steps=2, width=4, rngs=nnx.Rngs(0))
specimens = 1000.0 * known[None]  # photons per voxel
noisy = jnp.maximum((sample(jax.random.key(3), Detector(background=20.0), 1000.0 * clean) - 20.0)[None], 0.0)
optimizer = nnx.Optimizer(restorer, optax.adam(0.02), wrt=nnx.Param)


@nnx.jit
def train(model, optimizer):
    value, slope = nnx.value_and_grad(objective)(model, specimens, noisy)
    optimizer.update(model, slope)
    return value


curve = [float(train(restorer, optimizer)) for _ in range(ROUNDS)]
print(f"objective: {curve[0]:.3f} -> {curve[-1]:.3f}; its z_step is now {restorer.optics.values['z_step']:.1f} nm")
assert curve[-1] < curve[0]

after = np.asarray(physics.crop(restorer(noisy)[0])) / 1000.0
row = SHAPE[1] // 2
panes = [
    ("recorded", recorded),
    ("50 gradient steps", physics.crop(x)),
    ("unrolled, trained", after),
    ("specimen", physics.crop(known)),
]
figure, panels = plt.subplots(1, 4, figsize=(14, 4), layout="constrained", sharex=True, sharey=True)
border = (0, SHAPE[2] * pitch[2], SHAPE[0] * pitch[0], 0)
for panel, (title, shown) in zip(panels, panes, strict=True):
    top = float(np.percentile(np.asarray(shown), 99.9))
    drawn = panel.imshow(np.asarray(shown)[:, row] / top, extent=border, cmap="magma", vmin=0, vmax=1)
    panel.set(title=title, xlabel="x (µm)")
panels[0].set_ylabel("z (µm)")
figure.colorbar(drawn, ax=panels, label="brightness (of the image's 99.9th percentile)")
plt.show()

# %% [markdown]
# This was one specimen, seen in training: it shows the mechanics, not the quality. Train on many, test on others.
#
# ## PyTorch and deepinv
#
# The same layer exists for PyTorch (`pip install 'diffphys[torch]'`) and as a deepinv physics (`diffphys[deepinv]`).

# %%
if find_spec("torch") is not None:
    import torch

    from diffphys.plugin.torch import Optics as TorchOptics

    layer = TorchOptics("confocal_3d", geometry, trainable=["z_step"])
    misfit_torch = torch.mean((layer(torch.tensor(np.asarray(known))) - torch.tensor(np.asarray(recorded))) ** 2)
    misfit_torch.backward()  # through JAX: the gradient arrives in layer.parameters()
    print("PyTorch: gradient of the misfit by the layer's parameters:", [p.grad.tolist() for p in layer.parameters()])
else:
    print("PyTorch is not installed; pip install 'diffphys[torch]'")
# deepinv: from diffphys.plugin.deepinv import Microscope; physics = Microscope("confocal_3d", geometry, z_step=40.0)
