"""Training: the stream's promises, batches, and a loop that learns, resumes exactly and survives a bad value."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffphys.benchmark import tiers
from diffphys.cli import main
from diffphys.networks import weights
from diffphys.networks.hourglass import Hourglass
from diffphys.networks.registry import Network, find
from diffphys.train import batches, loop, losses, recipes, scenes, stream
from diffphys.types import resolve


@pytest.mark.parametrize("family", sorted(scenes.FAMILIES))
@pytest.mark.parametrize("shape", [(64, 64), (12, 32, 32)])
def test_specimens_are_reproducible_positive_and_structured(family, shape):
    pitch = (0.2, 0.08, 0.08)[-len(shape) :]
    x, again = (scenes.scene(family, shape=shape, pitch_um=pitch, seed=5, haze=0.1) for _ in range(2))
    np.testing.assert_array_equal(x, again)
    assert x.shape == shape and x.min() >= 0 and x.max() == 1 and x.std() > 0.02


@pytest.mark.parametrize("modality", tiers.MODALITIES)
def test_the_stream_never_touches_reserved_families_or_keys(modality):
    reserved = set(tiers.families(modality, "dev") + tiers.families(modality, "hidden")) - set(
        tiers.families(modality, "public")
    )
    assert reserved and not reserved & set(scenes.FAMILIES)
    specs = [stream._specs(modality, i) for i in range(200)]
    for field in resolve(modality).FIELDS:
        true = np.array([t[field.name] for t, _ in specs])
        error = np.array([a[field.name] for _, a in specs]) - true
        assert field.low <= true.min() < field.low + 0.05 * (field.high - field.low) and true.max() <= field.high
        assert 0.7 < error.std() / stream.CALIBRATION_ERROR[modality][field.name] < 1.3


def one_threaded(folder, name):
    """The example of a fresh process whose sums have one order."""
    code = (
        "import sys; from diffphys.train.stream import Examples, _keep; _keep(Examples('shg', count=6, folder=sys.argv[1]), 5)"
    )
    examples = stream.Examples("shg", count=6, folder=folder / name)
    examples.folder.mkdir(parents=True)
    flags = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(folder / name)], check=True, env=os.environ | flags)
    return examples.read(5)


def test_an_example_is_what_a_user_would_hand_over(tmp_path):
    """The same for everyone; its Wiener image looks like the specimen, its noise map is the noise of its measured image."""
    made, again = one_threaded(tmp_path, "a"), one_threaded(tmp_path, "b")
    for a, b in zip(made, again, strict=True):
        np.testing.assert_array_equal(a, b)
    x, wiener, measured, noise = (np.asarray(v, np.float64) for v in made[:4])
    assert np.corrcoef(x.ravel(), wiener.ravel())[0, 1] > 0.6
    assert float(made.unit) * x.max() == pytest.approx(1.0, abs=2e-3)
    rough = measured - (np.roll(measured, 1, 1) + np.roll(measured, -1, 1)) / 2
    assert 0.8 < np.median(np.abs(rough)) / 0.6745 / (np.sqrt(1.5) * np.median(noise)) < 1.4


def pairs(count=12, size=32):
    """Images with noise in place of blur: enough to see a network learn."""
    rng = np.random.default_rng(0)
    x = np.stack([scenes.scene("bodies", shape=(size, size), pitch_um=(0.1, 0.1), seed=i, haze=0.1) for i in range(count)])
    noisy = x + 0.15 * rng.normal(size=x.shape)
    images = {"x": x, "wiener": noisy, "measured": noisy, "noise": np.full_like(x, 0.15), "unit": np.ones(count)}
    return {name: values.astype(np.float16) for name, values in images.items()}


TINY = Network("tiny", Hourglass, "restore", 2, {"block": "residual", "widths": (16, 24), "depths": (1, 1)})
RECIPE = recipes.Recipe(steps=50, batch=4, patch=(24, 24), rate=3e-3, examples=12, held_out=2)


def test_batches_are_reproducible_and_aligned():
    made = batches.Batches(pairs(), patch=(16, 16), size=3, seed=1)
    first, again, other = made(4), made(4), made(5)
    np.testing.assert_array_equal(first["x"], again["x"])
    assert np.abs(first["x"] - other["x"]).max() > 0
    assert first["inputs"].shape == (3, 16, 16, 3)
    assert np.std(first["inputs"][..., 0] - first["x"]) < 0.2  # the same crop, turned the same way


def test_the_loop_learns_and_going_on_is_going_through(tmp_path):
    """50 steps at once, and 25 steps, a stop, and the rest from the checkpoint: the same weights."""
    images = pairs()
    through, history = loop.train(TINY, RECIPE, images, folder=tmp_path / "a")
    assert history.psnr[-1][1] > history.baseline + 1.5

    def stop(fraction, text):
        if fraction >= 0.5:
            raise KeyboardInterrupt

    often = replace(RECIPE, keep=25)
    with pytest.raises(KeyboardInterrupt):
        loop.train(TINY, often, images, folder=tmp_path / "b", progress=stop)
    resumed, told = loop.train(TINY, often, images, folder=tmp_path / "b")
    assert len(told.loss) == 2 and int(resumed.step) == 50
    for a, b in zip(jax.tree.leaves(through.weights), jax.tree.leaves(resumed.weights), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_rate_warms_up_and_falls_to_a_hundredth_whatever_the_length():
    """One program: the number of steps is an argument."""
    schedule = jax.jit(lambda step, total: loop.rate(RECIPE, step, total) / RECIPE.rate)
    for total, warm in ((50, 11), (5000, 200)):
        found = np.array([schedule(jnp.asarray(step), jnp.asarray(total)) for step in (0, warm, (warm + total) // 2, total)])
        np.testing.assert_allclose(found, [0.02, 1.0, 0.505, 0.01], rtol=0.05)
    assert schedule._cache_size() == 1


def test_half_precision_stays_inside_the_network():
    """What is added to the input keeps its precision: with bfloat16 weights only the correction is rounded."""
    model, given = weights.model_of(TINY), weights.initial(TINY, seed=1)
    given = jax.tree.map(lambda w: w + 0.01 * jax.random.normal(jax.random.key(0), w.shape), given)
    inputs = jax.random.normal(jax.random.key(1), (1, 24, 24, 3))
    full = model(given)(inputs)
    half = model(jax.tree.map(lambda w: w.astype(jnp.bfloat16), given))(inputs)
    assert half.dtype == inputs.dtype
    correction = full[..., 0] - inputs[..., 0]
    assert 0 < float(jnp.abs(half - full).max()) < 0.05 * float(jnp.abs(correction).max())


def test_a_value_that_is_not_finite_rolls_back_and_slows_down(tmp_path, monkeypatch):
    calls, own = [], batches.Batches.__call__

    def spoiled(self, step):
        calls.append(step)
        batch = own(self, step)
        return batch | {"x": batch["x"] * np.nan} if len(calls) == 30 else batch

    monkeypatch.setattr(loop.Batches, "__call__", spoiled)
    state, history = loop.train(TINY, RECIPE, pairs(), folder=tmp_path)
    assert float(state.slower) == 0.5 and np.isfinite(history.loss).all() and int(state.step) == 50
    assert len(calls) == 75  # 25 good, 25 thrown away, 25 again


def test_it_gives_up_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(
        loop.Batches, "__call__", lambda self, step: {n: np.full(s, np.nan, np.float32) for n, s in SHAPES.items()}
    )
    with pytest.raises(FloatingPointError, match="not finite after 5 rollbacks"):
        loop.train(TINY, RECIPE, pairs(), folder=tmp_path)


SHAPES = {"x": (4, 24, 24), "inputs": (4, 24, 24, 3), "unit": (4,)}


@pytest.mark.parametrize("role", ["laplace", "denoise", "score", "condition", "blind_spot"])
def test_every_role_learns(role):
    """Its loss, on batches and noise that stay the same, falls."""
    network = Network("tiny", TINY.kind, role, 2, TINY.size | ({"residual": False} if role in ("score", "condition") else {}))
    step, loss, model = loop.make_step(network, RECIPE), losses.of(network), weights.model_of(network)
    made = batches.Batches(pairs(), patch=RECIPE.patch, size=RECIPE.batch, seed=0)

    @jax.jit
    def judged(given):
        return jnp.mean(jnp.stack([loss(model(given), made(k), jax.random.key(k)) for k in range(100, 104)]))

    state = loop.init(network, RECIPE)
    before = float(judged(state.weights))
    for number in range(50):
        state, _ = step(state, made(number))
    assert float(judged(state.weights)) < before - 0.07 * abs(before)


def test_recipes_fit_their_networks():
    for name in ("unet_2d", "restormer_3d"):
        network = find(name)
        for size in recipes.NAMES:
            how = recipes.recipe(network, size)
            assert len(how.patch) == network.ndim and how.held_out < how.examples and min(how.patch) >= 11
    with pytest.raises(ValueError, match="small"):
        recipes.recipe(find("unet_2d"), "tiny")
    assert jnp.dtype(recipes.recipe(find("unet_2d"), "full").precision) == jnp.bfloat16


def test_the_command_trains_ships_and_goes_on(tmp_path, monkeypatch, capsys):
    """`diffphys train` from the stream to weights that load, with card and figure; a second run finds its work done."""
    monkeypatch.setitem(recipes._SMALL, 2, recipes.Recipe(4, 2, (32, 32), examples=4, held_out=2))
    stated = ["train", "dncnn_2d", "--runs", tmp_path / "runs", "-o", tmp_path / "weights", "--examples", tmp_path / "examples"]
    assert main([str(s) for s in stated]) == 0
    loaded, card = weights.load("dncnn_2d", folder=tmp_path / "weights")
    assert loaded and card["recipe"]["name"] == "small" and card["stream_version"] == stream.VERSION
    assert (tmp_path / "runs" / "dncnn_2d" / "loss.png").stat().st_size > 10_000
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "examples").rglob("*.npz")}
    assert len(made) == 4
    assert main([str(s) for s in stated]) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "examples").rglob("*.npz")} == made
    again, _ = weights.load("dncnn_2d", folder=tmp_path / "weights")
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    capsys.readouterr()
    for wrong, line in (
        (["train", "resnet_2d"], "expected one of"),
        (["train", "unet_2d", "--recipe", "tiny"], "recipe is 'tiny'"),
    ):
        assert main(wrong) == 2
        assert line in capsys.readouterr().err
