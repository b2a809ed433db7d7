"""The bridge to PyTorch and the deepinv adapter: autograd's own checks, memory, refusals, solvers of others on our operator."""

from __future__ import annotations

import copy
import doctest
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffphys import confocal, shg
from diffphys.spec import from_vector

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'diffphys[torch]'")
bridge = importlib.import_module("diffphys.plugin.torch")

TINY = {"confocal_3d": (confocal.Geometry(shape=(3, 4, 5)), (3, 5, 6)), "shg": (shg.Geometry(shape=(5, 6)), (7, 6))}
SMALL = {"confocal_3d": confocal.Geometry(shape=(6, 12, 12)), "shg": shg.Geometry(shape=(16, 16))}  # as in the docstrings


@pytest.fixture(scope="module")
def optics():
    """One layer per modality, made once."""
    made = {name: bridge.Optics(name, geometry, specimen=specimen) for name, (geometry, specimen) in TINY.items()}
    return lambda modality: copy.deepcopy(made[modality.NAME])


@pytest.fixture
def in_the_box(optics, modality):
    """(theta, image) -> result through the box of the ranges, where every parameter is of order one; and a theta."""
    layer = optics(modality).double()

    def through(operation):
        def function(theta, image):
            middle, half = (theta.new_tensor(v) for v in (layer.settings.middle, layer.settings.half))
            return operation(layer.instrument, middle + half * torch.tanh(theta), image)

        return function

    return layer, through, torch.tensor([0.3, -0.4, 0.2], dtype=torch.float64, requires_grad=True)


def image_of(shape, dtype=torch.float64, seed=0):
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_gradients_in_image_and_spec(in_the_box):
    """PyTorch's own check, every entry, double precision; 1e-5 is that of its central differences."""
    layer, through, theta = in_the_box
    x = image_of((2, *layer.specimen)).requires_grad_()
    assert torch.autograd.gradcheck(through(bridge.apply), (theta, x), rtol=1e-5, atol=1e-7)
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("modality", [shg], ids=["shg"])
def test_gradients_of_the_adjoint_and_of_gradients(in_the_box):
    """The adjoint in every entry; second derivatives, for learned regularisers and implicit layers, in a random direction.

    With the spec fixed the image's gradient takes another path: both are the same.
    """
    layer, through, theta = in_the_box
    x, y = (image_of((2, *shape)).requires_grad_() for shape in (layer.specimen, layer.measurement))
    assert torch.autograd.gradcheck(through(bridge.adjoint), (theta, y), rtol=1e-5, atol=1e-7)
    assert torch.autograd.gradgradcheck(through(bridge.apply), (theta, x), rtol=1e-4, atol=1e-6, fast_mode=True)
    layer.theta.data[:] = theta.detach()
    fixed, free = (torch.autograd.grad((layer(x, s) ** 2).sum(), x)[0] for s in (layer.spec.detach(), layer.spec))
    torch.testing.assert_close(fixed, free, rtol=1e-10, atol=1e-12)


def test_one_spec_per_image_and_only_what_is_asked(optics):
    """Batched specs and a non-contiguous image against the modality's own `forward`; no gradient for what needs none."""
    layer = optics(shg)
    spec = torch.tensor([[0.3, 1.0, 0.01], [-0.5, -1.0, 0.02]], requires_grad=True)
    x = image_of((2, *layer.specimen[::-1]), torch.float32).transpose(1, 2)
    assert not x.is_contiguous()
    y = layer(x, spec)
    forward = jax.jit(lambda vector, v: shg.forward(from_vector(shg.Spec, shg.FIELDS, vector), v, geometry=TINY["shg"][0]))
    for i in range(2):
        expected = forward(jnp.asarray(spec[i].detach().numpy()), jnp.asarray(x[i].numpy()))
        np.testing.assert_allclose(y[i].detach().numpy(), expected, rtol=1e-4, atol=1e-6)  # two FFT grids
    assert not layer(x, spec.detach()).requires_grad
    y.sum().backward()
    assert spec.grad.shape == (2, 3) and spec.grad.abs().min() > 0 and x.grad is None
    (back,) = torch.autograd.grad(layer(x.requires_grad_(), spec.detach()).sum(), x)
    torch.testing.assert_close(back, layer.adjoint(torch.ones_like(y), spec.detach()), rtol=1e-4, atol=1e-6)


def test_memory_is_shared_and_guarded(optics):
    """No copy into JAX or out of it on a CPU; what was overwritten before the backward pass is noticed."""
    layer, x = optics(shg), image_of((8, 9), torch.float32)
    assert bridge._to_jax(x).unsafe_buffer_pointer() == x.data_ptr()
    x = image_of(layer.specimen, torch.float32)
    y = layer(x)
    x.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_what_is_refused_and_how(optics):
    layer = optics(shg)
    with pytest.raises(ValueError, match=r"got an image of torch.float16; expected .* float32 or float64"):
        layer(torch.zeros(layer.specimen, dtype=torch.float16))
    with pytest.raises(ValueError, match=r"the tensor is on meta, where this JAX has no device .* move it with .cpu\(\)"):
        layer(torch.zeros(layer.specimen, device="meta"))
    with pytest.raises(ValueError, match=r"x has shape \(3,\); expected \(7, 6\)"):
        layer(torch.zeros(3))
    with pytest.raises(ValueError, match=r"spec has shape \(2,\); expected \(3,\) or \(batch, 3\)"):
        layer(torch.zeros(layer.specimen), torch.zeros(2))


