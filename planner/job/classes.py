"""Request classes: a workload that is a mix of lengths, from a file or a recorded trace."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.job.documents import as_number, as_text, read_document, shown
from planner.job.traces import Trace
from planner.units import PerSecond

_MAX_CLASSES = 200
_MAX_TOKENS = 100_000_000
_MAX_RATE = 1e12


@dataclass(frozen=True, slots=True)
class WorkloadClass:
    """Requests of about the same lengths.

    Attributes
    ----------
    isl, osl : mean tokens. ``low`` and ``high`` are the corners of the bucket (isl, osl), equal to the means where the
        class was given and not counted.
    rate : requests/s, or a share of the mix where only proportions are known.
    """

    name: str
    isl: float
    osl: float
    rate: PerSecond
    low: tuple[float, float]
    high: tuple[float, float]


def single_class(isl: float, osl: float, rate: PerSecond | None) -> tuple[WorkloadClass, ...]:
    """A workload of one kind of request."""
    return (WorkloadClass("all", isl, osl, rate or 1.0, (isl, osl), (isl, osl)),)


def read_classes(path: Path) -> tuple[WorkloadClass, ...]:
    """Read ``classes: [{name, isl, osl, rate}, ...]`` from YAML or JSON. Raises InputError naming entry and key."""
    data = read_document(path, f"--workload {path}")
    rows = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"--workload {path}: no classes", hint="classes: [{isl: 1000, osl: 200, rate: 5}]")
    if len(rows) > _MAX_CLASSES:
        raise InputError(f"--workload {path}: {len(rows)} classes; at most {_MAX_CLASSES}")
    found = tuple(_class(row, index, path) for index, row in enumerate(rows, start=1))
    if len({c.name for c in found}) < len(found):
        raise InputError(f"--workload {path}: two classes have the same name")
    return found


def _class(row: Any, index: int, path: Path) -> WorkloadClass:
    where = f"--workload {path}: class {index}"
    if not isinstance(row, dict):
        raise InputError(f"{where} is not a mapping", hint="{isl: 1000, osl: 200, rate: 5}")
    unknown = set(row) - {"name", "isl", "osl", "rate"}
    if unknown:
        raise InputError(f"{where}: unknown key {sorted(map(shown, unknown))[0]}", hint="name, isl, osl, rate")
    point = (_tokens(row.get("isl"), f"{where}: isl"), _tokens(row.get("osl"), f"{where}: osl"))
    rate = as_number(row.get("rate"))
    if not 0 < rate <= _MAX_RATE:
        raise InputError(f"{where}: rate is {shown(row.get('rate'))}; it must be a number above zero")
    name = f"class {index}" if row.get("name") is None else as_text(row["name"], f"{where}: name")
    return WorkloadClass(name, *point, rate, point, point)


def _tokens(value: Any, where: str) -> float:
    tokens = as_number(value)
    if not 1 <= tokens <= _MAX_TOKENS:
        raise InputError(f"{where} is {shown(value)}; it must be a number from 1 to {_MAX_TOKENS:,}")
    return tokens


def classes_of_trace(path: Path, buckets_per_octave: float = 1.0) -> tuple[WorkloadClass, ...]:
    """Count a recorded trace into classes whose lengths differ by at most ``2**(1/buckets_per_octave)`` each way.

    Each class has the mean lengths of its own requests, so that no token is lost; rates are those of the recording.
    Raises InputError for an unusable trace.
    """
    trace = Trace(path)
    cells: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    first = last = None
    for arrival, prompt, output, _ in trace:
        first, last = (arrival if first is None else first), arrival
        cell = cells[_bucket(prompt, buckets_per_octave), _bucket(output, buckets_per_octave)]
        cell[0] += 1
        cell[1] += prompt
        cell[2] += output
    span = (last or 0.0) - (first or 0.0)
    if span <= 0:
        raise InputError(f"trace {path.name}: all requests arrive at one moment, so it has no rate")
    return tuple(_counted(cells, span, buckets_per_octave))


def _counted(cells: dict[tuple[int, int], list[float]], span: float, per_octave: float) -> Iterable[WorkloadClass]:
    for (i, j), (count, prompts, outputs) in sorted(cells.items()):
        low = (2 ** (i / per_octave), 2 ** (j / per_octave))
        high = (2 ** ((i + 1) / per_octave), 2 ** ((j + 1) / per_octave))
        yield WorkloadClass(f"{low[0]:.5g}+{low[1]:.5g}", prompts / count, outputs / count, count / span, low, high)


def _bucket(tokens: int, per_octave: float) -> int:
    return math.floor(math.log2(max(tokens, 1)) * per_octave)
