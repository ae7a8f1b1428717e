"""Why a plan: time by operator, memory, what rejected the others, and what relaxing a limit buys."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from planner.api import Catalogs, replica_of_pool, search
from planner.errors import InputError, PlannerError
from planner.job.job import Job
from planner.plan import Plan, PlanFile, Pool
from planner.report.emit import emit
from planner.report.formats import rows_text
from planner.report.modes import compare_modes
from planner.report.plans import plan_rows, pool_text
from planner.report.plot import memory_bar, share_bar
from planner.report.single import operator_text, time_by_operator
from planner.search.candidates import lengths_of
from planner.serving.layout import Layout
from planner.simulation.replay import workers_of
from planner.units import format_duration

_STEP, _PROMPT = "decode_iteration_ms", "prefill_of_one_prompt_ms"
# Roles whose time one engine group explains, and what each of them runs.
_PHASES = {"aggregated": (_STEP, _PROMPT), "prefill": (_PROMPT,), "decode": (_STEP,)}
_TITLES = {_STEP: "one decode step", _PROMPT: "one prompt"}
_RELAXATIONS = (1.1, 1.25, 1.5, 2.0)


def explain_plan(found: PlanFile, rank: int, catalogs: Catalogs, progress: Callable[[str], None]) -> dict[str, Any]:
    """Recompute what decides a plan. Raises InputError for an unknown rank or names that the catalogs lack."""
    plan = found.plan(rank)
    try:
        job = Job.model_validate(found.job)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"the plan's job is no request: {where}: {first['msg']}") from None
    pools = [explain_pool(pool, job, catalogs) for pool in plan.pools]
    return {
        "plan": plan_rows(found)[rank - 1],
        "modes": compare_modes(found),
        "why": why(found, rank, job),
        **pools[0],
        "pools": pools,
        "rejected": [row.model_dump() for row in found.search.rejected],
        "stages": stage_times(plan, job, catalogs) if plan.mode == "af" else {},
        "relaxing": relaxing(job, found.plans[0], catalogs, progress),
    }


def explain_pool(pool: Pool, job: Job, catalogs: Catalogs) -> dict[str, Any]:
    """What fills the memory of a pool and where its time goes; a pool that runs one phase has the times of that."""
    explained = {
        "pool": f"{pool_text(pool)} on {pool.gpu}, weights {pool.weights}, KV {pool.kv}, engine {pool.engine}",
        "role": pool.role,
        "memory": pool.memory.model_dump(),
        "max_batch": pool.max_batch,
        "running_batch": pool.running_batch,
    }
    if pool.role not in _PHASES:
        return explained
    replica = replica_of_pool(job.model, pool, catalogs)
    layout = Layout(pool.layout.tp, pool.layout.attention_dp, pool.layout.pp, pool.layout.ep, pool.layout.cp)
    times = time_by_operator(replica, layout, pool.running_batch, lengths_of(job.workload))
    return {**explained, **{name: spent for name, spent in times.items() if name in _PHASES[pool.role]}}


def stage_times(plan: Plan, job: Job, catalogs: Catalogs) -> dict[str, Any]:
    """Milliseconds for which the micro-batches of one decode iteration occupy each part of an AF plan, and what sets
    its pace."""
    split, workers = workers_of(plan, [replica_of_pool(job.model, pool, catalogs) for pool in plan.pools])
    requests = np.array([plan.pools[-1].running_batch]) * workers.ranks
    stages = split.stages(workers, requests, lengths_of(job.workload))
    m = workers.micro_batches
    occupied = {name: float((m * seconds)[0]) * 1e3 for name, seconds in stages.occupied.items()}
    return {
        "micro_batches": int(m[0]),
        "occupied_ms": occupied,
        "one_micro_batch_ms": float(stages.total[0]) * 1e3,
        "iteration_ms": float(stages.iteration(m)[0]) * 1e3,
        "pace": stages.limiting(m)[0],
    }


def why(found: PlanFile, rank: int, job: Job) -> list[str]:
    """Name the limits that bind: an SLO that is nearly used up, a KV cache that is full, or the fleet."""
    plan = found.plan(rank)
    percentile = job.slo.percentile
    lines = []
    for name, limit in job.slo.limits.items():
        values = getattr(plan.predicted, f"{name}_ms")
        used = getattr(values, percentile) / (limit * 1e3)
        binding = "binds" if used > 0.97 else f"{used:.0%} used"
        lines.append(f"{name} {percentile} {getattr(values, percentile):.4g} ms of {format_duration(limit)}: {binding}")
    for pool in (pool for pool in plan.pools if pool.role != "ffn"):
        filled = pool.running_batch / max(pool.max_batch, 1)
        lines.append(
            f"{'' if pool.role == 'aggregated' else f'{pool.role}: '}KV cache holds {pool.max_batch} requests per "
            f"attention rank, {pool.running_batch:.0f} run ({filled:.0%})"
        )
    if plan.mode == "pd":
        lines.append(_busier(plan.pools[0], plan))
    if plan.gpus_idle:
        lines.append(f"{plan.gpus_idle} GPUs idle")
    return lines


def _busier(prefill: Pool, plan: Plan) -> str:
    """How busy the prefill pool of a split is: requests in work over ranks, by Little's law."""
    return (
        f"{prefill.replicas} prefill replicas work on "
        f"{prefill.running_batch * prefill.layout.attention_dp:.1f} prompts each "
        f"for {plan.predicted.request_rate:.4g} requests/s"
    )


