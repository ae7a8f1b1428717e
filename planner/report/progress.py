"""One transient progress line on stderr, only on a terminal and only when something takes over a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PATIENCE = 1.0


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is going on; the line is wiped at the end."""
    started, shown = time.monotonic(), False
    terminal = sys.stderr.isatty()

    def show(message: str) -> None:
        nonlocal shown
        if terminal and time.monotonic() - started > _PATIENCE:
            sys.stderr.write(f"\r\x1b[2K{message[:100]} ({time.monotonic() - started:.0f} s)")
            sys.stderr.flush()
            shown = True

    try:
        yield show
    finally:
        if shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
