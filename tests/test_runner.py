"""The hidden-tier runner: refuses without a sandbox, contains with one, and reads what comes out as hostile bytes."""

from __future__ import annotations

import os
import platform
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from diffphys.benchmark import evaluate as judge
from diffphys.benchmark.runner import Code, Limits, Solver, bwrap, inside, jail, layout, oci, probe, seccomp
from diffphys.benchmark.runner.limits import MIB
from diffphys.benchmark.runner.verdict import REMEDY, NoSandbox
from diffphys.cli import main
from diffphys.io.challenge import Truth, write_challenge, write_truth
from diffphys.io.hdf5 import Sample
from diffphys.io.provenance import sha256
from diffphys.io.submission import Contract, Entry, write_submission
from diffphys.noise import Detector

SHAPE = (12, 16, 16)
RANGES = {"z_step": (-35.0, 115.0), "spherical_aberr": (-0.07, 0.23), "refractive_index": (1.508, 1.538)}
SPEC = {n: sum(r) / 2 for n, r in RANGES.items()}
CONTRACT = Contract("confocal_3d", "hidden", ("sample_00",), SHAPE, RANGES)
LIMITS = Limits(wall_s=60, cpu_s=30, memory=512 * MIB, processes=32, output=8 * MIB, scratch=8 * MIB, shared=8 * MIB)


def why_no_sandbox() -> str:
    """Empty where bubblewrap contains a job; otherwise the reason."""
    try:
        probe.backend(Solver(script=Path("solve.py")))
    except NoSandbox as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def sandbox() -> None:
    if reason := why_no_sandbox():
        pytest.skip(reason)


@pytest.fixture
def job(sandbox, tmp_path):
    """Run Python code as a job; its verdict."""
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "challenge.h5").write_bytes(b"y" * 64)
    script = tmp_path / "attempt.py"

    def run(code: str, limits: Limits = LIMITS):
        script.write_text(code)
        return probe.run(Solver.parse(str(script)), folder=folder, limits=limits, output_limit=MIB)

    return run


def submission(path: Path, x: np.ndarray | None = None) -> bytes:
    entry = Entry(np.full(SHAPE, 0.25, np.float32) if x is None else x, SPEC)
    head = {"modality": "confocal_3d", "tier": "hidden", "method": "Test", "challenge_sha256": "0" * 64}
    write_submission(path, samples={"sample_00": entry}, **head)
    return path.read_bytes()


# refusal: always tested


@pytest.fixture
def no_tools(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize("solver", [Solver(script=Path("solve.py")), Solver(image="team/solver:1")])
def test_no_backend_refuses_with_a_remedy(no_tools, solver):
    with pytest.raises(NoSandbox, match=r"^E_NO_SANDBOX .*install bubblewrap"):
        probe.backend(solver)


def test_a_client_without_an_engine_is_no_backend(monkeypatch, tmp_path):
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoSandbox, match="neither docker nor podman answers"):
        probe.backend(Solver(image="team/solver:1"))


def test_a_sandbox_that_does_not_contain_is_refused(monkeypatch):
    monkeypatch.setattr(probe.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(probe.seccomp, "supported", lambda: True)
    monkeypatch.setattr(probe, "_self_test", lambda user: "network")
    if sys.platform == "linux":
        with pytest.raises(NoSandbox, match=r"does not contain a job here \(network\)"):
            probe.backend(Solver(script=Path("solve.py")))


def test_evaluate_refuses_and_runs_nothing(no_tools, tmp_path, capsys):
    ran = tmp_path / "ran"
    script = tmp_path / "solve.py"
    script.write_text(f"open({str(ran)!r}, 'w')")
    challenge = bench(tmp_path)[0]
    with pytest.raises(NoSandbox, match="E_NO_SANDBOX"):
        judge.evaluate(Solver.parse(str(script)), challenge, method="Test")
    assert not ran.exists()


def test_truth_where_jobs_can_read_it_is_refused():
    with pytest.raises(ValueError, match="every solver can read"):
        layout.check_hidden([layout.package() / "benchmark" / "secret.h5"])
    layout.check_hidden(["/var/secret/truth.h5"])


@pytest.mark.parametrize("text", ["nowhere.py", "image:-rf", "image:UPPER CASE", "/dev/null"])
def test_what_is_no_solver(text):
    with pytest.raises(ValueError, match="expected"):
        Solver.parse(text)


def test_a_link_is_no_solver(tmp_path):
    (tmp_path / "solve.py").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="expected a Python script"):
        Solver.parse(str(tmp_path / "solve.py"))


def test_every_verdict_has_a_remedy_and_limits_are_checked():
    assert set(REMEDY) == set(Code)
    with pytest.raises(ValueError, match="limit memory is 0"):
        Limits(memory=0)


