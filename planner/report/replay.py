"""What a simulation saw, as a table, JSON, YAML, CSV or Markdown, and its time line as a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.report.emit import check_writable, emit, write_whole
from planner.report.formats import record_text, rows_text
from planner.simulation.replay import Replayed
from planner.simulation.timeline import timeline_text

_METRICS = (("TTFT", "ttft_ms"), ("TPOT", "tpot_ms"), ("between tokens", "itl_ms"), ("end to end", "e2e_ms"))


def check_timeline(path: Path | None) -> None:
    """Refuse a time line file that cannot be written, before anything is simulated. Raises InputError."""
    if path is None:
        return
    if path.suffix.lower() not in (".csv", ".json"):
        raise InputError(
            f"--timeline {path}: cannot write {path.suffix or 'a file without suffix'}", hint=".csv or .json"
        )
    check_writable(path, "--timeline")


def show_requests(show: Callable[[str], None]) -> Callable[[int, int, float], None]:
    """Turn the simulation's progress into a line."""

    def line(finished: int, submitted: int, clock: float) -> None:
        show(f"{finished:,} of {submitted:,} requests finished, {clock:,.0f} s simulated")

    return line


def emit_replay(done: Replayed, output: str, out: Sequence[Path] | None, timeline: Path | None) -> None:
    """Print and save a finished simulation. What was read wrong or cut short is said on stderr."""
    record = done.record()
    if timeline is not None:
        write_whole(timeline, timeline_text(done.run.timeline, timeline.suffix.lower()), "--timeline")

    def render(form: str) -> str:
        return record_text(record, form) if form in ("json", "yaml") else _text(record, form)

    emit(render, output, out)
    if done.dropped:
        sys.stderr.write(f"warning: {done.dropped}\n")
    if done.run.interrupted:
        sys.stderr.write("interrupted: the numbers are of the requests that had finished\n")


def _text(record: dict[str, Any], form: str) -> str:
    seen = record["simulated"]
    rows = [{"ms": name, **seen[key]} for name, key in _METRICS]
    if form == "csv":
        return rows_text(rows, form)
    lines = [rows_text(rows, form).strip("\n"), "", f"{record['verdict']}."]
    lines.append(
        f"{record['requests']:,} of {record['submitted']:,} requests finished"
        + (f", {record['refused']:,} refused as longer than the KV cache" if record["refused"] else "")
        + f"; {_shown(seen['output_tok_s'])} tok/s, {_shown(seen['request_rate'])} requests/s."
    )
    lines.append(
        f"Busy {_share(record['utilisation'])}, mean batch {_shown(record['mean_batch'])}, KV cache "
        f"{_share(record['kv_occupancy'])} full, {record['preemptions']:,} preemptions, "
        f"{_share(record['prefix_hit'])} of prompt tokens found in the prefix cache."
    )
    if record["slo_attainment"] is not None:
        lines.append(
            f"{_share(record['slo_attainment'])} of the requests keep all limits: "
            f"goodput {_shown(record['goodput_rps'])} requests/s."
        )
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
