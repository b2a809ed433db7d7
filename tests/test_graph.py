"""Graphs of primitives: equal to the modalities' forward models, transformable, checked when composed, printed, drawn."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from diffphys import confocal, shg
from diffphys.noise import Detector
from diffphys.primitives.graph import LETTERS, PRIMITIVES, Graph, compose, node, of
from diffphys.primitives.transform import square_law

CASES = {
    "shg": (shg, shg.Geometry(shape=(14, 12)), "M -> R -> D"),
    "confocal": (confocal, confocal.Geometry(shape=(4, 10, 9), attenuation_per_um=0.2), "C(PSF_3D) -> D"),
    "confocal, two anchors": (
        confocal,
        confocal.Geometry(shape=(4, 10, 9), attenuation_per_um=0.2, depth_anchors=2),
        "M(hats) -> C(PSF_3D) -> Σ(anchors) -> D",
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    modality, geometry, chain = CASES[request.param]
    specimen = tuple(n + 5 for n in geometry.shape)
    x = jnp.asarray(np.random.default_rng(4).random(specimen), jnp.float32)
    specs = jax.tree.map(lambda v: jnp.stack([v, v + 0.01]), modality.nominal())
    return modality, geometry, chain, specs, x


def test_a_modality_is_its_graph(case):
    """Composed graph = forward to 1e-6: eagerly, under jit and vmap over specs, and in the gradient by the spec."""
    modality, geometry, chain, specs, x = case
    spec = jax.tree.map(lambda v: v[1], specs)
    graph = jax.jit(partial(of, modality, geometry=geometry, specimen=x.shape))(spec)
    assert graph.chain == chain

    def composed(s, v):
        return of(modality, s, geometry=geometry, specimen=v.shape)(v)

    forward = partial(modality.forward, geometry=geometry)
    expected = np.asarray(jax.jit(forward)(spec, x))
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    close(graph(x), expected)
    close(jax.jit(composed)(spec, x), expected)
    many = jax.jit(jax.vmap(composed, (0, None)))(specs, x)
    close(many, np.asarray(jax.jit(jax.vmap(forward, (0, None)))(specs, x)))
    assert np.abs(many[0] - many[1]).max() > 1e-4 * expected.max()  # the specs differ

    def loss(fn, s, v):
        return jnp.sum(fn(s, v) ** 2) / expected.size

    ours, theirs = (jax.jit(jax.grad(partial(loss, fn), (0, 1)))(spec, x) for fn in (composed, forward))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6 * np.abs(b).max())  # sums in another order


def test_default_specimen_is_the_field_and_names_work():
    geometry = confocal.Geometry(shape=(4, 10, 9))
    graph = of("confocal_3d", confocal.nominal(), geometry=geometry)
    assert graph.edges[0][0] == geometry.shape == graph.edges[-1][0]


def test_adjoint_of_a_modality(case):
    """Against the operator's hand-written adjoint."""
    from diffphys.operator import bind

    modality, geometry, _, specs, x = case
    spec = jax.tree.map(lambda v: v[0], specs)
    graph, operator = (jax.jit(partial(f, modality, geometry=geometry, specimen=x.shape))(spec) for f in (of, bind))
    y = jnp.asarray(np.random.default_rng(5).normal(size=operator.measurement), jnp.float32)
    back = np.asarray(operator.adjoint(y))
    np.testing.assert_allclose(jax.jit(lambda g: g.adjoint(y))(graph), back, atol=2e-6 * np.abs(back).max())


def chain_of_six(mask):
    """Diffraction, mask, diffraction, intensity, rotation, detection: a lensless camera."""
    rng = np.random.default_rng(0)
    travel = {"distance_um": 8.0, "wavelength_um": 0.5, "pixel_um": 0.3}
    nodes = {
        "in": travel,
        "M": {"mask": mask},
        "out": travel,
        "Lambda": {"theta": 1.5, "function": square_law},
        "R": {"angle_rad": 0.3},
        "D": {"detector": Detector(100.0, 2.0, 0.5, 10.0)},
    }
    x = jnp.asarray(rng.random((8, 9)))
    return compose("P(in) -> M -> P(out) -> Lambda -> R -> D", nodes, like=x), x