class Solver(torch.nn.Module):
    """A gradient step and a convolution: the operator once and its adjoint twice in one graph."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.optics = bridge.Optics("shg", SMALL["shg"], trainable=["phase_matching_error"])
        self.clean = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, y):
        x = self.optics.adjoint(y)
        x = x - self.optics.adjoint(self.optics(x) - y)
        return x + self.clean(x[:, None])[:, 0]


def test_a_module_trains_with_its_optics():
    """Convolution and phase mismatch together, from 0 towards the true 1 rad; its state travels as that of any module."""
    model = Solver()
    x = image_of((2, *model.optics.specimen), torch.float32) ** 8
    y = model.optics(x, torch.tensor([1.0, 0.0, 0.0]))
    optimizer = torch.optim.Adam(
        [{"params": [model.optics.theta], "lr": 0.1}, {"params": model.clean.parameters(), "lr": 0.01}]
    )
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = ((model(y) - x) ** 2).mean() / (x**2).mean() + 100 * ((model.optics(x) - y) ** 2).mean() / (y**2).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert abs(model.optics.values["phase_matching_error"] - 1.0) < 0.2
    fresh = Solver()
    fresh.load_state_dict(model.state_dict())
    assert fresh.optics.values == model.optics.values


def test_the_example_of_the_docstring_runs():
    tried = doctest.testmod(bridge)
    assert tried.attempted >= 8 and tried.failed == 0


@pytest.fixture(scope="module")
def microscopes(deepinv):
    from diffphys.plugin.deepinv import Microscope

    return {
        "confocal_3d": Microscope("confocal_3d", SMALL["confocal_3d"], z_step=40.0),
        "shg": Microscope("shg", SMALL["shg"], phase_matching_error=0.4),
    }


def test_deepinv_accepts_the_physics(microscopes, modality):
    """Its adjointness test to rounding, its power iteration against ours (2 % above by design)."""
    physics = microscopes[modality.NAME]
    start = torch.zeros(1, 1, *physics.specimen)
    torch.manual_seed(0)
    assert physics.adjointness_test(start, num_samples=2) < 1e-5
    spec = modality.Spec(**{name: jnp.float32(getattr(physics, name)) for name in physics.names})
    theirs = float(physics.compute_sqnorm(start, verbose=False, max_iter=100, tol=1e-5))
    assert theirs == pytest.approx(float(physics.instrument.norm(spec)) ** 2 / 1.02**2, rel=5e-3)


def test_deepinv_copies_and_keywords(microscopes):
    """A copy has its own spec; keywords set it, one value per image or one number; channels are checked."""
    physics = microscopes["shg"]
    copied, x = physics.clone(), image_of((2, 1, *physics.specimen), torch.float32)
    before, value = physics(x), torch.tensor([0.5, 1.0])
    assert before.shape == (2, *physics.measurement)
    moved = copied(x, phase_matching_error=value)
    torch.testing.assert_close(
        moved[1], bridge.apply(physics.instrument, torch.tensor([1.0, 0.0, 0.0]), x[1, 0]), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(copied.phase_matching_error, value) and torch.equal(physics(x), before)
    copied.update_parameters(phase_matching_error=0.25)
    assert float(copied.phase_matching_error) == 0.25
    assert torch.equal(physics.crop(x)[1, 0], torch.as_tensor(x[1, 0])[physics.instrument.at(shg.nominal()).window])
    with pytest.raises(ValueError, match=r"expected one channel, \(N, 1"):
        physics(x.repeat(1, 2, 1, 1))


def test_deepinv_solvers_run_on_it(microscopes, deepinv):
    """Points under photon noise: proximal gradient with TV and MLEM come nearer to them than the adjoint's image does."""
    optim = deepinv.optim
    torch.manual_seed(0)
    for name, physics in microscopes.items():
        x = torch.zeros(2, 1, *physics.specimen)
        x.view(2, -1)[:, ::37] = 200.0
        y = torch.poisson(physics(x).detach().clamp(min=0))
        bound = float(physics.compute_sqnorm(x[:1], verbose=False))

        def error(image, x=x):
            return float(((image - x) ** 2).sum() / (x**2).sum())

        first = error(physics.A_adjoint(y) / bound)
        poisson = optim.PoissonLikelihood(gain=1.0, bkg=1e-3, denormalize=False)
        start = {"custom_init": lambda y, physics: physics.A_adjoint(y).clamp(min=1e-3)}
        mlem = optim.MLEM(data_fidelity=poisson, prior=optim.ZeroPrior(), max_iter=30, **start)
        assert error(mlem(y, physics)) < 0.95 * first, name
        if name == "shg":  # deepinv's TV is two-dimensional
            prior = optim.prior.TVPrior(n_it_max=20)
            pgd = optim.PGD(data_fidelity=optim.L2(), prior=prior, stepsize=1 / bound, lambda_reg=1.0, max_iter=30)
            assert error(pgd(y, physics)) < 0.97 * first
            plugged = optim.PnP(deepinv.models.MedianFilter())
            pnp = optim.PGD(data_fidelity=optim.L2(), prior=plugged, stepsize=1 / bound, max_iter=3)
            assert torch.isfinite(pnp(y, physics)).all()


def test_the_deepinv_example_runs(microscopes):
    tried = doctest.testmod(importlib.import_module("diffphys.plugin.deepinv"))
    assert tried.attempted >= 7 and tried.failed == 0
