"""SI inside, units at the edge: type aliases, one parser of quantities, one formatter.

Inside the package every time is in seconds, every size in bytes, every rate in FLOP/s or bytes/s
and every price in US dollars per hour. Only the functions here turn text into such numbers.
"""

from __future__ import annotations

import math
import re
from typing import Final

from planner.errors import InputError

Seconds = float
Bytes = float
BytesPerSecond = float
Flop = float
FlopPerSecond = float
UsdPerHour = float
PerSecond = float
Watts = float

GIB: Final = float(1 << 30)
GB: Final = 1e9
MIB: Final = float(1 << 20)

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-zA-Zµ%/$]*)\s*", re.ASCII | re.IGNORECASE)

_TIME: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
}
_RATE: Final = {
    "/s": 1.0,
    "rps": 1.0,
    "req/s": 1.0,
    "/min": 1 / 60,
    "rpm": 1 / 60,
    "req/min": 1 / 60,
    "/h": 1 / 3600,
    "req/h": 1 / 3600,
}
_MONEY: Final = {"usd/h": 1.0, "$/h": 1.0, "usd/hour": 1.0, "usd/day": 1 / 24, "usd/month": 1 / 730}
_POWER: Final = {"w": 1.0, "kw": 1e3}
_COUNT: Final = {"": 1.0, "k": 1e3, "m": 1e6}


def _parse(text: str, table: dict[str, float], what: str, example: str, *, positive: bool = True) -> float:
    """Turn ``text`` into a number by the unit ``table``; refuse what is ambiguous, negative or not finite."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise InputError(f"{what}: cannot read {text!r}", hint=f"write a number with its unit, for example {example}")
    number, unit = float(match[1]), match[2].lower()
    if unit not in table:
        problem = "has no unit" if not unit else f"has the unknown unit {match[2]!r}"
        raise InputError(f"{what}: {text!r} {problem}", hint=f"for example {example}")
    value = number * table[unit]
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise InputError(
            f"{what}: {text!r} must be {'above' if positive else 'at least'} zero",
            hint=f"for example {example}",
        )
    return value


def parse_duration(text: str, what: str = "duration") -> Seconds:
    """Read a duration such as ``500ms``, ``1.5s`` or ``2min`` in seconds. Raises InputError."""
    return _parse(text, _TIME, what, "500ms or 1.5s")


def parse_rate(text: str, what: str = "rate") -> PerSecond:
    """Read a request rate such as ``20/s`` or ``600/min`` in requests per second. Raises InputError."""
    return _parse(text, _RATE, what, "20/s or 600/min")


def parse_money(text: str, what: str = "budget") -> UsdPerHour:
    """Read a price such as ``40usd/h`` in US dollars per hour. Raises InputError."""
    return _parse(text, _MONEY, what, "40usd/h")


def parse_power(text: str, what: str = "power") -> Watts:
    """Read a power such as ``700W`` or ``20kW`` in watts. Raises InputError."""
    return _parse(text, _POWER, what, "20kW")


def parse_tokens(text: str, what: str = "tokens") -> int:
    """Read a token count such as ``4000``, ``4k`` (4,000) or ``1m``. Raises InputError."""
    value = _parse(text, _COUNT, what, "4000 or 4k")
    if value != round(value):
        raise InputError(f"{what}: {text!r} is not a whole number of tokens", hint="for example 4000 or 4k")
    return round(value)


def parse_fraction(text: str, what: str = "fraction") -> float:
    """Read a share such as ``0.3`` or ``30%`` in [0, 1]. Raises InputError."""
    value = _parse(text, {"": 1.0, "%": 0.01}, what, "0.3 or 30%", positive=False)
    if value > 1:
        raise InputError(f"{what}: {text!r} is above 1", hint="for example 0.3 or 30%")
    return value


def format_duration(seconds: Seconds) -> str:
    """Show a duration with three significant digits in the unit that reads best: ``38.2 ms``, ``1.53 s``."""
    if not math.isfinite(seconds):
        return "inf"
    magnitude = abs(seconds)
    for limit, factor, unit in (
        (1e-3, 1e6, "us"),
        (1.0, 1e3, "ms"),
        (120.0, 1.0, "s"),
        (7200.0, 1 / 60, "min"),
    ):
        if magnitude < limit:
            return f"{_three(seconds * factor)} {unit}"
    return f"{_three(seconds / 3600)} h"


def format_bytes(size: Bytes) -> str:
    """Show a size in binary units: ``79.6 GiB``, ``512 KiB``."""
    for factor, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if abs(size) >= factor:
            return f"{_three(size / factor)} {unit}"
    return f"{size:.0f} B"


def format_count(value: float) -> str:
    """Show a count with thousands separators, or three significant digits below 100."""
    return f"{value:,.0f}" if abs(value) >= 100 else _three(value)


def _three(value: float) -> str:
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
