"""Fleets side by side: table, JSON, YAML, CSV or Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planner.comparison import Comparison, Entry
from planner.job.comparing import ComparisonRequest
from planner.plan import Pool, significant
from planner.report.emit import emit
from planner.report.formats import record_text, rows_text
from planner.report.plans import draft_text, latency, pool_text

# Columns that say something of a fleet and nothing of one of the jobs on it.
_OF_FLEETS = ("fleet", "optimum")
# Notes of the winner to print; a trace may have hundreds of classes.
_NOTES = 12


def emit_comparison(found: Comparison, asked: ComparisonRequest, output: str, out: Sequence[Path] | None) -> int:
    """Print and save a comparison; give the exit code: 1 when no given fleet can do the job."""
    percentile = asked.job.slo.percentile

    def render(form: str) -> str:
        match form:
            case "json" | "yaml":
                return record_text(record(found), form)
            case "csv":
                return rows_text([_row(entry, percentile) for entry in found.entries], form)
            case "md":
                tables = [rows_text([_row(entry, percentile) for entry in found.entries], "md")]
                return "\n".join([*tables, *_by_job(found, asked, percentile, "md")])
            case _:
                return _text(found, asked, percentile)

    emit(render, output, out)
    for warning in found.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    if found.winner:
        return 0
    sys.stderr.write("error: no fleet can serve the job\n")
    return 1


def record(found: Comparison) -> dict[str, Any]:
    """The stable JSON of ``planner compare``."""
    return {
        "fleets": [
            {
                "fleet": entry.fleet,
                "given": entry.given,
                "plan": None if entry.plan is None else entry.plan.model_dump(mode="json"),
                "reason": entry.reason,
                "left_out": list(entry.left_out),
                "jobs": [{"job": name, "plan": plan.model_dump(mode="json")} for name, plan in entry.shares],
            }
            for entry in found.entries
        ],
        "marginal_value": [
            {
                "gpu": m.gpu,
                "usd_per_hour": significant(m.usd_per_hour),
                "output_tok_s": significant(m.output_rate),
            }
            for m in found.marginal
        ],
        "winner": found.winner,
        "why": found.why,
        "scope": found.scope,
        "bucketing": found.bucketing,
        "warnings": list(found.warnings),
    }


def _row(entry: Entry, percentile: str) -> dict[str, Any]:
    plan = entry.plan
    if plan is None:
        return dict.fromkeys(_columns(percentile)) | {"fleet": entry.fleet, "replicas": entry.reason}
    perf, proof = plan.predicted, plan.certificate
    values = (
        entry.fleet,
        " + ".join(f"{count} {gpu}" for gpu, count in plan.gpus.items()),
        ", ".join(_pool(p) for p in plan.pools),
        _tidy(perf.output_tok_s),
        _tidy(perf.request_rate),
        # Jobs have limits of their own: their latencies stand in a table by job.
        None if entry.shares else _tidy(latency(perf, "ttft_ms", percentile)),
        None if entry.shares else _tidy(latency(perf, "tpot_ms", percentile)),
        plan.cost_usd_per_hour if plan.cost_usd_per_hour is None else round(plan.cost_usd_per_hour, 2),
        _tidy(plan.usd_per_million_output_tokens),
        ("proved" if proof.status == "optimal" else f"gap {proof.gap:.2%}")
        + (f" but for {len(entry.left_out)} units" if entry.left_out else ""),
    )
    return dict(zip(_columns(percentile), values, strict=True))


def _pool(pool: Pool) -> str:
    drafts = draft_text(pool)
    return (
        f"{pool_text(pool)} {pool.weights}" + ("" if drafts is None else f" {drafts}")
        + ("" if pool.stages else f" on {pool.gpu}")
    )  # fmt: skip


def _columns(percentile: str) -> tuple[str, ...]:
    return (
        "fleet", "GPUs", "replicas", "tok/s", "req/s", f"TTFT {percentile} ms", f"TPOT {percentile} ms", "$/h",
        "$/M tok", "optimum",
    )  # fmt: skip


def _text(found: Comparison, asked: ComparisonRequest, percentile: str) -> str:
    lines = [rows_text([_row(entry, percentile) for entry in found.entries], "table").rstrip("\n"), ""]
    if found.winner:
        lines.append(found.why)
    lines += _by_job(found, asked, percentile)
    lines += _shares(found)
    if found.marginal:
        rows = [
            {
                "one more": m.gpu,
                "saves $/h": _tidy(m.usd_per_hour) if asked.job.workload.rate is not None else None,
                "adds tok/s": _tidy(m.output_rate),
            }
            for m in found.marginal
        ]
        lines += ["", "What one more GPU is worth beside all the others (exact re-solve)"]
        lines.append(rows_text(rows, "table").strip("\n"))
    lines += ["", found.scope]
    if found.bucketing:
        lines += ["", found.bucketing]
    return "\n".join(lines) + "\n"


def _by_job(found: Comparison, asked: ComparisonRequest, percentile: str, form: str = "table") -> list[str]:
    """What the winner does for each job, where several models share the fleet."""
    models = {job.name: job.job.model for job in asked.jobs}
    rows = []
    for name, plan in (share for e in found.entries if e.fleet == found.winner for share in e.shares):
        row = _row(Entry(name, plan, None), percentile)
        rows.append({"job": name, "model": models[name]} | {k: v for k, v in row.items() if k not in _OF_FLEETS})
    return ["", f"Each model on {found.winner}", rows_text(rows, form).strip("\n")] if rows else []


def _shares(found: Comparison) -> list[str]:
    """Which offers the winner rents, what its pods are and who serves which class."""
    notes = [note for e in found.entries if e.fleet == found.winner and e.plan is not None for note in e.plan.notes]
    more = [f"  and {len(notes) - _NOTES} more lines; -o json has all"] if len(notes) > _NOTES else []
    return ["", f"{found.winner}:", *(f"  {note}" for note in notes[:_NOTES]), *more] if notes else []


def _tidy(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
