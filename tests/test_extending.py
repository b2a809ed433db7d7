"""The two pages on extending the package, done as they say: their code is run, what it makes is judged by physics."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

import diffphys
from diffphys import types
from diffphys.cli.measure import _method_options
from diffphys.modality import FromPsf
from diffphys.operator import from_psf
from diffphys.reconstruct import Problem, Solution, known_methods, reconstruct, register_method, registry, unregister_method
from diffphys.spec import Field
from diffphys.types import Status, register_modality, resolve, unregister_modality

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page):
    """Python blocks of a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def definitions(page, last):
    """The page's code up to the block that holds `last`, without the registration itself: what a package would ship."""
    code = blocks(page)
    upto = next(i for i, text in enumerate(code) if last in text)
    return "\n".join(re.sub(r"^diffphys\.register_.*$", "", text, flags=re.MULTILINE) for text in code[: upto + 1])


@pytest.fixture
def installed_package(tmp_path, monkeypatch):
    """(module name, source, group, entry) -> that package is installed for one test."""

    def install(module, source, group, entry):
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
        monkeypatch.syspath_prepend(tmp_path)

    before = {*sys.modules}
    yield install
    for name in {*sys.modules} - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture(scope="module")
def page():
    """The method page, run top to bottom in a module of its own; forgotten afterwards."""
    module = ModuleType("method_page")
    sys.modules[module.__name__] = module
    exec("\n".join(blocks("adding_a_method.md")), vars(module))
    yield module
    unregister_method("landweber")
    del sys.modules[module.__name__]


def small_problem():
    """A well-conditioned blur on a torus of 100 voxels, noise that makes the bound x >= 0 active; dense matrix, data."""
    axis = np.arange(5) - 2
    psf = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 0.6**2))
    operator = from_psf(psf, field=(10, 10), margin=0)
    rng = np.random.default_rng(5)
    x = np.where(rng.random((10, 10)) < 0.2, 50.0, 0.0)
    y = rng.poisson(np.asarray(operator.apply(jnp.asarray(x, jnp.float32))) + 3.0).astype(np.float32)
    columns = [np.asarray(operator.apply(e)).ravel() for e in jnp.eye(100, dtype=jnp.float32).reshape(100, 10, 10)]
    problem = Problem(operator, jnp.asarray(y), jnp.float32(3.0), jnp.float32(0.0), jnp.ones(2))
    return problem, np.array(columns, np.float64).T, y.ravel() - 3.0


def test_the_method_is_registered_and_stops_at_the_noise(page):
    assert registry.method_name("Projected-Gradient") == "landweber" and "landweber" in known_methods()
    restored, truth = page.restored, page.truth[16:-16, 16:-16]
    assert restored.status == Status.CONVERGED and restored.curve[-10:].min() <= 1 < restored.curve[0]
    assert restored.image.shape == (48, 48) and restored.image.min() >= 0

    def error(image):
        return np.sqrt(np.mean((image - truth) ** 2))

    measured = (np.asarray(page.y[0]) - page.detector.background) / page.detector.peak_photons
    assert error(restored.image) < 0.9 * error(measured)
    assert page.solution.x.shape == page.problem.operator.specimen and page.solution.iterations == 20


def test_the_method_solves_non_negative_least_squares(page):
    """SciPy's active-set solution; and FISTA's bound (Beck & Teboulle 2009, theorem 4.4) on the way there."""
    problem, matrix, data = small_problem()
    best, _ = nnls(matrix, data)
    assert 10 < (best == 0).sum() < 90  # the bound matters

    def objective(x):
        return 0.5 * float(np.sum((matrix @ np.asarray(x, np.float64).ravel() - data) ** 2))

    found = page.landweber(problem, iterations=2000, goal=0.0)
    np.testing.assert_allclose(np.asarray(found.x).ravel(), best, atol=2e-3 * best.max())
    for steps in (5, 20, 80):
        gap = objective(page.landweber(problem, iterations=steps, goal=0.0).x) - objective(best)
        assert -1e-3 < gap <= 2 * np.linalg.norm(matrix, 2) ** 2 * np.sum(best**2) / (steps + 1) ** 2


def restored_flat(y, method, **options):
    """`reconstruct` with a flat PSF of nine voxels."""
    detector, psf = diffphys.Detector(background=1.0), np.ones((3, 3))
    return reconstruct(y, None, None, geometry=None, detector=detector, psf=psf, margin=0, method=method, **options)


def test_the_method_keeps_the_contract_of_all_methods(page):
    y = np.zeros((10, 10))
    for y[5, 5] in (0.0, 1e-3, 1e6):
        extreme = restored_flat(y, "landweber")
        assert np.isfinite(extreme.image).all() and np.isfinite(extreme.curve).all()
        assert extreme.status in (Status.CONVERGED, Status.OUT_OF_STEPS)
    stopped = restored_flat(y, "landweber", callback=lambda *_: False)
    assert stopped.status == Status.INTERRUPTED and stopped.iterations == 10
    with pytest.raises(ValueError, match=r"no option 'iteration'.*did you mean 'iterations'"):
        restored_flat(y, "landweber", iteration=3)
    with pytest.raises(ValueError, match="expected at least 1"):
        restored_flat(y, "landweber", iterations=0)


