"""Readers of recorded request traces: Mooncake, Azure 2023/2024, BurstGPT, Bailian/Qwen. Rows are streamed.

Columns are found by name, never by position (BurstGPT_3 inserts two). A malformed row is counted, not fatal; a
file without the needed columns is refused by the name of the first one missing.

Sources: kvcache-ai/Mooncake FAST25-release (timestamps in ms, 512 tokens per hash id); Azure/AzurePublicDataset
(LLM inference 2023, 2024); HPMLL/BurstGPT; Alibaba Bailian/Qwen traces (timestamps in s, 16 tokens per hash id).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from planner.errors import InputError


class TraceRow(NamedTuple):
    """One recorded request: arrival (s, any origin), tokens in and out, hash ids of its prompt blocks."""

    arrival: float
    prompt: int
    output: int
    hash_ids: tuple[int, ...] = ()


@dataclass
class TraceReport:
    """What reading has found so far.

    Attributes
    ----------
    rows : requests read. failed : rows of requests without an answer (0 output tokens), left out.
    malformed : rows that could not be read, left out; ``examples`` says why for the first ones.
    unordered : rows that came before their predecessor; their arrival is set to the predecessor's.
    """

    rows: int = 0
    failed: int = 0
    malformed: int = 0
    unordered: int = 0
    examples: list[str] = field(default_factory=list)

    def reject(self, line: int, why: str) -> None:
        """Count a malformed row."""
        self.malformed += 1
        if len(self.examples) < 3:
            self.examples.append(f"line {line}: {why}")

    def __str__(self) -> str:
        """One line for the user."""
        parts = [f"{self.rows:,} requests"]
        parts += [f"{self.failed:,} without output left out"] if self.failed else []
        parts += [f"{self.unordered:,} out of order"] if self.unordered else []
        parts += [f"{self.malformed:,} malformed rows left out ({'; '.join(self.examples)})"] if self.malformed else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Layout:
    """Where a format keeps what a request needs.

    Parameters
    ----------
    name : shown to the user.
    arrival, prompt, output : column names. hashes : column of hash ids, or None.
    hash_tokens : tokens per hash id; 0 without hash ids.
    clock : turns the arrival cell into seconds.
    """

    name: str
    arrival: str
    prompt: str
    output: str
    clock: Callable[[Any], float]
    hashes: str | None = None
    hash_tokens: int = 0


def _seconds(value: Any) -> float:
    return float(value)


def _milliseconds(value: Any) -> float:
    return float(value) / 1e3


def _date(value: Any) -> float:
    """Seconds of a date with up to 9 fractional digits (fromisoformat of 3.11 takes 7, but keeps 6), or of a number."""
    text = str(value).strip()
    try:
        return float(text)
    except ValueError:
        pass
    head, dot, tail = text.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    fraction = float(f"0.{tail[:digits]}") if dot and digits else 0.0
    moment = datetime.fromisoformat(head + tail[digits:])
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() + fraction


MOONCAKE: Final = Layout("Mooncake", "timestamp", "input_length", "output_length", _milliseconds, "hash_ids", 512)
BAILIAN: Final = Layout("Bailian/Qwen", "timestamp", "input_length", "output_length", _seconds, "hash_ids", 16)
AZURE: Final = Layout("Azure", "TIMESTAMP", "ContextTokens", "GeneratedTokens", _date)
BURSTGPT: Final = Layout("BurstGPT", "Timestamp", "Request tokens", "Response tokens", _seconds)


class Trace:
    """A trace file. Iterating reads it anew, row by row; ``report`` then tells what the last reading found.

    Parameters
    ----------
    path : ``.jsonl`` (Mooncake, Bailian/Qwen) or ``.csv`` (Azure, BurstGPT); the layout is found by column names.

    Raises
    ------
    InputError if the file cannot be opened or no layout fits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report = TraceReport()
        self._json, self.layout = self._recognise()

    @property
    def hash_tokens(self) -> int:
        """Tokens per hash id; 0 if the trace has none."""
        return self.layout.hash_tokens

    def __iter__(self) -> Iterator[TraceRow]:
        """Rows in the order of arrival."""
        report = self.report = TraceReport()
        latest = -math.inf
        for line, cells in self._cells():
            row = _row(self.layout, line, cells, report)
            if row is None:
                continue
            if row.arrival < latest:
                report.unordered += 1
                row = row._replace(arrival=latest)
            latest = row.arrival
            report.rows += 1
            yield row
        if not report.rows:
            raise InputError(f"trace {self.path.name}: no usable request ({report})")

    def _recognise(self) -> tuple[bool, Layout]:
        first = self._first_line()
        if first.lstrip("\ufeff \t").startswith("{"):
            try:
                names = set(json.loads(first))
            except ValueError as problem:
                raise InputError(f"trace {self.path.name}: line 1 is no JSON object ({problem})") from None
            layout = BAILIAN if names & {"chat_id", "parent_chat_id", "turn"} else MOONCAKE
            _require(self.path, layout, names)
            return True, layout
        header = next(csv.reader([first]), [])
        names = {name.strip() for name in header}
        # The layout that shares most columns names the one that is missing.
        layout = max((AZURE, BURSTGPT), key=lambda c: len(names & {c.arrival, c.prompt, c.output}))
        _require(self.path, layout, names)
        return False, layout

    def _first_line(self) -> str:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                for line in file:
                    if line.strip():
                        return line
        except (OSError, UnicodeDecodeError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else "not UTF-8 text"
            raise InputError(f"trace {self.path}: cannot be read: {reason}") from None
        raise InputError(f"trace {self.path.name}: the file is empty")

    def _cells(self) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
        """Line numbers and cells by column; None for a line that cannot be split."""
        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            if self._json:
                for number, text in enumerate(file, 1):
                    if text.strip():
                        yield number, _json_object(text)
                return
            reader = csv.DictReader((line for line in file if line.strip()), skipinitialspace=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            for cells in reader:
                yield reader.line_num, cells


def _json_object(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _require(path: Path, layout: Layout, names: set[str]) -> None:
    for column in (layout.arrival, layout.prompt, layout.output):
        if column not in names:
            raise InputError(
                f"trace {path.name}: no column {column!r}",
                hint="known layouts: Mooncake and Bailian/Qwen JSONL (timestamp, input_length, output_length), "
                "Azure CSV (TIMESTAMP, ContextTokens, GeneratedTokens), "
                "BurstGPT CSV (Timestamp, Request tokens, Response tokens)",
            )


def _row(layout: Layout, line: int, cells: Mapping[str, Any] | None, report: TraceReport) -> TraceRow | None:
    """Read one row; count it and return None if it is malformed or has no output."""
    if cells is None:
        report.reject(line, "no JSON object")
        return None
    try:
        arrival = layout.clock(cells[layout.arrival])
        prompt, output = _count(cells[layout.prompt]), _count(cells[layout.output])
        hashes = cells.get(layout.hashes) if layout.hashes else None
        ids = tuple(int(h) for h in hashes) if hashes else ()
    except (KeyError, TypeError, ValueError, OverflowError) as problem:
        report.reject(line, f"{type(problem).__name__}: {problem}"[:80])
        return None
    if not math.isfinite(arrival) or prompt < 1 or output < 0:
        report.reject(line, "a time that is not finite, an empty prompt or a negative length")
        return None
    if output == 0:
        report.failed += 1
        return None
    return TraceRow(arrival, prompt, output, ids)


def _count(value: Any) -> int:
    """Whole tokens; refuses fractions, booleans and text."""
    number = float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError(f"{value!r} is no token count")
    return int(number)