# the system-call filter: run in our own interpreter of BPF


def allowed(number: int, *arguments: int) -> int:
    """What the filter answers to a call on this processor: 0x7FFF0000 allow, 0x0005xxxx errno, 0x80000000 kill."""
    code = [struct.unpack_from("=HBBI", seccomp.program(), i) for i in range(0, len(seccomp.program()), 8)]
    arch = seccomp._ARCHITECTURES[platform.machine()][0]
    data = struct.pack("=iIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    at, held = 0, 0
    while True:
        what, yes, no, value = code[at]
        at += 1
        if what == 0x20:
            held = struct.unpack_from("=I", data, value)[0]
        elif what == 0x06:
            return value
        else:
            passed = {0x15: held == value, 0x45: bool(held & value), 0x35: held >= value}[what]
            at += yes if passed else no


@pytest.mark.skipif(not seccomp.supported(), reason="no system-call table for this processor")
def test_filter_denies_what_it_says_and_no_more():
    column = seccomp._ARCHITECTURES[platform.machine()][1]
    allow, deny = 0x7FFF0000, 0x00050001
    for name, numbers in seccomp._DENIED.items():
        if numbers[column] is not None:
            assert allowed(numbers[column]) == deny, name
    socket, clone, ioctl = seccomp._SOCKET[column], seccomp._CLONE[column], seccomp._IOCTL[column]
    assert {f for f in range(50) if allowed(socket, f) == allow} == {1, 2, 10}
    assert allowed(clone, 0x3D0F00) == allow and allowed(clone, 0x10000000) == deny and allowed(clone, 0x40000000) == deny
    assert allowed(ioctl, 0, 0x5412) == deny and allowed(ioctl, 0, 0x5401) == allow
    assert allowed(seccomp._CLONE3[column]) == 0x00050000 | 38
    harmless = {0, 1, 3, 9, 11, 59, 60, 63} if column == 0 else {63, 64, 57, 221, 93}
    assert all(allowed(n) == allow for n in harmless)


def test_oci_profile_names_the_same_calls():
    profile = seccomp.profile()
    named = {n for rule in profile["syscalls"] for n in rule["names"]}
    assert set(seccomp._DENIED) <= named and profile["defaultAction"] == "SCMP_ACT_ALLOW"
    families = {r["args"][0]["value"] for r in profile["syscalls"] if r["names"] == ["socket"]}
    assert 40 in families and not {1, 2, 10} & families


def test_container_command_is_locked_down(tmp_path):
    line = oci.arguments(
        "docker", "name", "team/solver:1", Solver(image="team/solver:1").command(),
        folder=tmp_path, code=None, output=tmp_path, rules=tmp_path / "seccomp.json", limits=LIMITS,
    )  # fmt: skip
    for wanted in ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pull=never"):
        assert wanted in line
    assert f"--memory={LIMITS.memory}" in line and f"--memory-swap={LIMITS.memory}" in line and "--pids-limit=32" in line
    assert line[-5:] == ["team/solver:1", "--input", "/input/challenge.h5", "--output", "/output/submission.h5"]
    assert "--entrypoint=solve" in line and not any("privileged" in a and "no-new" not in a for a in line)


# what a job leaves


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda p: None, inside.NO_OUTPUT),
        (lambda p: (p / "submission.h5").write_bytes(b"12345"), 0),
        (lambda p: (p / "submission.h5").write_bytes(b"1" * 11), inside.FILE_TOO_BIG),
        (lambda p: (p / "submission.h5").symlink_to("/etc/passwd"), inside.NOT_REGULAR),
        (lambda p: (p / "submission.h5").mkdir(), inside.NOT_REGULAR),
        (lambda p: os.mkfifo(p / "submission.h5"), inside.NOT_REGULAR),
        (lambda p: [(p / n).write_bytes(b"1") for n in ("submission.h5", "score.json")], inside.EXTRA_FILES),
    ],
)
def test_only_one_plain_file_is_collected(make, status, tmp_path):
    make(tmp_path)
    assert inside.read_output(str(tmp_path), 10) == (status, b"12345" if status == 0 else b"")


def test_hard_link_is_not_collected(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "other").write_bytes(b"1")
    os.link(tmp_path / "other", tmp_path / "out" / "submission.h5")
    assert inside.read_output(str(tmp_path / "out"), 10)[0] == inside.NOT_REGULAR


