"""Why a plan: time by operator, memory, what rejected the others, and what relaxing a limit buys."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from planner.api import Catalogs, replica_of_pool, search
from planner.errors import PlannerError
from planner.job.job import Job
from planner.plan import Plan, PlanFile, Pool
from planner.report import why
from planner.report.drafts import choices, draft_rows, speculation_text, stops_paying
from planner.report.emit import emit
from planner.report.formats import rows_text, yaml_text
from planner.report.modes import compare_modes
from planner.report.plans import latency, plan_rows, pool_text, precisions, verdict
from planner.report.plot import memory_bar, share_bar
from planner.report.single import operator_text, time_by_operator
from planner.report.splits import first_token, first_token_text
from planner.report.stages import plain_workers, stage_times, stages_text
from planner.search.candidates import lengths_of
from planner.serving.layout import Layout, Layouts
from planner.serving.memory import most_sequences
from planner.simulation.replay import layout_of
from planner.units import format_duration

_STEP, _PROMPT = "decode_iteration_ms", "prefill_of_one_prompt_ms"
# Roles whose time one engine group explains, and what each of them runs.
_PHASES = {"aggregated": (_STEP, _PROMPT), "prefill": (_PROMPT,), "decode": (_STEP,)}
_TITLES = {_STEP: "one decode step", _PROMPT: "one prompt"}
_RELAXATIONS = (1.1, 1.25, 1.5, 2.0)
_OTHER = 0.02  # relative difference from which two TTFTs are not of the same pools
_SAME = 5e-4  # relative change below which two plans do the same


def explain_plan(found: PlanFile, rank: int, catalogs: Catalogs, progress: Callable[[str], None]) -> dict[str, Any]:
    """Recompute what decides a plan, calibrated as it was where there is no profile.

    Raises InputError for an unknown rank or names that the catalogs lack.
    """
    plan, job, catalogs = found.plan(rank), found.asked(), catalogs.of_plan(found)
    pools = [explain_pool(plan, pool, job, catalogs) for pool in plan.pools]
    told = first_token(plan, job, catalogs) if plan.mode in ("pd", "af") else {}
    seen = latency(plan.predicted, "ttft_ms", job.slo.percentile)
    if told and abs(sum(told["parts_ms"].values()) / seen - 1) > _OTHER:
        told = {}  # copies of a pod, which share no queue
    said = first_token_text(plan, told, job.slo.percentile) if told else []
    return {
        "plan": plan_rows(found)[rank - 1],
        "does": does(plan),
        "why": [standing(found, plan), *compare_modes(found), *reasons(plan, job, catalogs), *said],
        **pools[0],
        "pools": pools,
        "first_token": told,
        "rejected": [row.model_dump() for row in found.search.rejected],
        "stages": stage_times(plan, job, catalogs) if plan.mode == "af" else {},
        "relaxing": relaxing(job, catalogs, progress),
    }


def does(plan: Plan) -> str:
    """What a plan does and costs, in one line."""
    seen = plan.predicted
    price = "" if plan.cost_usd_per_hour is None else f", ${plan.cost_usd_per_hour:,.2f}/h"
    if plan.usd_per_million_output_tokens is not None:
        price += f", ${plan.usd_per_million_output_tokens:,.3g} per million output tokens"
    gpus = " + ".join(f"{count} {gpu}" for gpu, count in plan.gpus.items())
    idle = f" ({plan.gpus_idle} more idle)" if plan.gpus_idle else ""
    return f"{gpus}{idle}: {seen.output_tok_s:,.0f} output tok/s, {seen.request_rate:.4g} requests/s{price}"


def standing(found: PlanFile, plan: Plan) -> str:
    """How the plan stands beside the others."""
    if plan.rank == 1:
        return verdict(found).rstrip(".")
    proof = plan.certificate
    return f"{proof.gap:.1%} behind the best {proof.objective} found ({proof.value:,.4g} against {proof.bound:,.4g})"


def explain_pool(plan: Plan, pool: Pool, job: Job, catalogs: Catalogs) -> dict[str, Any]:
    """What fills the memory of a pool and where its time goes; a pool that runs one phase has the times of that."""
    explained = {
        "pool": f"{pool_text(pool)} on {pool.gpu}, {precisions(pool)}, engine {pool.engine}",
        "role": pool.role,
        "memory": pool.memory.model_dump(),
        "max_batch": pool.max_batch,
        "running_batch": pool.running_batch,
    }
    replica = replica_of_pool(job.model, pool, catalogs)
    plain = replica.drafting_nothing
    if pool.role != "ffn":
        blocks = plain_workers(plan, job, catalogs) if pool.role == "attention" else None
        at = choices(pool, plain, job, catalogs, blocks)
        explained["drafts"] = [] if at is None else draft_rows(pool, at)
        explained["drafts_note"] = None if at is None else stops_paying(pool, at, plain.engine.max_sequences)
    if pool.role not in _PHASES:
        return {**explained, "notes": ["attention and FFN overlap in every iteration: no table by operator"]}
    x, lengths = pool.layout, lengths_of(job.workload)
    split = Layout(x.tp, x.attention_dp, x.pp, x.ep, x.cp)
    replica = replica.prefilling if pool.role == "prefill" else replica
    times = time_by_operator(replica, split, pool.running_batch, lengths)
    times = {name: spent for name, spent in times.items() if name in _PHASES[pool.role]}
    notes = []
    if _STEP in times:
        step = sum(times[_STEP].values())
        notes += [line for line in (why.tpot_parts(plan, pool, step / replica.tokens_per_step),) if line]
        notes.append(why.decode_floor(pool, replica, step))
    if _PROMPT in times:
        if x.attention_dp > 1:
            notes.append(f"one prompt: while each of the {x.attention_dp} attention ranks computes one")
        notes.append(why.prefill_floor(pool, replica, float(lengths.new), sum(times[_PROMPT].values())))
    return {**explained, **times, "notes": notes, "words": why.words(times)}


def reasons(plan: Plan, job: Job, catalogs: Catalogs) -> list[str]:
    """Name the limits that bind: an SLO that is nearly used up, a KV cache that is full, or the prefill pool."""
    lines = [*why.limits(plan, job), *plan.notes]
    for pool in plan.pools:
        if pool.role != "ffn":
            most = most_sequences(replica_of_pool(job.model, pool, catalogs), Layouts.of([layout_of(pool)]))
            lines.append(why.cache(pool, len(plan.pools) == 1, float(most.min())))
    lines += [
        speculation_text(pool.speculation.model_dump())
        for pool in plan.pools
        if pool.speculation is not None and pool.role not in ("prefill", "ffn")
    ]
    for pool in plan.pools:
        if pool.tuning is not None:
            set_ = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in pool.tuning.model_dump(exclude_none=True).items())
            lines.append(f"{'' if pool.role == 'aggregated' else f'{pool.role}: '}counts on {set_}")
    return lines


def relaxing(job: Job, catalogs: Catalogs, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Search again with one limit loosened at a time: what the objective gains, against the same search as asked.

    Closed forms on both sides: a simulated best would be compared with one that was not.
    """
    alone = job.model_copy(update={"top": 1, "simulate_top": 0})
    try:
        base = search(alone, catalogs=catalogs).plans[0]
    except PlannerError:
        return []
    rows = []
    for name, limit in job.slo.limits.items():
        last = base
        for factor in _RELAXATIONS:
            progress(f"relaxing {name} to {factor:g} times its limit")
            slo = job.slo.model_copy(update={name: limit * factor})
            try:
                found = search(alone.model_copy(update={"slo": slo}), catalogs=catalogs).plans[0]
            except PlannerError:
                continue
            if not _differ(found, last):
                continue
            last = found
            rows.append(_relaxed(f"{name.upper()} {format_duration(limit * factor)}", found, base))
        if last is base:
            most = f"{name.upper()} {format_duration(limit * _RELAXATIONS[-1])}"
            rows.append({**_relaxed(most, base, base), "change": "nothing"})
    return rows


