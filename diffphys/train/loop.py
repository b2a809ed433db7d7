"""The loop: init and step on a NamedTuple, resumable checkpoints, a guard that rolls back when a value is not finite."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffphys.networks.registry import Network
from diffphys.networks.weights import initial, model_of
from diffphys.train import losses
from diffphys.train.batches import Batches, whole
from diffphys.train.recipes import Recipe
from diffphys.types import Array

CHECK = 25  # steps between looks at the loss
JUDGED = 12  # examples held out that are looked at
ATTEMPTS = 5  # rollbacks before giving up
Progress = Callable[[float, str], None]
Batch = Mapping[str, Any]


class State(NamedTuple):
    """Training state; `average` is what is validated and shipped, `total` the steps of the whole run, `slower` multiplies the
    learning rate. The length is a number of the state, not of the program: one compilation serves any."""

    weights: Any
    average: Any
    optimiser: Any
    step: Array
    total: Array
    slower: Array


Step = Callable[[State, Batch], tuple[State, Array]]


class History(NamedTuple):
    """Mean loss of every CHECK steps, (step, PSNR in dB) of the validations, wall time between them in seconds."""

    loss: list[float]
    psnr: list[tuple[int, float]]
    seconds: list[float]
    baseline: float


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW's direction from clipped gradients; `rate` says how far."""
    return optax.chain(optax.clip_by_global_norm(recipe.clip), optax.scale_by_adam(b2=0.99), optax.add_decayed_weights(1e-4))


def rate(recipe: Recipe, step: Array, total: Array) -> Array:
    """Learning rate of a step: a short linear warm-up from a fiftieth, then a cosine to a hundredth at the end."""
    warm = jnp.minimum(200.0, total / 5 + 1)
    along = jnp.clip((step - warm) / jnp.maximum(total - warm, 1.0), 0.0, 1.0)
    cosine = 0.01 + 0.99 * 0.5 * (1 + jnp.cos(jnp.pi * along))
    return recipe.rate * jnp.minimum(0.02 + 0.98 * step / warm, cosine)


def init(network: Network, recipe: Recipe, *, seed: int = 0, weights: Any = None) -> State:
    """Fresh state, from given weights or the network's own start."""
    if weights is None:
        weights = initial(network, seed=seed)
    weights = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), weights)
    start = optimiser(recipe).init(weights)
    return State(weights, weights, start, jnp.zeros((), jnp.int32), jnp.asarray(recipe.steps, jnp.int32), jnp.ones(()))


def make_step(network: Network, recipe: Recipe, *, seed: int = 0) -> Step:
    """(state, batch) -> (state, loss), jitted."""
    loss, model, update, start = losses.of(network), model_of(network), optimiser(recipe), jax.random.key(seed)
    precision = jnp.dtype(recipe.precision)

    def step(state: State, batch: Batch) -> tuple[State, Array]:
        key = jax.random.fold_in(start, state.step)

        def value(weights: Any) -> Array:
            return loss(model(jax.tree.map(lambda w: w.astype(precision), weights)), batch, key)

        now, gradient = jax.value_and_grad(value)(state.weights)
        change, kept = update.update(gradient, state.optimiser, state.weights)
        far = -state.slower * rate(recipe, state.step, state.total)
        weights = optax.apply_updates(state.weights, jax.tree.map(lambda c: far * c, change))
        decay = jnp.minimum(recipe.decay, (1.0 + state.step) / (10.0 + state.step))
        average = jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, state.average, weights)
        return state._replace(weights=weights, average=average, optimiser=kept, step=state.step + 1), now

    return jax.jit(step)


class Checkpoints:
    """The last two states of a run, written whole or not at all (Orbax)."""

    def __init__(self, folder: Path) -> None:
        import orbax.checkpoint as ocp

        self.arguments = ocp.args
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
        self.manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, state: State, history: History) -> None:
        told = {"loss": history.loss, "psnr": np.reshape(history.psnr, (-1, 2)), "seconds": history.seconds}
        content = {"state": state._asdict(), **{name: np.asarray(values) for name, values in told.items()}}
        self.manager.save(int(state.step), args=self.arguments.StandardSave(content), force=True)

    def load(self, state: State, baseline: float) -> tuple[State, History]:
        """The newest state of the folder, or the given one with an empty history."""
        latest = self.manager.latest_step()
        if latest is None:
            return state, History([], [], [], baseline)
        kept = self.manager.restore(latest, args=self.arguments.StandardRestore())
        structure, leaves = jax.tree.structure(state._asdict()), jax.tree.leaves(kept["state"])
        restored = State(**jax.tree.unflatten(structure, [jnp.asarray(v) for v in leaves]))._replace(total=state.total)
        checks = [(int(s), float(p)) for s, p in kept["psnr"]]
        return restored, History([float(v) for v in kept["loss"]], checks, [float(v) for v in kept["seconds"]], baseline)


