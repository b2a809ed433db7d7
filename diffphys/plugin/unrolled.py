"""A solver to start from: K unrolled proximal-gradient steps, each closed by a small network; trained with the optics.

    x <- D_k( max(0, x - t_k / L A^T (A x - y)) ),   k = 1 .. K,   0 < t_k < 2

A is the operator at the optics' spec, L a bound of |A|^2, D_k a residual convolutional denoiser. Gregor & LeCun (ICML 2010);
Adler & Oktem (TMI 37:1322, 2018). Everything is divided by the mean of the measurement, so brightness does not matter.

The error of the image alone does not determine the optics: few steps from a flat start end too smooth, and a wrong spec that
sharpens the residual lowers it (z_step ran to 114 nm, the end of its range, for a true 60). `objective` therefore adds the
misfit of the training specimens, which knows the spec.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from diffphys.networks.layers import modules
from diffphys.networks.plain import Stack
from diffphys.plugin.layer import Optics
from diffphys.plugin.physics import Physics
from diffphys.reconstruct.held_out import FLOOR, deviance
from diffphys.types import Array


class Unrolled(nnx.Module):
    """Measurements (batch, *measurement) -> images (batch, *specimen), in the units of the measurement.

    Args:
        optics: the instrument; its spec is trained with the networks.
        steps: K.
        width: channels of each network.
        rngs: random keys.
    """

    def __init__(self, optics: Optics, *, steps: int = 4, width: int = 8, rngs: nnx.Rngs) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}; expected at least 1")
        self.optics = optics
        self.rates = nnx.Param(jnp.zeros(steps))
        common: dict[str, Any] = {"inputs": 1, "outputs": 1, "width": width, "dilations": (1, 2, 1), "folded": False}
        self.denoisers = modules(Stack(**common, ndim=len(optics.specimen), rngs=rngs) for _ in range(steps))

    def __call__(self, y: Array, *, spec: Any = None) -> Array:
        """Restored images; `spec` instead of the trained one: numbers, or one per image."""
        return self.solve(self.optics.at(spec), y)

    def solve(self, physics: Physics, y: Array) -> Array:
        """The same at a given operator."""
        each = (-1, *(1,) * len(physics.specimen))  # one number per image
        mean = jnp.maximum(jnp.mean(y, range(1, y.ndim), keepdims=True), 1e-12)
        data, step = y / mean, jnp.reshape(1.0 / jax.lax.stop_gradient(physics.lipschitz()), each)
        x = jnp.ones((y.shape[0], *physics.specimen), y.dtype)
        for rate, denoise in zip(2.0 * nnx.sigmoid(self.rates[...]), self.denoisers, strict=True):
            x = jnp.maximum(x - rate * step * physics.gradient(x, data), 0.0)
            x = denoise(x[..., None])[..., 0]
        return x * jnp.reshape(mean, each)


def objective(model: Unrolled, x: Array, y: Array) -> Array:
    """Relative squared error of the images, plus the Poisson misfit of the specimens per datum (about 1/2 nat at the truth).

    Args:
        model: the solver.
        x: specimens of the training pairs (batch, *specimen), in photons per voxel.
        y: their measurements (batch, *measurement), photons without background.
    """
    physics = model.optics.at()
    error = jnp.mean((model.solve(physics, y) - x) ** 2) / jnp.mean(x**2)
    return error + deviance(y, jnp.maximum(physics.apply(x), FLOOR))
