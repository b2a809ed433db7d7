"""Volumes over a real sshd and under a real single-node Slurm, both started here; skipped where their programs are absent.

Debian: apt-get install slurm-wlm munge openssh-server. Every file, socket and port is the test's own; nothing of the system is
changed. A daemon that does not start is a skip with its last words.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from scipy import ndimage
from test_volumes import OPTICS, Silent, write_volume

import diffphys
from diffphys.io import omezarr, optics_file
from diffphys.scale import cluster, job, slurm, ssh, volume

SHAPE, TILE, TILES = (24, 32, 32), (6, 16, 32), 8
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
START = 40.0  # seconds that a daemon may take
LIMIT = 240  # seconds of a test, on a machine that has much else to do


class Daemons:
    """Processes of this test, their logs and their end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, []

    def start(self, name, *arguments, env=None):
        with (self.folder / f"{name}.log").open("w") as log:
            child = subprocess.Popen(
                [program(name), *map(str, arguments)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=env,
                start_new_session=True,
            )
        self.running.append(child)
        return child

    def await_(self, name, ready):
        """Until `ready()`; a skip with the last line of the log when the daemon ends before or takes too long."""
        end = time.monotonic() + START
        while not ready():
            if self.running[-1].poll() is not None or time.monotonic() > end:
                lines = (self.folder / f"{name}.log").read_text(errors="replace").split("\n")
                pytest.skip(f"{name} does not start here: {next((x for x in reversed(lines) if x.strip()), 'it says nothing')}")
            time.sleep(0.05)

    def stop(self):
        for child in reversed(self.running):
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def program(name):
    return shutil.which(name, path=PATH)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="module", autouse=True)
def surroundings():
    """Workers import this package and are looked after often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(diffphys.__file__).parents[1]))
        patch.setattr(cluster, "ROUND", 0.5)
        yield


@pytest.fixture(autouse=True)
def bounded():
    """A test that waits for a host longer than LIMIT fails."""

    def end(*_):
        raise TimeoutError(f"not done after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Folder with a volume and the same volume restored in this process; the record of that."""
    folder, rng = tmp_path_factory.mktemp("hosts"), np.random.default_rng(0)
    light = ndimage.gaussian_filter((rng.random(SHAPE) < 0.01) * rng.random(SHAPE), (0.9, 1.2, 1.2))
    write_volume(folder / "in.zarr", rng.poisson(3 + 150 * light / light.max()))
    return folder, restored(folder, "whole.zarr")


def restored(folder, name, tell=lambda line: None, **asked):
    """The record of the volume's restoration by a hundred iterations of Richardson-Lucy."""
    request = volume.Request(
        source=folder / "in.zarr", optics=optics_file.parse(OPTICS, name="optics.yaml"), spec={"z_step": 0.0},
        options={"iterations": 100, "stopping": "fixed"}, tile=TILE, budget=8 * 2**30, **asked,
    )  # fmt: skip
    return volume.restore(request, folder / name, progress=lambda title: Silent(), tell=tell)


def planned(home, name):
    """The working folder of an output, planned as the one that is known already; returns the folder around it."""
    folder, record = home
    working = job.Folder.of(folder / name)
    with working.locked():
        job.start(working, {part: value for part, value in record.items() if part != "tiles"})
    return folder


def after_the_first_tile(folder, name, act):
    """`act()` in a thread as soon as a worker has finished a tile."""
    tiles = folder / f"{name}.part" / "tiles"

    def watch():
        if wait_for(lambda: any(tiles.glob("*.json")), 200, every=0.01):
            act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def wait_for(condition, seconds, every=0.1):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(every)
    return condition()


def processes_of_the_same_image(folder, name, record):
    """Which processes computed it; asserts that it is the one of this process, bit for bit."""
    whole, found = (omezarr.open_volume(folder / n).array[:] for n in ("whole.zarr", name))
    np.testing.assert_array_equal(found, whole)
    assert [t["task"] for t in record["tiles"]] == list(range(TILES)) and not (folder / f"{name}.part").exists()
    processes = {t["process"] for t in record["tiles"]}
    assert os.getpid() not in processes
    return processes


