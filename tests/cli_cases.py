"""What every command promises: one error line, JSON that any reader takes."""

from __future__ import annotations

import json
from typing import Any


def refused(ran: Any, *said: str, code: int = 2) -> None:
    """Check one error line, at most one hint line, nothing on stdout, no traceback, the exit code."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert 1 <= len(lines) <= 2, ran.err
    assert lines[0].startswith("error: ") and all(line.startswith("hint: ") for line in lines[1:])
    assert all(len(line) <= 420 and line.isprintable() for line in lines)
    for text in said:
        assert text in ran.err, ran.err


def strict_json(text: str) -> Any:
    """Parse JSON without the NaN and Infinity that Python adds to it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)