def good(problem, *, iterations=3, callback=None):
    raise AssertionError("never called")


SIGNATURES = {
    "its first argument is not `problem`": lambda data, *, callback=None: None,
    "must be keyword-only": lambda problem, iterations=3, *, callback=None: None,
    "'needed'. have no default": lambda problem, *, needed, callback=None: None,
    "takes no `callback`": lambda problem, *, iterations=3: None,
    "expected a function": 3,
}


@pytest.mark.parametrize("reason", SIGNATURES)
def test_a_signature_that_cannot_be_called_is_refused(reason):
    with pytest.raises(ValueError, match=reason) as refused:
        register_method("stranger", SIGNATURES[reason])
    assert "\n" not in str(refused.value) and "stranger" not in known_methods()


def test_a_taken_name_is_refused():
    own = {**registry.METHODS}, {**registry.ALIASES}
    for name, aliases in (("Richardson-Lucy", ()), ("RL", ()), ("stranger", ("wiener filter",)), ("", ())):
        with pytest.raises(ValueError, match="cannot be registered"):
            register_method(name, good, aliases=aliases, replace=True)
    register_method("stranger", good, aliases=("odd one",))
    with pytest.raises(ValueError, match="replace=True"):
        register_method("Stranger", good)
    with pytest.raises(ValueError, match="replace=True"):
        register_method("another", good, aliases=("odd-one",), replace=True)
    register_method("stranger", good, aliases=("odd one",), replace=True)
    with pytest.raises(ValueError, match="own"):
        unregister_method("wiener")
    unregister_method("stranger")
    assert own == (registry.METHODS, registry.ALIASES)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda problem: problem.photons, "expected a diffphys.reconstruct.Solution"),
        (lambda problem: Solution(problem.photons[:5], Status.CONVERGED, 0, np.zeros(1), ""), "expected the specimen"),
    ],
)
def test_a_result_that_is_no_solution_is_refused(made, reason):
    register_method("stranger", lambda problem, *, callback=None: made(problem))
    try:
        with pytest.raises(ValueError, match=reason):
            restored_flat(np.ones((10, 10)), "stranger")
    finally:
        unregister_method("stranger")


def test_an_installed_package_offers_its_method(installed_package):
    """Listed without being imported; loaded by its name, in the command line's options as well."""
    source = definitions("adding_a_method.md", "def landweber")
    installed_package("their_methods", source, "diffphys.methods", "their-landweber = their_methods:landweber")
    assert "their_landweber" in known_methods() and "their_methods" not in sys.modules
    with pytest.raises(ValueError, match="did you mean 'their_landweber'"):
        registry.method_name("their_landwebr")
    assert "their_methods" not in sys.modules
    try:
        options = _method_options("Their-Landweber", ["goal=0.5"], iterations=7, seed=0)
        assert options == {"iterations": 7, "goal": 0.5} and "their_methods" in sys.modules
        assert restored_flat(np.ones((10, 10)), "their landweber").image.shape == (10, 10)
    finally:
        unregister_method("their_landweber")


def test_a_package_that_cannot_be_imported_says_so(installed_package):
    installed_package("broken_methods", "import no_such_module", "diffphys.methods", "broken = broken_methods:broken")
    with pytest.raises(ValueError, match=r"'broken' of diffphys\.methods .*cannot be loaded: No module named") as refused:
        registry.method_name("broken")
    assert "\n" not in str(refused.value)


def test_an_installed_package_offers_its_modality(installed_package):
    source = definitions("adding_a_modality.md", "class FocusBracket") + "\nFOCUS_BRACKET = FocusBracket()\n"
    installed_package("their_bracket", source, "diffphys.modalities", "focus_bracket = their_bracket:FOCUS_BRACKET")
    with pytest.raises(ValueError, match=r"expected one of \['confocal_3d', 'focus_bracket', 'shg'\]"):
        resolve("focus_brackets")
    assert "their_bracket" not in sys.modules
    try:
        assert resolve("focus_bracket").Geometry().focus_um == (0.0, 1.0)
        assert (
            resolve("focus_bracket")
            .sampling_warnings(resolve("focus_bracket").Geometry(pixel_um=(0.2, 0.1)))[0]
            .startswith("y")
        )
        with pytest.raises(ValueError, match="sign of defocus"):
            resolve("focus_bracket").Geometry(focus_um=(0.5, 0.5))
    finally:
        unregister_modality("focus_bracket")


class Bare(FromPsf):
    NAME, FIELDS, Geometry = "bare", (Field("width", "w", "um", 0.2, 0.1, 0.4, "absolute"),), diffphys.shg.Geometry


class Lying(Bare):
    Spec = diffphys.shg.Spec