def _differ(one: Plan, other: Plan) -> bool:
    return one.gpus != other.gpus or abs(one.certificate.value / (other.certificate.value or 1.0) - 1) > _SAME


def _relaxed(limit: str, found: Plan, base: Plan) -> dict[str, Any]:
    saved = base.gpus_total - found.gpus_total
    change = f"{found.certificate.value / (base.certificate.value or 1.0) - 1:+.1%} {found.certificate.objective}"
    if saved:
        change += f", {abs(saved)} GPU{'s' if abs(saved) > 1 else ''} {'saved' if saved > 0 else 'more'}"
    return {
        "limit": limit,
        "plan": ", ".join(f"{pool_text(p)} {p.weights}" for p in found.pools),
        "GPUs": found.gpus_total,
        "tok/s": round(found.predicted.output_tok_s),
        "$/M tok": _cents(found.usd_per_million_output_tokens),
        "change": change,
    }


def _cents(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def emit_explanation(found: dict[str, Any], output: str, out: Sequence[Path] | None) -> None:
    """Print and save an explanation."""

    def render(form: str) -> str:
        if form == "json":
            return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
        if form == "yaml":
            return yaml_text(found)
        return rows_text(_operator_rows(found), form) if form == "csv" else _text(found, form)

    emit(render, output, out)


def _operator_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Time by operator of every pool, one row each: what of an explanation is a table."""
    return [
        {"pool": pool["pool"], "time of": _TITLES[phase], "operator": operator, "ms": ms}
        for pool in found["pools"]
        for phase in (_STEP, _PROMPT)
        for operator, ms in pool.get(phase, {}).items()
    ]


def _text(found: dict[str, Any], form: str) -> str:
    pools = found["pools"]
    mark = "- " if form == "md" else "  "
    parts = [f"Plan {found['plan']['#']}: " + "; ".join(str(pool["pool"]) for pool in pools), "", found["does"], ""]
    parts += [*(f"{mark}{line}" for line in found["why"]), ""]
    for pool in pools:
        parts += _pool_text(pool, form, mark, alone=len(pools) == 1)
    if found["stages"]:
        parts += stages_text(found["stages"], form)
    if found["rejected"]:
        parts += [
            "Why the other candidates fell out, with the nearest miss of each reason",
            *([""] if form == "md" else []), rows_text(found["rejected"], form),
        ]  # fmt: skip
    if found["relaxing"]:
        parts += [
            "What relaxing one limit buys, by the closed forms", *([""] if form == "md" else []),
            rows_text(found["relaxing"], form),
        ]  # fmt: skip
    return "\n".join(parts)


def _pool_text(pool: dict[str, Any], form: str, mark: str, *, alone: bool) -> list[str]:
    memory = pool["memory"]
    used = memory["weights_gib"] + memory["kv_gib"] + memory["activations_gib"]
    lines = [] if alone else [f"Pool {pool['pool']}"]
    lines += [
        f"Memory of the fullest GPU: weights {memory['weights_gib']:.1f} + KV {memory['kv_gib']:.1f} + activations "
        f"{memory['activations_gib']:.1f} = {used:.1f} of {memory['capacity_gib']:.1f} GiB",
        memory_bar(memory), *([""] if form == "md" else []),
    ]  # fmt: skip
    phases = [name for name in (_STEP, _PROMPT) if name in pool]
    if len(phases) == 2:
        lines.append(operator_text(pool, form))
    for name in phases if len(phases) == 1 else ():
        total = sum(pool[name].values())
        spent = sorted(((op, ms) for op, ms in pool[name].items() if ms > 0), key=lambda item: -item[1])
        rows = [{_TITLES[name]: op, "ms": round(ms, 3), "share": share_bar(ms / total)} for op, ms in spent]
        lines.append(rows_text([*rows, {_TITLES[name]: "total", "ms": round(total, 3), "share": ""}], form))
    lines += [*(f"{mark}{line}" for line in (*pool["notes"], *pool.get("words", ()))), ""]
    return lines + _drafts_text(pool, form)


def _drafts_text(pool: dict[str, Any], form: str) -> list[str]:
    """What speculation buys; nothing where it was not asked for."""
    if not pool.get("drafts"):
        return []
    blank = [""] if form == "md" else []
    return [f"Drafts at this batch; {pool['drafts_note']}", *blank, rows_text(pool["drafts"], form)]