def test_jail_reads_an_honest_submission_and_refuses_others(tmp_path):
    content = submission(tmp_path / "s.h5")
    read = jail.read(content, CONTRACT)
    assert read.code is Code.OK, read.detail
    np.testing.assert_array_equal(read.x_hat["sample_00"], np.float32(0.25))
    assert read.spec["sample_00"] == SPEC
    refused = jail.read(content[:2000], CONTRACT)
    assert refused.code in (Code.SUBMISSION, Code.READER_CRASH)


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_jailed_process_opens_nothing_else(tmp_path):
    """The lock itself, in a process of its own: the folder can be read, nothing else, and nothing can be written."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("a")
    (tmp_path / "secret").write_text("s")
    code = f"""
import sys
sys.path.insert(0, {str(layout.package().parent)!r})
import importlib.util
spec = importlib.util.spec_from_file_location('landlock', {str(layout.package() / "benchmark/runner/landlock.py")!r})
lock = importlib.util.module_from_spec(spec); spec.loader.exec_module(lock)
from pathlib import Path
place = Path({str(tmp_path)!r})
print(lock.allow_reading([place / 'in']))
print((place / 'in' / 'a').read_text())
for path, mode in ((place / 'secret', 'r'), (place / 'in' / 'b', 'w')):
    try: open(path, mode); print('opened')
    except OSError: print('refused')
"""
    import subprocess

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    if said[0] == "False":
        pytest.skip("this kernel has no Landlock")
    assert said == ["True", "a", "refused", "refused"]


def test_jail_checks_the_child_too():
    good = jail.pack({"samples": {"sample_00": {"shape": [2], "spec": {"a": 1.0}}}, "method": "m"}, [np.ones(2, np.float32)])
    assert jail.unpack(good).code is Code.OK
    for bad in (good[:-1], good + b"\0\0\0\0", good[:-4] + struct.pack("<f", float("nan")), b"\xff\xff\xff\xff", good[:3]):
        with pytest.raises((ValueError, struct.error)):
            jail.unpack(bad)


# jobs in the sandbox


def test_job_sees_its_input_and_nothing_of_the_host(job, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFPHYS_CANARY", "TOP-SECRET")
    (tmp_path / "truth").write_text("TOP-SECRET")
    ended = job(
        "import os, socket\n"
        "seen = [open('/input/challenge.h5').read()[:1], str('TOP-SECRET' in str(os.environ))]\n"
        f"seen += [str(os.path.exists(p)) for p in ({str(tmp_path / 'truth')!r}, '/etc/passwd', '/home', '/var')]\n"
        "seen += [n for _, n in socket.if_nameindex()] if False else []\n"
        "seen += [str(os.getuid() != 0), str(os.sysconf('SC_PAGE_SIZE') > 0)]\n"
        "open('/output/submission.h5', 'w').write(' '.join(seen))\n"
    )
    assert ended.code is Code.OK, ended
    assert ended.output == b"y False False False False False True True"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(3)", Code.EXIT),
        ("import os; os.abort()", Code.CRASH),
        ("pass", Code.NO_OUTPUT),
        ("b = []\nwhile True: b.append(bytearray(b'x' * 2**22))", Code.MEMORY),
        ("import os; os.symlink('/etc/passwd', '/output/submission.h5')", Code.NOT_REGULAR),
        ("open('/output/submission.h5', 'wb').write(b'0' * (2**20 + 1))", Code.FILE_TOO_BIG),
    ],
)
def test_verdicts(job, code, expected):
    limits = Limits(**{**vars(LIMITS), "memory": 128 * MIB}) if expected is Code.MEMORY else LIMITS
    found = job(code, limits).code
    assert found is expected or (expected is Code.MEMORY and found is Code.EXIT)  # one process meets RLIMIT_AS first


def test_time_is_limited_and_nothing_is_left(job):
    ended = job("import os, time\nos.fork()\nos.setsid() if os.getpid() % 2 else None\ntime.sleep(60)", Limits(wall_s=2))
    assert ended.code is Code.TIME and ended.seconds < 6


def test_log_is_bounded_and_printable(job):
    ended = job("print('\\x1b[2J' + 'A' * 200000)")
    assert len(ended.log) <= LIMITS.log and "\x1b" not in ended.log


def test_sandbox_command_binds_no_folder_it_should_not(tmp_path):
    line = bwrap._command(
        ["solve"], work=tmp_path, folder=tmp_path / "in", code=tmp_path / "algo", limits=LIMITS, seccomp_fd=9, out=(8, 1)
    )
    sources = [line[i + 1] for i, part in enumerate(line) if part in ("--bind", "--ro-bind", "--ro-bind-try")]
    allowed = {"/usr", "/etc/ld.so.cache", "/proc/sys", *(f"/{n}" for n in ("lib", "lib32", "lib64", "bin", "sbin"))}
    allowed |= {str(p) for p in layout.exposed()} | {str(tmp_path / n) for n in ("in", "algo", "out", "tmp", "shm")}
    assert set(sources) <= allowed
    assert {"--clearenv", "--unshare-net", "--unshare-pid", "--die-with-parent", "--seccomp"} <= set(line)


# the whole way


def bench(place: Path) -> tuple[Path, Path]:
    """A tiny hidden tier of one sample, its truth the constant 0.5."""
    from diffphys import confocal

    detector = Detector(gain=1.0, offset=100.0, background=2.0, read_sigma=1.0, peak_photons=200.0)
    y = np.random.default_rng(0).poisson(200, SHAPE).astype(np.float32)
    challenge, truth = place / "challenge.h5", place / "truth.h5"
    samples = {"sample_00": Sample(y, detector)}
    geometry = confocal.Geometry(shape=SHAPE)
    write_challenge(challenge, "confocal_3d", "hidden", geometry=geometry, ranges=RANGES, samples=samples)
    known = Truth(np.full(SHAPE, 0.5, np.float32), SPEC, y, y, "beads")
    write_truth(truth, "confocal_3d", "hidden", challenge_sha256=sha256(challenge), samples={"sample_00": known})
    return challenge, truth


SOLVER = """
import argparse, hashlib, h5py, numpy as np
p = argparse.ArgumentParser(); p.add_argument('--input'); p.add_argument('--output'); a = p.parse_args()
digest = hashlib.sha256(open(a.input, 'rb').read()).hexdigest()
with h5py.File(a.input) as f: y, names = f['sample_00/y'][()], list(f['spec_ranges'])
print(y)  # must not come back
head = dict(format='diffphys-submission', version='1', modality='confocal_3d', tier='hidden', method='m')
head['challenge_sha256'] = digest
with h5py.File(a.output, 'w') as f:
    for k, v in head.items(): f.attrs[k] = np.bytes_(v)
    g = f.create_group('sample_00'); g['x_hat'] = np.full(y.shape, LEVEL, '<f4')
    for k, v in dict(z_step=0.0, spherical_aberr=0.0, refractive_index=1.515).items(): g.attrs[k] = v
