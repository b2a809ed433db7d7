"""What `import diffphys` costs beside `import jax`: new interpreters in turn, wall and CPU minimum of N.

python benchmarks/import_time.py --rounds 15

Byte code is kept in a folder of its own and written by a first round that is not counted, as after any installation. The
minimum is what the work needs; the turns see the same neighbours. Goal: at most 1.2 times jax.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import environment, write

RESULT = Path(__file__).parent / "results" / "import_time.json"
STATEMENTS = ("import jax", "import diffphys")


def cost(statement: str, cache: str) -> tuple[float, float]:
    """Wall and CPU seconds of one new interpreter that runs a statement."""
    settings = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": cache}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=settings)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    found: dict[str, list[tuple[float, float]]] = {statement: [] for statement in STATEMENTS}
    with tempfile.TemporaryDirectory() as cache:
        for counted in [False] + rounds * [True]:
            for statement in STATEMENTS:
                took = cost(statement, cache)
                if counted:
                    found[statement].append(took)
    table = {s: {"wall_min_s": min(w for w, _ in t), "cpu_min_s": min(c for _, c in t)} for s, t in found.items()}
    ratio = {kind: table["import diffphys"][kind] / table["import jax"][kind] for kind in ("wall_min_s", "cpu_min_s")}
    write(RESULT, {"rounds": rounds, "table": table, "ratio": ratio, "environment": environment()})
    for statement, row in table.items():
        print(f"{statement:16} wall {row['wall_min_s']:.3f} s, CPU {row['cpu_min_s']:.3f} s")
    print(f"ratio            wall {ratio['wall_min_s']:.3f}, CPU {ratio['cpu_min_s']:.3f}")


if __name__ == "__main__":
    main()
