"""Fixed configurations to predict, one per row of a CSV file (``planner estimate --from``)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from planner.errors import InputError, PlannerError
from planner.job.speculating import Speculating, parse_speculating
from planner.job.tuning import Tuning

REQUIRED = ("model", "gpu", "isl", "osl", "concurrency")
OUTPUT = (
    "id",
    "status",
    "reason",
    "ttft_ms",
    "tpot_ms",
    "output_tok_s_per_gpu",
    "e2e_latency_ms",
    "memory_gib_per_gpu",
)


_AS_IS = Tuning()


@dataclass(frozen=True, slots=True)
class PoolPoint:
    """Workers of one role and the layout of each."""

    workers: int = 1
    tp: int = 1
    pp: int = 1
    attention_dp: int = 1
    ep: int = 1
    cp: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of all workers."""
        return self.workers * self.tp * self.pp * self.attention_dp * self.cp


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration under one load. Lengths are means in tokens; ``concurrency`` is over the whole deployment.

    ``problem`` is set instead of raising, so that one bad row does not stop the others.
    """

    id: str
    model: str = ""
    gpu: str = ""
    weights: str = ""
    kv: str = ""
    engine: str = ""
    engine_version: str = ""
    date: str = ""
    mode: str = "aggregated"
    concurrency: float = 1.0
    isl: float = 1.0
    osl: float = 1.0
    pool: PoolPoint = PoolPoint()
    prefill: PoolPoint | None = None
    decode: PoolPoint | None = None
    statistic: str = "mean"
    speculate: Speculating | None = None
    tuning: Tuning = _AS_IS
    extra: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


def read_points(path: Path) -> list[Point]:
    """Read every row; unknown and measured columns are ignored. Raises InputError for an unusable file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return list(parse_points(stream, path.name))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{path}: cannot read points: {problem}", hint="a CSV file with a header row") from None


def parse_points(lines: Iterable[str], where: str) -> Iterator[Point]:
    """Turn CSV lines into points, in order."""
    reader = csv.DictReader(lines)
    missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{where}: no column {', '.join(missing)}", hint=f"needed: {', '.join(REQUIRED)}")
    for number, row in enumerate(reader, start=2):
        yield parse_row(
            {k: (v or "").strip() for k, v in row.items() if isinstance(k, str) and not isinstance(v, list)},
            number,
        )


def parse_row(row: Mapping[str, str], line: int) -> Point:
    """A point from the columns of a row; ``problem`` says what is wrong with it."""
    name = row.get("id") or f"line {line}"
    mode = row.get("mode") or "aggregated"
    try:
        return Point(
            id=name,
            model=row["model"],
            gpu=row["gpu"],
            weights=row.get("weights", "").lower(),
            kv=row.get("kv", "").lower(),
            engine=row.get("engine", "").lower(),
            engine_version=row.get("engine_version", ""),
            date=row.get("measured", ""),
            mode=mode,
            concurrency=_number(row, "concurrency"),
            isl=_number(row, "isl"),
            osl=_number(row, "osl"),
            pool=_pool(row, "", "replicas"),
            prefill=_pool(row, "prefill_", "prefill_workers") if mode == "pd" else None,
            decode=_pool(row, "decode_", "decode_workers") if mode == "pd" else None,
            statistic="p50" if row.get("statistic") == "median" else "mean",
            speculate=_speculate(row),
            extra=row,
        )
    except ValueError as problem:
        return Point(id=name, problem=str(problem))


def _pool(row: Mapping[str, str], prefix: str, workers: str) -> PoolPoint:
    return PoolPoint(
        workers=_count(row, workers),
        tp=_count(row, f"{prefix}tp"),
        pp=_count(row, f"{prefix}pp"),
        attention_dp=_count(row, f"{prefix}attention_dp"),
        ep=_count(row, f"{prefix}ep"),
        cp=_count(row, f"{prefix}cp"),
    )


def _speculate(row: Mapping[str, str]) -> Speculating | None:
    """The optional columns ``speculate``, ``acceptance`` and ``draft_tokens``."""
    tokens = row.get("draft_tokens") or None
    if tokens is not None and not tokens.isdigit():
        raise ValueError(f"draft_tokens {tokens!r} is not a whole number")
    try:
        return parse_speculating(
            row.get("speculate") or None, row.get("acceptance") or None, None if tokens is None else int(tokens)
        )
    except PlannerError as problem:
        raise ValueError(str(problem)) from None


def _number(row: Mapping[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        raise ValueError(f"{column} {row[column]!r} is not a number") from None
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{column} is {row[column]!r}; it must be a finite number above zero")
    return value


def _count(row: Mapping[str, str], column: str) -> int:
    if not row.get(column):
        return 1
    value = _number(row, column)
    if value != int(value):
        raise ValueError(f"{column} {row[column]!r} is not a whole number")
    return int(value)


def write_predictions(rows: Iterable[Mapping[str, object]], stream: IO[str]) -> None:
    """Write prediction rows with the columns that scoring programs read; absent values stay empty."""
    writer = csv.DictWriter(stream, OUTPUT, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if row.get(key) is None else row[key] for key in OUTPUT})
