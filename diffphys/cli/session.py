"""What every command shares: messages, compilation cache, progress bar, stopping by Ctrl-C, wall times."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from diffphys.cache import folder


class Interrupted(Exception):
    """Ctrl-C; the message says what was kept."""


def say(kind: str, line: str) -> None:
    """One line on stderr: `diffphys: error: ...`."""
    print(f"diffphys: {kind}: {line}", file=sys.stderr, flush=True)


def warn(lines: Iterable[str]) -> None:
    for line in dict.fromkeys(lines):  # once each
        say("warning", line)


def use_cache() -> None:
    """Keep compiled programs between runs (DIFFPHYS_CACHE=off: do not; a folder: there), and leave GPU memory to others.

    Only the programs (command line, napari widget) do this; the library never changes jax's settings. Must run before jax
    computes anything.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    chosen = os.environ.get("DIFFPHYS_CACHE", "")
    if chosen.lower() in ("off", "0", "no") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    jax.config.update("jax_compilation_cache_dir", str(chosen or folder("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


class Clock:
    """Wall time of each named stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        heed()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


@contextmanager
def progress(title: str) -> Iterator[Callable[[float, str], None]]:
    """A bar on stderr, absent when that is no terminal; call it with (fraction done, text)."""
    from tqdm import tqdm

    with tqdm(
        total=100, desc=title, disable=None, leave=False, bar_format="{desc}: {percentage:3.0f}% |{bar}| {postfix}"
    ) as bar:

        def update(fraction: float, text: str = "") -> None:
            heed()
            bar.update(max(0.0, 100 * min(fraction, 1.0) - bar.n))
            bar.set_postfix_str(text)

        yield update


_swallowed = False  # a Ctrl-C came and nothing has ended for it yet


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """Within it `heed` raises a KeyboardInterrupt that was lost: Python drops one that strikes a callback of its collector.

    Python's report of the drop is dropped too: the command ends with its own one line.
    """

    def on_signal(*_: object) -> None:
        global _swallowed
        _swallowed = True
        raise KeyboardInterrupt

    global _swallowed
    _swallowed = False
    if (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    report = sys.unraisablehook

    def unless_pressed(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            report(lost)

    signal.signal(signal.SIGINT, on_signal)
    sys.unraisablehook = unless_pressed
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, signal.default_int_handler)


def heed() -> None:
    """Raise the KeyboardInterrupt that was lost since the command began, if one was."""
    global _swallowed
    if _swallowed:
        _swallowed = False
        raise KeyboardInterrupt


class StopFlag:
    """While this context lasts, the first Ctrl-C only sets `requested`; a second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> StopFlag:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
