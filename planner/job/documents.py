"""YAML and JSON files that a user wrote, and single values out of them: one clear line for whatever is wrong."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from planner.errors import InputError

LONGEST_TEXT = 80
_POWER_OF_TEN = re.compile(r"[+-]?\d+[eE][+-]?\d+")


def read_document(path: Path, what: str) -> Any:
    """Return the content of a YAML (or JSON) file; ``what`` names it in errors. Raises InputError."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"{what}: cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{what}: cannot be read: not UTF-8 text") from None
    except (yaml.YAMLError, ValueError, OverflowError) as problem:
        # ValueError: a date that does not exist, a number with too many digits.
        raise InputError(f"{what}: not YAML: {' '.join(str(problem).split())[:200]}") from None
    except RecursionError:
        raise InputError(f"{what}: not YAML: nested too deeply") from None


def as_number(value: Any) -> float:
    """The number that a value is, nan for anything else; a whole number beyond all floats is infinite.

    YAML takes 1e-9 for text, as it has no point; users mean a number.
    """
    if isinstance(value, str) and _POWER_OF_TEN.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def as_text(value: Any, what: str) -> str:
    """One line of text from a name, or from a number used as one. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{what} is {shown(value)}; it must be text")
    return " ".join(str(value).split())[:LONGEST_TEXT]


def shown(value: Any) -> str:
    """A value for an error line: short, and never the content of a list or mapping, which aliases can blow up."""
    if isinstance(value, list | dict | set | tuple):
        return f"a {type(value).__name__}"
    return repr(value)[:LONGEST_TEXT]