def test_a_nonlinear_graph(float64):
    """By hand with NumPy's FFT; both derivatives; what is nonlinear has no adjoint but a linearisation."""
    mask = np.random.default_rng(1).random((8, 9))
    graph, x = chain_of_six(mask)
    assert graph.edges[1] == ((8, 9), np.dtype(complex)) and graph.edges[-1] == ((8, 9), np.dtype(float))
    field = np.asarray(x)
    for factor in (mask, 1.0):
        fy, fx = np.fft.fftfreq(16, 0.3)[:, None], np.fft.fftfreq(18, 0.3)
        kz = np.sqrt((1 / 0.5**2 - fy**2 - fx**2).astype(complex))
        limits = [1 / (0.5 * np.sqrt((8.0 / (n * 0.3)) ** 2 + 1)) for n in (8, 9)]
        transfer = np.exp(2j * np.pi * kz * 8.0) * (np.abs(fy) <= limits[0]) * (np.abs(fx) <= limits[1])
        field = np.fft.ifft2(transfer * np.fft.fft2(field, (16, 18)))[:8, :9] * factor
    turned = ndimage.rotate(1.5 * np.abs(field) ** 2, np.rad2deg(0.3), reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(graph(x), 10 + 0.5 * (100 * turned + 2), rtol=1e-10)
    check_grads(jax.jit(lambda g, v: g(v)), (jax.tree.map(jnp.asarray, graph), x), order=1, eps=1e-6, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"node Lambda \(transform\).*not linear"):
        graph.adjoint(x)
    y, push, pull = graph.linearise(x)
    u = jnp.ones_like(x)
    assert abs(jnp.vdot(push(u), y) - jnp.vdot(u, pull(y))) < 1e-10 * abs(jnp.vdot(push(u), y))


def test_other_parameters(float64):
    graph, x = chain_of_six(np.ones((8, 9)))
    mask = np.random.default_rng(2).random((8, 9))
    np.testing.assert_allclose(graph.apply({"M": {"mask": mask}}, x), chain_of_six(mask)[0](x), rtol=1e-12)
    np.testing.assert_allclose(graph.apply(graph.parameters, x), graph(x), rtol=1e-12)
    with pytest.raises(ValueError, match=r"node M \(modulate\) has unknown name 'maks'.*did you mean 'mask'"):
        graph.apply({"M": {"maks": mask}}, x)
    with pytest.raises(ValueError, match=r"x has shape .* was composed for"):
        graph(x[:4])


def test_every_letter_composes():
    """One graph per letter, from its own arguments; the eleven primitives and no letter without one."""
    arguments = {
        "propagate": {"distance_um": 1.0, "wavelength_um": 0.5, "pixel_um": 0.3},
        "modulate": {"mask": np.ones((5, 6))},
        "project": {"angles_rad": np.zeros(2)},
        "encode": {"k": np.zeros((3, 2))},
        "convolve": {"psf": np.ones((3, 3))},
        "accumulate": {"axis": 1},
        "detect": {"detector": Detector()},
        "sample": {"omega": np.array([1, 2])},
        "disperse": {"alpha_rad": 0.1, "pixels_per_um": 1.0, "offsets_um": np.zeros(2)},
        "rotate": {"angle_rad": 0.1},
        "transform": {"theta": 1.0},
    }
    assert set(LETTERS.values()) == set(arguments) and len(arguments) == 11 and set(arguments) < set(PRIMITIVES)
    for letter, name in LETTERS.items():
        shape = (2, 5, 6) if name == "disperse" else (5, 6)
        graph = compose(letter, {letter: arguments[name]}, like=jax.ShapeDtypeStruct(shape, np.dtype("float32")))
        assert graph.nodes[0].primitive == name and isinstance(graph, Graph)


@pytest.mark.parametrize(
    ("chain", "nodes", "words"),
    [
        (
            "M -> C",
            {"M": {"mask": np.ones(3)}, "C": {"psf": np.ones((3, 3))}},
            r"node M \(modulate: mask \(3,\)\).*not take \(5, 6\)",
        ),
        ("C", {"C": {"psf": np.ones((3, 3)), "field": (9, 9)}}, "node C .*at least the field"),
        ("C", {"C": {"psf": np.ones(3), "field": (5, 5)}}, "expected at least the 2 axes"),
        ("Sigma -> R", {"R": {"angle_rad": 0.1}}, r"node R \(rotate.*not take \(6,\)"),
        ("Sigma -> Sigma(all)", {"all": {"axis": 3}}, r"node all .*axis 3"),
        ("S", {"S": {"omega": np.array([99])}}, "flat indices 0 to 29"),
        ("M -> M", {"M": {"mask": 1.0}}, r"'M' twice.*M\(first\)"),
        ("M -> ", {"M": {"mask": 1.0}}, "chain 'M -> ' has ''"),
        ("X", {}, "primitive is 'X'; expected a letter"),
        ("rotat", {}, "did you mean 'rotate'"),
        ("M", {}, r"modulate lacks \['mask'\]"),
        ("M", {"M": {"mask": 1.0, "x": 2}}, "modulate has unknown name 'x'"),
        ("M", {"N": {"mask": 1.0}}, "nodes of 'M' has unknown name 'N'"),
    ],
)
def test_mistakes_are_named_when_composed(chain, nodes, words):
    """One line that names the node."""
    with pytest.raises(ValueError, match=words) as error:
        compose(chain, nodes, like=jax.ShapeDtypeStruct((5, 6), np.dtype("float32")))
    assert "\n" not in str(error.value)


def test_printed():
    x = jax.ShapeDtypeStruct((5, 6), np.dtype("float32"))
    nodes = {
        "M": {"mask": np.ones((2, 5, 6))},
        "blur": node("C", psf=np.ones((3, 3)), field=[4, 4]),
        "D": {"detector": Detector(7.0)},
    }
    lines = str(compose("M -> C(blur) -> D", nodes, like=x)).splitlines()
    assert [line.split()[0] for line in lines] == ["M", "x", "M", "C(blur)", "D"] and lines[0] == "M -> C(blur) -> D"
    assert lines[1].endswith("-> (5, 6) float32") and lines[2].endswith("-> (2, 5, 6) float32")
    assert "convolve" in lines[3] and "psf (3, 3), field=(4, 4)" in lines[3] and lines[3].endswith("-> (2, 4, 4) float32")
    assert "detector.peak_photons 7, detector.background 0" in lines[4]


def test_drawn(tmp_path):
    """One box per node: the drawing has as many columns with a box's left edge as there are nodes."""
    from matplotlib.image import imread

    from diffphys.report.graph import BOX, DPI, GAP, draw

    graph = of(shg, shg.nominal(), geometry=shg.Geometry(shape=(14, 12)))
    draw(graph, tmp_path / "graph.png", title="SHG")
    image = imread(tmp_path / "graph.png")
    assert image.shape[1] == round((3 * BOX + 4 * GAP) * DPI)
    blue = (image[..., 2] - image[..., 0] > 0.3).mean(0) > 0.3  # upright edges of the frames
    edges = np.flatnonzero(np.diff(blue.astype(int)) == 1)
    expected = [(i * (BOX + GAP) + GAP + side * BOX) * DPI for i in range(3) for side in (0, 1)]
    np.testing.assert_allclose(edges, expected, atol=4)