"""


def test_evaluate_scores_an_honest_solver_and_tells_little(sandbox, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DIFFPHYS_CACHE", "off")
    challenge, truth = bench(tmp_path)
    script = tmp_path / "mine.py"
    script.write_text(SOLVER.replace("LEVEL", "0.5"))
    found = judge.evaluate(Solver.parse(str(script)), challenge, truth=truth, method="Test 1")
    told = found.for_contestant()
    assert set(told) == {"modality", "tier", "status", "score", "time", "failures"}
    assert told["status"] == "ok" and told["failures"] == {} and round(told["score"], 3) == told["score"] >= 0.8
    assert found.row.tiers["hidden"].score.mean == pytest.approx(found.report.score)
    assert found.full()["jobs"][0]["log"].startswith("[[[")


def test_command_keeps_a_private_report_and_a_row(sandbox, tmp_path, capsys, monkeypatch):
    from diffphys.benchmark.store import Store
    from diffphys.cli import evaluation

    challenge, truth = bench(tmp_path)
    script = tmp_path / "mine.py"
    script.write_text("raise SystemExit(1)")
    report, database = tmp_path / "report.json", tmp_path / "rows.db"
    evaluation.evaluate(str(script), challenge, truth, "Team A", database=database, report=report)
    said = capsys.readouterr().out
    assert '"failed"' in said and "E_EXIT" in said and '"score": 0.0' in said
    assert report.stat().st_mode & 0o777 == 0o600
    with Store(database) as store:
        assert store.count() == 1
        for _ in range(judge.PER_DAY - 1):
            store.add(store.rows(version="1")[0])
    with pytest.raises(ValueError, match="at most 5 a day"):
        evaluation.evaluate(str(script), challenge, truth, "Team A", database=database)


def test_example_and_template_are_shipped():
    place = layout.package() / "benchmark" / "solver"
    for name, words in (("solve.py", "--input"), ("Dockerfile", "ENTRYPOINT"), ("README.md", "E_NO_SANDBOX")):
        assert words in (place / name).read_text(encoding="utf-8")
    assert shutil.which("python3") is None or compile((place / "solve.py").read_text(), "solve.py", "exec")


def test_refusal_is_one_line_of_the_program(no_tools, tmp_path, capsys):
    """Through `main` when the command is registered there."""
    challenge, _ = bench(tmp_path)
    (tmp_path / "solve.py").write_text("pass")
    code = main(["benchmark", "evaluate", str(tmp_path / "solve.py"), "--challenge", str(challenge)])
    said = capsys.readouterr().err
    assert code == 2
    if "No such command" not in said:
        assert said.startswith("diffphys: error: E_NO_SANDBOX")
