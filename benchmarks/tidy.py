"""Refuse files over 16 MiB and texts that name a path of one person's computer: python benchmarks/tidy.py FILE...

The hook of .pre-commit-config.yaml; without files it looks at everything that git tracks.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LARGEST = 16 * 2**20
# A home directory or a workplace, where the root of a path begins; placeholders such as /home/USER are for readers.
PRIVATE = re.compile(rb"(?<![\w.~/}])/(?:home|Users|root|work)/(?!\.|USER\b|NAME\b|you\b)[\w.-]+")


def faults(paths: list[Path]) -> Iterator[str]:
    """One line for each file that is too large and for each private path."""
    for path in paths:
        if path.stat().st_size > LARGEST:
            yield f"{path}: {path.stat().st_size / 2**20:.0f} MiB, at most {LARGEST // 2**20}; keep large data out of git"
            continue
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue
        for number, line in enumerate(content.splitlines(), 1):
            if found := PRIVATE.search(line):
                yield f"{path}:{number}: {found[0].decode(errors='replace')} is a path of one computer; write it relative"


def main() -> int:
    given = sys.argv[1:] or subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    lines = list(faults([path for path in map(Path, given) if path.is_file()]))
    print("\n".join(lines), end="\n" if lines else "")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
