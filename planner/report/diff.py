"""What changed between two saved searches: the plan, what it costs and does, and what was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from planner.plan import Plan, PlanFile
from planner.report.emit import emit
from planner.report.formats import rows_text
from planner.report.plans import latency, layout_text

_LESS_IS_BETTER = ("GPUs", "$/h", "$/M output tokens", "TTFT", "TPOT", "E2E")
_MORE_IS_BETTER = ("output tok/s", "output tok/s/GPU", "requests/s")


def plan_changes(old: PlanFile, new: PlanFile, rank: int = 1) -> list[dict[str, Any]]:
    """One row per fact that differs, the plan before the request; empty when nothing does."""
    rows = [*_facts(old, new, rank), *_request(old.job, new.job), *_basis(old, new)]
    return [_row(what, before, after) for what, before, after in rows if before != after]


def emit_changes(rows: Sequence[Mapping[str, Any]], output: str, out: Sequence[Path] | None) -> None:
    """Print and save the rows."""

    def render(form: str) -> str:
        return rows_text(rows, form) if rows or form != "table" else "no difference\n"

    emit(render, output, out)


def _facts(old: PlanFile, new: PlanFile, rank: int) -> Iterator[tuple[str, Any, Any]]:
    before, after = _numbers(old, rank), _numbers(new, rank)
    yield from ((name, before[name], after.get(name)) for name in before)
    yield "mode", old.plan(rank).mode, new.plan(rank).mode
    yield "GPU types", _text(old.plan(rank).gpus), _text(new.plan(rank).gpus)
    yield "pools", _pools(old.plan(rank)), _pools(new.plan(rank))
    yield "basis", old.plan(rank).basis, new.plan(rank).basis
    before_by, after_by = old.plan(rank).calibrated_by, new.plan(rank).calibrated_by
    if before_by and after_by:  # files of earlier planners do not say
        yield "calibrated by", _by(before_by), _by(after_by)


def _by(calibrated_by: Mapping[str, str | None]) -> str:
    return ", ".join(f"{gpu}: {by or 'nothing'}" for gpu, by in sorted(calibrated_by.items()))


def _numbers(found: PlanFile, rank: int) -> dict[str, Any]:
    plan, percentile = found.plan(rank), str(found.job.get("slo", {}).get("percentile", "p95"))
    performance = plan.predicted
    latencies = {
        f"{name} {percentile} ms": latency(performance, field, percentile)
        for name, field in (("TTFT", "ttft_ms"), ("TPOT", "tpot_ms"), ("E2E", "e2e_ms"))
    }
    return {
        "GPUs": plan.gpus_total, "$/h": plan.cost_usd_per_hour,
        "$/M output tokens": plan.usd_per_million_output_tokens, "output tok/s": performance.output_tok_s,
        "output tok/s/GPU": performance.output_tok_s_per_gpu, "requests/s": performance.request_rate, **latencies,
    }  # fmt: skip


def _pools(plan: Plan) -> str:
    return "; ".join(
        f"{p.role} {p.replicas} x {layout_text(p)} {p.gpu} {p.weights}/{p.kv} {p.engine}" for p in plan.pools
    )


def _request(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "asked") -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _request(before, after, f"{where} {key}")
        else:
            yield f"{where} {key}", _text(before), _text(after)


def _basis(old: PlanFile, new: PlanFile) -> Iterator[tuple[str, Any, Any]]:
    for what, field in (("planner", "planner_version"), ("catalog", "catalog_sha256"), ("model", "model_sha256")):
        before, after = getattr(old.provenance, field), getattr(new.provenance, field)
        yield what, before[:12], after[:12]


def _text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _row(what: str, before: Any, after: Any) -> dict[str, Any]:
    change, verdict = "", ""
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in (before, after)):
        change = f"{after / before - 1:+.1%}" if before else f"{after - before:+.4g}"
        if not what.startswith("asked"):
            less = what.startswith(_LESS_IS_BETTER) and what not in _MORE_IS_BETTER
            verdict = "better" if (after < before) == less else "worse"
    return {"what": what, "old": before, "new": after, "change": change, "is": verdict}
