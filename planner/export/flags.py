"""The flags that exports emit, pinned by engine version: ``flags/<engine>.toml``, our own distilled tables."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from planner.errors import PlannerError
from planner.export.names import one_line

ENGINES = ("vllm", "sglang", "trtllm")
_FOLDER = Path(__file__).parent / "flags"


@dataclass(frozen=True, slots=True)
class Variable:
    """A value that is known only where the engine starts: ``HEAD``, ``NODE_RANK``, ``PORT``, ``POD_IP`` ...

    ``text`` may hold more around the name, which stands in braces: ``{HEAD}:5000``.
    """

    text: str


Value = str | int | float | Variable | None


@dataclass(frozen=True, slots=True)
class Flag:
    """One option of an engine; ``value`` is None for a switch."""

    name: str
    value: Value = None

    def words(self) -> list[str | Variable]:
        """Return the option as separate words of a command line."""
        if self.value is None:
            return [self.name]
        return [self.name, self.value if isinstance(self.value, Variable) else str(self.value)]


@dataclass(frozen=True, slots=True)
class FlagTable:
    """The flags of one engine version. ``types`` maps a flag to int, float, text, json, switch or its choices,
    ``images`` the vendor of a GPU to the container that holds the engine; ``own`` are those not inherited.
    """

    engine: str
    version: str
    images: Mapping[str, str]
    command: tuple[str, ...]
    positional: int
    types: Mapping[str, str | tuple[str, ...]]
    own: frozenset[str]
    underscores: bool


@cache
def flag_table(engine: str) -> FlagTable:
    """Return the table of an engine or of a wrapper (``dynamo-vllm`` ...)."""
    try:
        data = tomllib.loads((_FOLDER / f"{engine}.toml").read_text(encoding="utf-8"))
    except OSError:
        raise PlannerError(f"the installation lacks its flags of {engine}", hint="install planner again") from None
    base = flag_table(data["over"]) if "over" in data else None
    listed = {**data["flags"], **data.get("accepted", {})}
    own = {name: tuple(kind) if isinstance(kind, list) else str(kind) for name, kind in listed.items()}
    front = {name: str(kind) for name, kind in data.get("front_end", {}).items()}
    return FlagTable(
        engine, data["version"], _images(data), tuple(data["command"]), int(data["positional"]),
        {**(base.types if base else {}), **own, **front}, frozenset(own),
        bool(data.get("underscores", base is not None and base.underscores)),
    )  # fmt: skip


def _images(data: Mapping[str, Any]) -> dict[str, str]:
    return {vendor: str(image) for vendor, image in data.get("images", {}).items() if vendor != "source"}


def problems(engine: str, words: Sequence[str | Variable]) -> Iterator[str]:
    """Name every word of a command line that the pinned version of the engine would not take.

    Parameters
    ----------
    words : the command line after the command itself, positional arguments first.
    """
    table = flag_table(engine)
    where = f"{engine} {table.version}"
    rest = list(words)
    for position in range(table.positional):
        if not rest or (isinstance(rest[0], str) and rest[0].startswith("-")):
            yield f"{where}: positional argument {position + 1} is missing"
        else:
            rest.pop(0)
    seen: set[str] = set()
    while rest:
        name = rest.pop(0)
        if table.underscores and isinstance(name, str):
            name = name.replace("_", "-")
        if not isinstance(name, str) or name not in table.types:
            yield f"{where}: no flag {one_line(str(name))[:60]!r}"
            continue
        if name in seen:
            yield f"{where}: {name} given twice"
        seen.add(name)
        if table.types[name] == "switch":
            continue
        if not rest or (isinstance(rest[0], str) and rest[0].startswith("--")):
            yield f"{where}: {name} has no value"
            continue
        value = rest.pop(0)
        if isinstance(value, str) and not _fits(value, table.types[name]):
            yield f"{where}: {name} takes {_kind(table.types[name])}, not {one_line(value)[:60]!r}"


def _fits(value: str, kind: str | tuple[str, ...]) -> bool:
    if isinstance(kind, tuple):
        return value in kind
    try:
        match kind:
            case "int":
                int(value)
            case "float":
                return math.isfinite(float(value))
            case "json":
                return isinstance(json.loads(value), dict)
    except ValueError:
        return False
    return True


def _kind(kind: str | tuple[str, ...]) -> str:
    return f"one of {', '.join(kind)}" if isinstance(kind, tuple) else kind
