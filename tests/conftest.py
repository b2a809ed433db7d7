"""What several test files share: double precision on request, and the modalities."""

from __future__ import annotations

import jax
import pytest

from diffphys import confocal, shg


@pytest.fixture
def float64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[confocal, shg], ids=lambda m: m.NAME)
def modality(request):
    return request.param