def test_what_is_no_modality_is_refused():
    named = type("Named", (Bare,), {"NAME": "shg"})()
    cases = {
        "register an object of it": Bare,
        r"lacks \['NAME', .*FromPsf": object(),
        "taken: it is the package's own": named,
        "other fields than the table": Lying(),
    }
    for reason, thing in cases.items():
        with pytest.raises(ValueError, match=reason) as refused:
            register_modality(thing, replace=True)
        assert "\n" not in str(refused.value)
    register_modality(Bare())
    try:
        with pytest.raises(ValueError, match="replace=True"):
            register_modality(Bare())
        register_modality(Bare(), replace=True)
        bare = resolve("bare")
        assert copy.deepcopy(bare) is bare and pickle.loads(pickle.dumps(bare)) is bare
        assert type(copy.copy(Bare())) is Bare and copy.copy(Bare()) is not bare
        with pytest.raises(ValueError, match="expected within"):
            bare.check_ranges({"width": (0.05, 0.3)}, None)
        with pytest.raises(NotImplementedError, match="'bare' has no psf"):
            bare.psf(bare.nominal(), geometry=diffphys.shg.Geometry())
        with pytest.raises(ValueError, match=r"expected axes \['y', 'x'\]"):
            bare.forward(None, jnp.ones((2, 8, 8)), geometry=diffphys.shg.Geometry(shape=(8, 8)))
        with pytest.raises(ValueError, match="draws no specimens"):
            diffphys.identify("bare", geometry=diffphys.shg.Geometry())
    finally:
        unregister_modality("bare")
    with pytest.raises(ValueError, match="own"):
        unregister_modality("shg")
    assert set(types._MODALITIES) >= {"confocal_3d", "shg"} and "bare" not in types._MODALITIES


# Of tests/test_contract.py; unit sums and the adjoint are checked by the page itself, the graph of primitives below.
CONTRACT = {
    "test_modality_offers_the_protocol": (),
    "test_every_parameter_has_a_right_gradient": (None,),
    "test_otf_quadrant_is_the_fourier_transform_of_the_psf": (None, 1, 2),
    "test_ranges_starts_and_blocks": (),
}


def follow():
    """In a process of its own: the modality page top to bottom, then the contract of the siblings; what came out, as JSON."""
    import traceback

    import test_contract

    from diffphys.primitives import graph

    main = sys.modules["__main__"]
    exec("\n".join(blocks("adding_a_modality.md")), vars(main))
    known, found = resolve("focus_bracket"), main.found
    test_contract.GEOMETRY["focus_bracket"] = small = main.Geometry(shape=(24, 20))
    test_contract.LARGER["focus_bracket"] = (35, 29)
    broken = {}
    for name, arguments in CONTRACT.items():
        try:
            with jax.enable_x64(None in arguments):
                getattr(test_contract, name)(known, *arguments)
        except Exception:
            broken[name] = traceback.format_exc()
    x = jnp.asarray(np.random.default_rng(0).random((30, 26)), jnp.float32)
    model = graph.of(known, found.spec, geometry=small, specimen=x.shape)
    gap = jnp.abs(model(x) - known.forward(found.spec, x, geometry=small)).max() / jnp.abs(model(x)).max()
    errors = [float(np.sqrt(np.mean((image - main.truth) ** 2))) for image in (main.before, main.after)]
    print(
        json.dumps(
            {
                "broken": broken,
                "chain": model.chain,
                "gap": float(gap),
                "values": found.values,
                "sigma": found.sigma,
                "status": found.status.name,
                "undetermined": list(found.undetermined),
                "bound": dict(zip(main.known.names, np.sqrt(np.diag(main.known.covariance)).tolist(), strict=True)),
                "errors": errors,
            }
        )
    )


@pytest.fixture(scope="module")
def followed():
    """What following the modality page gave."""
    folder = Path(__file__).parent
    path = os.pathsep.join([str(folder.parent), str(folder)])
    environment = {**os.environ, "PYTHONPATH": path}
    ran = subprocess.run(
        [sys.executable, "-c", "import test_extending; test_extending.follow()"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_new_modality_passes_the_contract_of_the_siblings(followed):
    assert not followed["broken"], "\n".join(followed["broken"].values())
    assert followed["chain"] == "C(PSF) -> D" and followed["gap"] < 1e-5


def test_the_new_modality_calibrates_itself(followed):
    """Truth of the page: 0.4 um and -0.06 waves. Within 3 sigma, which are small beside the ranges: 2 um and 0.3 waves."""
    assert followed["status"] == "CONVERGED" and not followed["undetermined"]
    for (name, truth), width in zip({"defocus": 0.4, "spherical_aberr": -0.06}.items(), (2.0, 0.3), strict=True):
        sigma = followed["sigma"][name]
        assert abs(followed["values"][name] - truth) < 3 * sigma and sigma < 0.02 * width
        assert 0.3 < sigma / followed["bound"][name] < 10  # `identify`'s Cramer-Rao bound at the nominal spec


def test_the_calibrated_instrument_restores_better(followed):
    before, after = followed["errors"]
    assert after < 0.95 * before
