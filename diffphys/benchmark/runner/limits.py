"""What one job may use."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits of one job, one sample.

    Attributes:
        wall_s: seconds from start to end.
        cpu_s: processor seconds of all processes together.
        memory: bytes resident, all processes together; one process may reserve twice as much address space. In bubblewrap the
            sum is watched every 10 ms, so many processes at once can pass it for that long (measured: by 60 MiB).
        processes: processes and threads; jax needs 64 on a few cores.
        output: bytes of the output folder, and of any single file.
        scratch: bytes of /tmp.
        shared: bytes of /dev/shm.
        files: files and folders in each of these three.
        log: bytes of stdout and stderr that are kept.
    """

    wall_s: float = 900.0
    cpu_s: float = 1800.0
    memory: int = 4096 * MIB
    processes: int = 128
    output: int = 64 * MIB
    scratch: int = 256 * MIB
    shared: int = 64 * MIB
    files: int = 2000
    log: int = 64 * 1024

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"limit {name} is {value}; expected a positive number")

    def prlimit(self) -> list[str]:
        """Command prefix that sets the limits of each process; the watch adds the sums over processes."""
        return [
            "prlimit",
            f"--cpu={int(self.cpu_s) + 1}",
            f"--as={2 * self.memory}",
            f"--nproc={self.processes}",
            f"--fsize={max(self.output, self.scratch)}",
            "--core=0",
            "--nofile=256",
            "--memlock=0",
            "--msgqueue=0",
            "--",
        ]