def train(
    network: Network, recipe: Recipe, images: Mapping[str, np.ndarray], *, folder: Path, seed: int = 0,
    weights: Any = None, progress: Progress | None = None,
) -> tuple[State, History]:  # fmt: skip
    """Train to the recipe's end, from the newest checkpoint of `folder` if there is one.

    Args:
        network: what to train.
        recipe: how.
        images: as `Examples.load` gives; the last `recipe.held_out` validate.
        folder: of the checkpoints.
        seed: of weights, crops and noise.
        weights: start from these instead of the network's own.
        progress: called with (fraction done, text).

    Raises:
        FloatingPointError: the loss was not finite after ATTEMPTS rollbacks, each with half the learning rate.
        KeyboardInterrupt: stopped; the newest checkpoint holds what was done.
    """
    seen = {name: values[: -recipe.held_out] for name, values in images.items()}
    held = {name: values[-recipe.held_out :] for name, values in images.items()}
    batches, step = Batches(seen, patch=recipe.patch, size=recipe.batch, seed=seed), make_step(network, recipe, seed=seed)
    checkpoints, judge = Checkpoints(folder), make_judge(network, held)
    state, history = checkpoints.load(init(network, recipe, seed=seed, weights=weights), baseline(held))
    good, failures, began = state, 0, time.perf_counter()
    while int(good.step) < recipe.steps:
        values = []
        for number in range(int(good.step), min(int(good.step) + CHECK, recipe.steps)):
            state, value = step(state, batches(number + 1_000_003 * failures))
            values.append(value)
        mean = float(np.mean(jax.device_get(values)))
        if not np.isfinite(mean):
            failures += 1
            if failures > ATTEMPTS:
                raise FloatingPointError(f"{network.name}: the loss is not finite after {ATTEMPTS} rollbacks; lower the rate")
            state = good = good._replace(slower=good.slower * 0.5)
            continue
        good = state
        history.loss.append(mean)
        done = int(good.step)
        if done % recipe.keep == 0 or done >= recipe.steps:
            history.psnr.append((done, judge(good.average)))
            history.seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            checkpoints.save(good, history)
        if progress is not None:
            last = f", {history.psnr[-1][1]:.2f} dB" if history.psnr else ""
            progress(done / recipe.steps, f"step {done}, loss {mean:.4f}{last}")
    return good, history


def baseline(held: Mapping[str, np.ndarray]) -> float:
    """Mean PSNR of the Wiener images of the examples that are judged, in dB."""
    triples = zip(*(held[name][:JUDGED] for name in ("wiener", "x", "unit")), strict=True)
    return float(np.mean([_psnr(np.maximum(w, 0), x, u) for w, x, u in triples]))


def make_judge(network: Network, held: Mapping[str, np.ndarray]) -> Callable[[Any], float]:
    """weights -> mean PSNR on whole examples held out; of denoisers at a noise of 0.1."""
    model = model_of(network)
    noise = network.role in ("denoise", "score")

    @jax.jit
    def found(weights: Any, batch: Batch) -> Array:
        return _estimate(network, model(weights), batch)

    def judge(weights: Any) -> float:
        values = []
        for index in range(min(JUDGED, len(held["x"]))):
            batch = whole(held, index)
            if network.role == "blind_spot":
                batch["x"] = batch["x"] * 0 + batch["inputs"][..., 1]
            unit = np.ones(()) if noise else batch["unit"][0]
            values.append(_psnr(np.asarray(found(weights, batch))[0], batch["x"][0], unit))
        return float(np.mean(values))

    return judge


def _estimate(network: Network, model: Any, batch: Batch) -> Array:
    from diffphys.networks.roles import cleaned, denoised

    x, key = batch["x"], jax.random.key(0)
    if network.role in ("denoise", "score", "condition"):
        low, high = losses.noise_range(network)
        level = jnp.clip(0.1, low, high) if network.role != "condition" else jnp.asarray(high)
        noise, sigma = level * jax.random.normal(key, x.shape), jnp.full((len(x),), level)
        if network.role == "denoise":
            return cleaned(model, x + noise, sigma)
        if network.role == "score":
            return denoised(model, x + noise, sigma)
        wiener = batch["inputs"][..., 0]
        return wiener + denoised(model, x - wiener + noise, sigma, condition=batch["inputs"])
    inputs = batch["inputs"][..., 1:] if network.role == "blind_spot" else batch["inputs"]
    return model(inputs)[..., 0]


def _psnr(found: np.ndarray, true: np.ndarray, unit: np.ndarray) -> float:
    error = (np.asarray(found, np.float64) - np.asarray(true, np.float64)) * float(unit)
    return float(-10 * np.log10(np.mean(error**2)))
