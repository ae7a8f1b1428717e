"""Reading one entry of a catalog file: typed values, SI units, and errors that name file, entry and key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from planner.errors import InputError

USER_SOURCE: Final = "user's catalog"  # what stands for the source that a user's entry need not give


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value that a file may write in one of several units.

    Attributes
    ----------
    units : factor to SI by key, for example ``{"memory_gib": 2**30}``.
    low, high : plausible range in SI; outside it the unit is wrong.
    """

    units: Mapping[str, float]
    low: float
    high: float


class Entry:
    """One table of a catalog file.

    Parameters
    ----------
    where : file and entry, as messages name them.
    table : the parsed TOML table.
    """

    def __init__(self, where: str, table: Any) -> None:
        self.where = where
        if not isinstance(table, dict):
            raise InputError(f"{where}: must be a table of keys and values")
        self.table: dict[str, Any] = table

    def fail(self, key: str, problem: str, hint: str | None = None) -> InputError:
        """Return the error that says what is wrong with ``key``."""
        return InputError(f"{self.where}: {key}: {problem}", hint=hint)

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Raise InputError on the first key that is not in ``known``; a typo must not become a default."""
        names = set(known)
        for key in self.table:
            if key not in names:
                near = difflib.get_close_matches(key[:80], names, n=3, cutoff=0.6)
                hint = f"did you mean {' or '.join(near)}? (the unit is part of the key)" if near else None
                raise self.fail(key[:80], "unknown key", hint)

    def number(self, key: str, low: float, high: float) -> float:
        """Return the number at ``key``, within [low, high]."""
        value = self.table[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"{_show(value)} is not a number")
        if not math.isfinite(value) or not low <= value <= high:
            problem = f"{value} must lie between {low:g} and {high:g}"
            raise self.fail(key, problem, "check the unit, which is part of the key")
        return float(value)

    def quantity(self, quantity: Quantity, default: float | None = None) -> float:
        """Return a value in SI, whichever of its units the file used."""
        given = [key for key in quantity.units if key in self.table]
        if len(given) > 1:
            raise self.fail(given[1], f"given twice, also as {given[0]}")
        if not given:
            if default is not None:
                return default
            raise InputError(f"{self.where}: missing {' or '.join(quantity.units)}")
        factor = quantity.units[given[0]]
        return self.number(given[0], quantity.low / factor, quantity.high / factor) * factor

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Return the whole number at ``key``, within [low, high]."""
        if key not in self.table and default is not None:
            return default
        self.require(key)
        value = self.number(key, low, high)
        if value != round(value):
            raise self.fail(key, f"{value} is not a whole number")
        return round(value)

    def text(self, key: str, default: str | None = None) -> str:
        """Return the text at ``key``; empty text counts as missing unless the default is empty too."""
        if key not in self.table and default is not None:
            return default
        self.require(key)
        value = self.table[key]
        if not isinstance(value, str) or (not value.strip() and default != ""):
            raise self.fail(key, f"{_show(value)} is not text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the list of texts at ``key``; empty when absent."""
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            raise self.fail(key, 'must be a list of texts, ["like", "this"]')
        return tuple(value)

    def flag(self, key: str) -> bool:
        """Return the true or false at ``key``; false when absent."""
        value = self.table.get(key, False)
        if not isinstance(value, bool):
            raise self.fail(key, f"{_show(value)} is neither true nor false")
        return value

    def entry(self, key: str, default: Mapping[str, Any] | None = None) -> Entry:
        """Return the table at ``key`` as an entry; ``default`` (or an empty one) when absent."""
        return Entry(f"{self.where}: {key}", self.table.get(key, dict(default or {})))

    def require(self, key: str) -> None:
        """Raise InputError when ``key`` is missing."""
        if key not in self.table:
            raise InputError(f"{self.where}: missing {key}")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
