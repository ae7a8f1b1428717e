"""Fixtures that several rooms of the tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

# Prediction is deterministic and fast; a deadline would only measure how busy the machine is.
settings.register_profile("planner", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("planner")

ROOT = Path(__file__).resolve().parents[1]


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ran]]:
    """Run the command line inside this process: ``command("search", ...)`` gives exit code, stdout and stderr."""
    import cli

    monkeypatch.delenv("COLUMNS", raising=False)  # readline sets it to 80 where there is no terminal

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["planner", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code: int | str | None = 0
        except SystemExit as end:
            code = end.code
        shown = capsys.readouterr()
        return Ran(int(code or 0), shown.out, shown.err)

    yield run


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the reference material beside the checkout, or skip where there is none."""
    folder = ROOT.parent / "shared"
    if not (folder / "measured" / "e2e_points.csv").is_file():
        pytest.skip("no reference material beside this checkout")
    return folder
