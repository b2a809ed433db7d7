"""Networks: their layers against XLA's own operations, shapes, tiles, and the weights' file."""

from __future__ import annotations

import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.ndimage import correlate
from scipy.stats import laplace as laplace_distribution

from diffphys.networks import layers, tiled, weights
from diffphys.networks.blocks import Windowed, _unwindows, _windows
from diffphys.networks.registry import CHANNELS, NETWORKS, find
from diffphys.networks.roles import SPREAD, denoised
from diffphys.reconstruct import learned
from diffphys.train import losses


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("dilation", [1, 3])
def test_convolution_in_three_dimensions_is_xlas(dilation):
    x, w = random(2, 7, 9, 11, 3), random(3, 3, 3, 3, 4, seed=1)
    expected = lax.conv_general_dilated(
        x, w, (1, 1, 1), "SAME", rhs_dilation=(dilation,) * 3, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    found = layers.convolve(x, w, dilation=dilation)
    np.testing.assert_allclose(found, expected, atol=4e-6 * float(jnp.abs(expected).max()))


def test_winograds_convolution_is_the_plain_one_and_so_are_its_derivatives(monkeypatch, float64):
    x, w, dx, dw = (jnp.asarray(random(*s, seed=n), jnp.float64) for n, s in enumerate([(2, 5, 8, 7, 3), (3, 3, 3, 3, 4)] * 2))
    plain, slope = jax.jvp(layers.convolve, (x, w), (dx, dw))
    weight = jnp.asarray(random(*plain.shape, seed=4), jnp.float64)
    pull = jax.grad(lambda x, w: jnp.sum(weight * layers.convolve(x, w)), (0, 1))(x, w)
    monkeypatch.setattr(layers, "MANY", 0)
    found, forward = jax.jvp(layers.convolve, (x, w), (dx, dw))
    np.testing.assert_allclose(found, plain, atol=1e-13 * float(jnp.abs(plain).max()))
    np.testing.assert_allclose(forward, slope, rtol=1e-12)
    for a, b in zip(jax.grad(lambda x, w: jnp.sum(weight * layers.convolve(x, w)), (0, 1))(x, w), pull, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    single = layers.convolve(x.astype(jnp.float32), w.astype(jnp.float32))
    assert single.dtype == jnp.float32 and not np.array_equal(single, plain.astype(jnp.float32))  # the other way was taken
    np.testing.assert_allclose(single, plain, atol=3e-6 * float(jnp.abs(plain).max()))


def test_depthwise_convolution_is_scipys_and_its_rule_the_gradient():
    x, w = random(2, 6, 7, 3), random(3, 3, 3, seed=1)
    for n in range(2):
        for c in range(3):
            expected = correlate(np.asarray(x[n, ..., c]), np.asarray(w[..., c]), mode="constant")
            np.testing.assert_allclose(layers._each(x, w)[n, ..., c], expected, atol=1e-5)

    def plain(x, w):
        rhs = w.reshape(3, 3, 1, 3)
        return lax.conv_general_dilated(
            x, rhs, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )

    weight = random(2, 6, 7, 3, seed=2)
    ours = jax.grad(lambda x, w: jnp.sum(weight * layers._each(x, w)), argnums=(0, 1))(x, w)
    theirs = jax.grad(lambda x, w: jnp.sum(weight * plain(x, w)), argnums=(0, 1))(x, w)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(("shape", "steps"), [((1, 4, 6, 5), (2, 3)), ((2, 4, 6, 8, 3), (1, 2, 2))])
def test_shuffles_are_inverse_and_keep_neighbours_together(shape, steps):
    x = random(*shape)
    folded = layers.unshuffle(x, steps)
    np.testing.assert_array_equal(layers.shuffle(folded, steps), x)
    assert set(np.asarray(folded[0][(0,) * len(steps)]).ravel()) == set(
        np.asarray(x[0][tuple(slice(0, s) for s in steps)]).ravel()
    )


def test_windows_are_cut_and_put_back():
    x = random(2, 4, 6, 8, 3)
    cut = _windows(x, (2, 3, 4))
    assert cut.shape == (2, 8, 24, 3)
    np.testing.assert_array_equal(_unwindows(cut, (2, 3, 4), (4, 6, 8)), x)


def test_attention_does_not_leave_its_window():
    from flax import nnx

    block = Windowed(16, ndim=2, window=(4, 4), shifted=False, rngs=nnx.Rngs(0))
    x = random(1, 8, 8, 16)
    change = jnp.abs(block(x.at[0, 0, 0].add(1.0)) - block(x)).sum(-1)[0]
    assert float(change[:4, :4].max()) > 0
    assert float(change[4:].max()) == float(change[:, 4:].max()) == 0


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_takes_odd_shapes_and_starts_at_its_first_input(name):
    network = find(name)
    inputs, outputs = CHANNELS[network.role]
    x = random(1, *((5, 19, 22) if network.ndim == 3 else (19, 22)), inputs)
    own, model = weights.initial(network), weights.model_of(network)
    assert jax.eval_shape(lambda w: model(w)(x), own).shape == (*x.shape[:-1], outputs)
    if name not in ("resunet_2d", "restormer_2d", "care_3d", "swinir_3d", "ircnn_0_3d", "score_2d"):
        return  # one of each kind is run
    y = jax.jit(lambda w: model(w)(x))(own)
    start = 0.0 if network.role in ("score", "condition") else x[..., 0]
    np.testing.assert_allclose(y[..., 0], jnp.broadcast_to(start, y[..., 0].shape), atol=1e-6)


def test_an_untrained_score_network_is_the_posterior_mean_of_white_noise():
    """x ~ N(0, SPREAD^2) seen with noise s has the mean SPREAD^2 / (SPREAD^2 + s^2) y: the skip connection."""
    noisy, sigma = random(2, 8, 8), jnp.asarray([0.05, 1.5])
    found = denoised(lambda inputs: 0.0 * inputs, noisy, sigma)
    np.testing.assert_allclose(found, noisy * (SPREAD**2 / (SPREAD**2 + sigma**2))[:, None, None], rtol=1e-5)


def test_laplace_loss_is_the_distributions():
    x, raw = random(1, 16, 16), random(1, 16, 16, 2, seed=1)
    batch = {"inputs": raw, "x": x, "unit": jnp.ones(1)}
    scale = np.exp(np.asarray(losses.bounded(raw[..., 1]), np.float64))
    expected = -laplace_distribution.logpdf(np.asarray(x), np.asarray(raw[..., 0]), scale).mean() - np.log(2)
    found = losses.laplace(lambda inputs: inputs, batch, jax.random.key(0)) - losses.fidelity(raw[..., 0], batch)
    np.testing.assert_allclose(found / 0.05, expected, rtol=2e-4)


def test_a_hidden_voxel_does_not_see_itself():
    """No measured value enters the prediction of the voxel it belongs to, and only hidden voxels count."""
    measured, key = random(1, 12, 12), jax.random.key(3)
    inputs = jnp.stack([measured, measured, 0.1 * jnp.ones_like(measured)], axis=-1)
    seen = []

    def model(x):
        seen.append(x[..., 0])
        return x

    losses.blind_spot(model, {"inputs": inputs}, key)
    hidden = jax.random.uniform(jax.random.split(key)[0], measured.shape) < losses.HIDDEN
    np.testing.assert_array_equal(seen[0] == measured, ~hidden)


@pytest.mark.parametrize("shape", [(200, 330), (30, 70, 60)])
def test_tiles_give_what_the_whole_image_gives(monkeypatch, shape):
    """For a network that looks two voxels along z and four along the others around itself."""
    monkeypatch.setitem(tiled.LARGEST, len(shape), (64, 96) if len(shape) == 2 else (20, 40, 40))
    monkeypatch.setitem(tiled.OVERLAP, len(shape), (24, 24) if len(shape) == 2 else (8, 12, 12))
    weight = random(*(5,) * len(shape), 1, 1, seed=1) if len(shape) == 2 else random(3, 3, 3, 1, 1, seed=1)
    x = np.asarray(random(*shape, 1))

    def call(part):
        return layers.convolve(layers.convolve(jnp.asarray(part), weight), weight)

    for image, found in zip([x, -x], tiled.apply(call, [x, -x], like=shape), strict=True):
        whole = np.asarray(call(image[None])[0])
        assert np.abs(found - whole).max() < 2e-5 * np.abs(whole).max()


@pytest.mark.parametrize(("name", "bound"), [("unet_3d", 1e-5), ("care_3d", 1e-5), ("swinir_3d", 1e-2)])
def test_a_shipped_network_sees_in_tiles_what_it_sees_in_the_whole_stack(monkeypatch, name, bound):
    """To rounding where its field of view ends inside the rim; on noise, which is the hardest."""
    monkeypatch.setitem(tiled.LARGEST, 3, (16, 72, 128))
    x = np.asarray(jnp.abs(random(14, 150, 44, 3)) * jnp.asarray([1.0, 1.0, 0.1]))
    used = weights.load(name)[0]
    whole = np.asarray(weights.program(name)(used, x[None])[0])
    found = learned.through(name, x)
    assert len(tiled._cover(150, 72, 40, 8)) > 2
    assert np.abs(found - whole).max() < bound * np.abs(whole).max()


@pytest.mark.parametrize("length", range(129, 700, 7))
def test_spans_cover_an_axis_on_the_lattice(length):
    spans = tiled._cover(length, 128, 40, 8)
    assert spans[0].start == 0 and spans[-1].stop == length and len({s.stop - s.start for s in spans}) == 1
    assert spans[0].stop <= 128 and all(s.start % 8 == 0 for s in spans)
    assert all(a.stop - b.start >= 40 for a, b in pairwise(spans))


def test_weights_travel_in_half_precision_and_tampering_is_refused(tmp_path):
    network = find("ircnn_0_3d")
    path = weights.save(network, weights.initial(network, seed=4), {"seed": 4}, folder=tmp_path)
    loaded, card = weights.load("ircnn_0_3d", folder=tmp_path)
    own, kept = weights.flat(weights.initial(network, seed=4)), weights.flat(loaded)
    assert card["seed"] == 4 and set(own) == set(kept)
    for name in own:
        np.testing.assert_allclose(kept[name], own[name], rtol=1e-3, atol=1e-6)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="SHA-256"):
        weights.load("ircnn_0_3d", folder=tmp_path)


def test_weights_of_another_shape_or_absent_are_refused(tmp_path):
    other = find("dncnn_2d")
    path = weights.save(other, weights.initial(other), {}, folder=tmp_path)
    path.rename(tmp_path / "ircnn_0_3d.safetensors")
    path.with_suffix(".json").rename(tmp_path / "ircnn_0_3d.json")
    with pytest.raises(ValueError, match="shape"):
        weights.load("ircnn_0_3d", folder=tmp_path)
    with pytest.raises(ValueError, match="diffphys train"):
        weights.load("dncnn_2d", folder=tmp_path)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    network = find("ircnn_0_3d")
    spoiled = jax.tree.map(lambda v: jnp.full_like(v, jnp.nan), weights.initial(network))
    weights.save(network, spoiled, {}, folder=tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        weights.load("ircnn_0_3d", folder=tmp_path)


@pytest.mark.parametrize("path", sorted(weights.FOLDER.glob("*.safetensors")), ids=lambda p: p.stem)
def test_shipped_weights_are_small_whole_and_have_a_card(path):
    loaded, card = weights.load(path.stem)
    assert path.stat().st_size <= 8 * 2**20 and loaded
    for name in ("recipe", "stream_version", "git_commit", "device", "seconds", "validation", "command"):
        assert card[name] is not None
    text = json.dumps(card)
    assert "/home" not in text and "/tmp" not in text and "/root" not in text


def test_all_weights_together_are_small():
    assert sum(p.stat().st_size for p in weights.FOLDER.glob("*.safetensors")) <= 60 * 2**20
