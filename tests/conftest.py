"""What several test files share: compiled programs, double precision on request, and the modalities."""

from __future__ import annotations

import contextlib
import os
from importlib.metadata import version
from pathlib import Path

# What one process has compiled is there for every other one, and for the next run; jax reads this when it is imported.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Most of the time goes into compiling small programs: two to three times less of it so. As users have it (slower, the same
# outcomes): JAX_DISABLE_MOST_OPTIMIZATIONS=0, as `make test-oldest` and `make test-newest` do.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What is left is mostly XLA's emitters of fusions: 45 s for 228 programs, 15 s without them. An unknown flag ends the process,
# so it is given to versions that have it.
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()

import jax
import pytest

from diffphys import confocal, shg


@pytest.fixture(scope="module", autouse=True)
def freed():
    """A file leaves no compiled programs in memory; some tests ask for as much as is free."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def optimised():
    """All of the compiler's optimisations, for a file whose programs run longer than they compile."""
    saved = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", saved)


@pytest.fixture
def float64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[confocal, shg], ids=lambda m: m.NAME)
def modality(request):
    return request.param


@pytest.fixture(scope="session")
def deepinv():
    """deepinv, where it is installed.

    It imports torchvision, whose common wheels are built for CUDA: beside a CPU-only PyTorch their detection operators do not
    load, and the import fails at two of them. deepinv uses none; declaring these two is enough.
    """
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'diffphys[torch]'")
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "FRAGMENT")
        with contextlib.suppress(RuntimeError):  # already there: torchvision is of the same build
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_torchvision"] = library  # the declaration lives as long as this object
    return pytest.importorskip("deepinv", reason="deepinv is not installed: pip install 'diffphys[deepinv]'")
