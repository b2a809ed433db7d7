"""`diffphys doctor`: its findings against what the computer and the package say elsewhere."""

from __future__ import annotations

import json
import os
from email.message import Message
from importlib import metadata

import jax
import pytest

from diffphys import doctor, fft
from diffphys.cli import main


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(doctor, "PAIR", (8, 16, 16))
    monkeypatch.setenv("DIFFPHYS_CACHE", "off")


def test_the_command_in_text_and_for_machines(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "sandboxes", lambda: {"scripts": "bwrap"})  # the self-test has its own tests
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["jaxlib"] == metadata.version("jaxlib")
    assert set(found["devices"]) == {str(d) for d in jax.devices()}
    assert found["fft"]["in_use"] == fft.choice().name and found["fft"]["native_ms"] > 0
    assert found["weights"]["whole"] > 10 and set(found["weights"]) == {"whole", "not trained"}  # each one loads
    page = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    assert 0 < found["memory"]["available_mib"] <= found["memory"]["total_mib"] == int(page)
    monkeypatch.setattr(doctor, "weights", lambda: {"whole": 17})
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(part in out.splitlines() for part in found)
    assert "native (ms)" in out and "_ms" not in out


def test_a_request_that_cannot_be_met_is_shown_and_ends_nothing(monkeypatch):
    def refused():
        raise ValueError("DIFFPHYS_FFT=mkl, and the packages are absent")

    monkeypatch.setattr(fft, "choice", refused)
    assert doctor.transforms() == {"in_use": "none", "why": "DIFFPHYS_FFT=mkl, and the packages are absent"}


def test_extras_say_what_is_missing(monkeypatch):
    about = Message()
    for name in ("here", "gone", "elsewhere"):
        about["Provides-Extra"] = name
    asked = ["jax>=0.9", "numpy>=1; extra == 'here'", "no-such-package>=2; extra == 'gone'", "numpy; extra == 'gone'"]
    asked.append("numpy; platform_system == 'Plan9' and extra == 'elsewhere'")
    monkeypatch.setattr(doctor.metadata, "metadata", lambda _: about)
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: asked)
    assert doctor.extras() == {
        "here": f"present: numpy {metadata.version('numpy')}",
        "gone": "absent (no-such-package): pip install 'diffphys[gone]'",
        "elsewhere": "not for this system",
    }


def test_cache_folder_and_its_size(tmp_path):
    (tmp_path / "program").write_bytes(bytes(3 * 2**20))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        assert doctor.compilation_cache() == {"folder": str(tmp_path), "files": 1, "size_mib": 3.0}
        jax.config.update("jax_compilation_cache_dir", None)
        assert doctor.compilation_cache()["folder"].startswith("off")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_sandbox_that_is_absent_is_a_line(monkeypatch):
    from diffphys.benchmark.runner import probe
    from diffphys.benchmark.runner.verdict import NoSandbox

    def none(solver):
        raise NoSandbox("install bubblewrap")

    monkeypatch.setattr(probe, "backend", none)
    assert doctor.sandboxes() == {"scripts": "install bubblewrap", "images": "install bubblewrap"}