def relaxing(job: Job, best: Plan, catalogs: Catalogs, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Search again with one limit loosened at a time: what the objective gains."""
    rows = []
    for name, limit in job.slo.limits.items():
        for factor in _RELAXATIONS:
            progress(f"relaxing {name} to {factor:g} times its limit")
            loosened = job.model_copy(
                update={"slo": job.slo.model_copy(update={name: limit * factor}), "top": 1, "simulate_top": 0}
            )
            try:
                value = search(loosened, catalogs=catalogs).plans[0]
            except PlannerError:
                continue
            rows.append(
                {
                    "limit": f"{name} {format_duration(limit * factor)}",
                    "plan": ", ".join(f"{pool_text(p)} {p.weights}" for p in value.pools),
                    "GPUs": value.gpus_total,
                    "tok/s": value.predicted.output_tok_s,
                    "tok/s change": f"{value.predicted.output_tok_s / best.predicted.output_tok_s - 1:+.1%}",
                    "$/M tok": value.usd_per_million_output_tokens,
                }
            )
    return rows


def emit_explanation(found: dict[str, Any], output: str, out: Sequence[Path] | None) -> None:
    """Print and save an explanation."""

    def render(form: str) -> str:
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n" if form == "json" else _text(found)

    emit(render, output, out)


def _text(found: dict[str, Any]) -> str:
    pools = found["pools"]
    parts = [f"Plan {found['plan']['#']}: " + "; ".join(_named(pool) for pool in pools), ""]
    parts += [*(f"  {line}" for line in (*found["why"], *found["modes"])), ""]
    for pool in pools:
        parts += _pool_text(pool, alone=len(pools) == 1)
    if found["stages"]:
        parts += _stages_text(found["stages"])
    if found["rejected"]:
        parts += [
            "Rejected candidates, with the nearest miss of each reason",
            rows_text(found["rejected"], "table"),
        ]
    if found["relaxing"]:
        parts += ["What relaxing one limit buys", rows_text(found["relaxing"], "table")]
    return "\n".join(parts)


def _stages_text(stages: dict[str, Any]) -> list[str]:
    whole = stages["iteration_ms"]
    rows: list[dict[str, Any]] = [
        {"one decode iteration": name, "ms": round(ms, 2), "busy": share_bar(ms / whole)}
        for name, ms in stages["occupied_ms"].items()
    ]
    rows.append({"one decode iteration": "total", "ms": round(whole, 2), "busy": ""})
    pace = stages["pace"]
    said = f"{pace} sets the pace"
    if pace == "latency":
        said = f"the way of one micro-batch through the layers, {stages['one_micro_batch_ms']:.1f} ms, sets the pace"
    return [f"{stages['micro_batches']} micro-batches in flight: {said}", rows_text(rows, "table")]


def _named(pool: dict[str, Any]) -> str:
    return str(pool["pool"])


def _pool_text(pool: dict[str, Any], *, alone: bool) -> list[str]:
    memory = pool["memory"]
    used = memory["weights_gib"] + memory["kv_gib"] + memory["activations_gib"]
    lines = [] if alone else [f"Pool {_named(pool)}"]
    lines += [
        f"Memory of the fullest GPU: weights {memory['weights_gib']:.1f} + KV {memory['kv_gib']:.1f} + activations "
        f"{memory['activations_gib']:.1f} = {used:.1f} of {memory['capacity_gib']:.1f} GiB",
        memory_bar(memory),
    ]
    phases = [name for name in (_STEP, _PROMPT) if name in pool]
    if len(phases) == 2:
        return [*lines, operator_text(pool)]
    for name in phases:
        total = sum(pool[name].values())
        spent = sorted(((op, ms) for op, ms in pool[name].items() if ms > 0), key=lambda item: -item[1])
        rows = [{_TITLES[name]: op, "ms": ms, "share": share_bar(ms / total)} for op, ms in spent]
        lines.append(rows_text([*rows, {_TITLES[name]: "total", "ms": round(total, 3), "share": ""}], "table"))
    return lines
