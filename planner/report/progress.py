"""What is going on, on stderr and only on a terminal: a line for what takes over a second, a bar for many points."""

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


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function of how many are done and how many there are, drawn as a bar with the time left."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
