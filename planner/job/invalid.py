"""What a pydantic model refused, in the words of this command line: which field, what it is, what it must be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from planner.errors import InputError
from planner.job.documents import shown

# By type of error; the braces are bounds that pydantic gives.
_MUST_BE = {
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "greater_than": "above {gt:g}", "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}", "less_than_equal": "at most {le:g}",
    "string_type": "text", "list_type": "a list", "tuple_type": "a list", "dict_type": "an object",
    "model_type": "an object", "literal_error": "{expected}",
}  # fmt: skip
_Path = tuple[int | str, ...]


def invalid(error: ValidationError, data: object, where: str, *, hint: str | None = None) -> InputError:
    """One line for the first field of ``data`` that is wrong, and how many more are; ``where`` names the file."""
    found: dict[_Path, list[ErrorDetails]] = {}
    for problem in error.errors(include_url=False):
        found.setdefault(_path(problem, data), []).append(problem)
    # A list whose items were refused is called too short, and of two shapes the deeper complaint is of the one meant.
    deepest = [path for path in found if not any(other != path == other[: len(path)] for other in found)]
    more = f" (and {len(deepest) - 1} more)" if len(deepest) > 1 else ""
    said = _said(found[deepest[0]])
    return InputError(f"{where}: {' '.join(filter(None, (_written(deepest[0]), said)))}{more}", hint=hint)


def invalid_option(error: ValidationError, option: str = "", *, hint: str | None = None) -> InputError:
    """One line for the first option of the command line that is wrong; by default it is called as the field is."""
    first = error.errors(include_url=False)[0]
    if not option and first["loc"] and first["type"] != "value_error":
        option = f"--{str(first['loc'][-1]).replace('_', '-')}"
    return InputError(f"{option} {_said([first])}".lstrip(), hint=hint)


def _path(problem: ErrorDetails, data: Any) -> _Path:
    """The location as keys of the data: without the names of shapes that pydantic tries where there are several."""
    path: list[int | str] = []
    for part in problem["loc"]:
        if (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int)):
            path.append(part)
            data = data[part]  # type: ignore[index]
    return (*path, problem["loc"][-1]) if problem["type"] == "missing" else tuple(path)


def _said(problems: Sequence[ErrorDetails]) -> str:
    """What is wrong with one field: several problems are the shapes that it may have."""
    first = problems[0]
    limits = first.get("ctx", {})
    match first["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is no known key"
        case "value_error":
            return first["msg"].removeprefix("Value error, ")
        case "string_too_short" | "too_short":
            return "is empty" if limits["min_length"] == 1 else f"has fewer than {limits['min_length']} entries"
        case "string_too_long" | "too_long":
            return f"is longer than {limits['max_length']}"
    must = [_MUST_BE[p["type"]].format(**p.get("ctx", {})) for p in problems if p["type"] in _MUST_BE]
    return f"is {_shown(first['input'])}; it must be {' or '.join(must)}" if must else f"is wrong: {first['msg']}"


def _shown(value: object) -> str:
    """A value as JSON and YAML write it; never the content of a list or an object."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "an object" if isinstance(value, dict) else shown(value)


def _written(path: _Path) -> str:
    """``offers[0].name``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