# Slurm


def test_ctrl_c_stays_an_interruption_where_slurm_is_used():
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
            "from diffphys.scale import slurm; slurm._library(); signal.raise_signal(signal.SIGINT)",
        ],
        capture_output=True,
        text=True,
    )
    assert told.returncode != 0 and "KeyboardInterrupt" in told.stderr


@pytest.fixture(scope="module")
def slurm_node(tmp_path_factory):
    """A Slurm of one node with two processors; SLURM_CONF leads to it."""
    absent = [n for n in ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo") if program(n) is None]
    if absent:
        pytest.skip(f"Slurm is not installed: no {', '.join(absent)}")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons need root")
    folder = tmp_path_factory.mktemp("slurm")
    daemons, settings = Daemons(folder), configuration(folder)
    (folder / "slurm.conf").write_text(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            start_slurm(daemons, folder)
            yield folder
            subprocess.run([program("scancel"), "--me"], timeout=20)
            wait_for(lambda: not queued(), 40)
        finally:
            daemons.stop()


def configuration(folder):
    """slurm.conf: no cgroups, nothing outside the folder."""
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    return f"""
ClusterName=test
SlurmctldHost={platform.node()}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
NodeName={platform.node()} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8192 State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def start_slurm(daemons, folder):
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    files = {
        "key-file": key,
        "socket": folder / "munge.sock",
        "pid-file": folder / "munge.pid",
        "seed-file": folder / "munge.seed",
    }
    daemons.start("munged", "--foreground", "--force", *(f"--{n}={p}" for n, p in files.items()))
    daemons.await_("munged", (folder / "munge.sock").exists)
    daemons.start("slurmctld", "-D")
    daemons.await_("slurmctld", lambda: said("sinfo", "-h", "-o", "%T") != "")
    daemons.start("slurmd", "-D")
    daemons.await_("slurmd", lambda: said("sinfo", "-h", "-o", "%T") == "idle")


def said(name, *arguments):
    return subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=20).stdout.strip()


def queued():
    return said("squeue", "-h", "-o", "%i").split()


def test_a_cancelled_slurm_job_is_replaced_and_the_image_is_the_same(slurm_node, home):
    folder, cancelled = planned(home, "slurm.zarr"), []

    def cancel():
        cancelled.extend(queued())
        subprocess.run([program("scancel"), *cancelled], check=True)

    thread = after_the_first_tile(folder, "slurm.zarr", cancel)
    record = restored(folder, "slurm.zarr", cluster="slurm:partition=short,time=00:10:00", workers=1)
    thread.join()
    assert len(cancelled) == 1
    assert len(processes_of_the_same_image(folder, "slurm.zarr", record)) == 2  # the cancelled one and the one in its place
    assert wait_for(lambda: not queued(), 20)  # no job outlives the command


def test_what_slurm_refuses_is_said_before_the_work(slurm_node, home):
    for asked, message in [
        ("partition=nowhere", "invalid partition"),
        ("cpus-per-task=99", "not available"),
        ("no", "has 'no'"),
    ]:
        with pytest.raises(ValueError, match=message):
            restored(home[0], "refused.zarr", cluster=f"slurm:{asked}")
    assert not (home[0] / "refused.zarr.part").exists()


def test_jobs_that_only_die_end_the_run_with_their_last_words(slurm_node, home, monkeypatch):
    import dask

    monkeypatch.setattr(slurm, "FUTILE", 2)
    folder = planned(home, "futile.zarr")
    with dask.config.set({"jobqueue.slurm.python": "/nowhere/python"}), pytest.raises(ValueError) as told:
        restored(folder, "futile.zarr", cluster="slurm")
    for words in ("2 Slurm jobs ended", "/nowhere/python: ", "No such file"):
        assert words in str(told.value)


# ssh


@pytest.fixture(scope="module")
def ssh_host(tmp_path_factory):
    """USER@HOST:PORT of an sshd that lets a throw-away key in, and its process; HOME holds that key."""
    pytest.importorskip("asyncssh", reason="asyncssh is not installed: pip install 'diffphys[cluster]'")
    if program("sshd") is None or program("ssh-keygen") is None:
        pytest.skip("OpenSSH's server is not installed: no sshd")
    folder, port = tmp_path_factory.mktemp("ssh"), free_port()
    (folder / ".ssh").mkdir(mode=0o700)
    for key in (folder / "host_key", folder / ".ssh" / "id_ed25519"):
        subprocess.run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    passed = ("PYTHONPATH", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    (folder / "sshd_config").write_text(f"""
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/.ssh/id_ed25519.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PidFile none
SetEnv {" ".join(f"{n}={os.environ[n]}" for n in passed)}
""")
    (folder / ".ssh" / "known_hosts").write_text(f"[localhost]:{port} {(folder / 'host_key.pub').read_text()}")
    daemons = Daemons(folder)
    with pytest.MonkeyPatch.context() as patch, privilege_separation():
        patch.setenv("HOME", str(folder))
        try:
            daemons.start("sshd", "-D", "-e", "-f", folder / "sshd_config")
            daemons.await_("sshd", lambda: answers(port))
            yield f"{getpass.getuser()}@localhost:{port}", daemons.running[0].pid
        finally:
            daemons.stop()


@contextlib.contextmanager
def privilege_separation():
    """The empty folder that a root's sshd insists on; the system makes it when it starts its own."""
    place = Path("/run/sshd")
    if os.geteuid() != 0 or place.is_dir():
        yield
        return
    try:
        place.mkdir(mode=0o755)
    except OSError as error:
        pytest.skip(f"sshd needs {place}: {error}")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            place.rmdir()


def test_a_killed_ssh_worker_is_replaced_and_the_image_is_the_same(ssh_host, home, monkeypatch):
    address, sshd = ssh_host
    folder, lines, killed, make = planned(home, "ssh.zarr"), [], [], cluster.make_cluster

    def murderous(*arguments, **options):
        made = make(*arguments, **options)
        workers = [p for p in psutil.Process(sshd).children(recursive=True) if "tcp://" in " ".join(p.cmdline())]
        for worker in workers:
            worker.kill()
        killed.extend(p.pid for p in workers)
        return made

    monkeypatch.setattr(cluster, "make_cluster", murderous)
    record = restored(folder, "ssh.zarr", tell=lines.append, cluster=f"ssh:{address}", workers=1)
    assert killed and lines.count("the worker on localhost ended; starting another one") == 1
    assert not processes_of_the_same_image(folder, "ssh.zarr", record) & set(killed)


def test_what_ssh_cannot_do_is_said_before_the_work(ssh_host, home, tmp_path, monkeypatch):
    folder, (address, _) = home[0], ssh_host
    port = address.rpartition(":")[2]
    cases = [
        (f"nobody-here@localhost:{port}", "Permission denied for user nobody-here"),
        (f"localhost:{free_port()}", "Connect call failed"),
        (f"{address},{address}", "--workers is 1 for 2 hosts"),
        ("a b", "has the host 'a b'"),
    ]
    for hosts, message in cases:
        with pytest.raises(ValueError, match=message):
            restored(folder, "refused.zarr", cluster=f"ssh:{hosts}")
    with pytest.raises(ValueError, match="nowhere is not there"):
        ssh.expect(f"ssh:{address}", workers=1, paths=[tmp_path / "nowhere"])
    monkeypatch.setenv("HOME", str(tmp_path))  # without known_hosts
    with pytest.raises(ValueError, match="Host key is not trusted"):
        restored(folder, "refused.zarr", cluster=f"ssh:{address}")
