"""Why a plan is as it is, in sentences: which limit binds, what a step is made of, how far it is from the peak.

Explanations are recomputed from the saved plan; nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from planner.architecture.model import Part
from planner.architecture.parameters import active_parameters
from planner.job.job import Job
from planner.plan import Plan, Pool
from planner.report.plans import latency, pool_text
from planner.serving.replica import Replica
from planner.units import GIB, format_duration

_BINDS = 0.97  # share of a limit from which it counts as used up
GLOSSARY = {
    "host": "scheduling, sampling and detokenising on the CPU",
    "kernel gaps": "idle time between kernels",
    "ragged chunks": "what steps with prompts cost beyond their kernels, as no captured graph fits them",
    "norms": "norms, rotary embedding and activations",
    "expert dispatch": "tokens to their experts and back",
    "recurrent state": "state updates of linear attention or state space layers",
    "pipeline": "activations from stage to stage",
    "context exchange": "keys, values and partial outputs between the ranks that share a context",
    "draft": "passes of what drafts tokens, before the step that checks them",
}


def limits(plan: Plan, job: Job) -> Iterator[str]:
    """One line per latency limit: predicted and simulated value, and whether it binds or is the tighter one."""
    percentile = job.slo.percentile
    used: dict[str, float] = {}
    for name, limit in job.slo.limits.items():
        seen = [latency(p, f"{name}_ms", percentile) for p in (plan.predicted, plan.simulated) if p is not None]
        used[name] = max(seen) / (limit * 1e3)
    for name, limit in job.slo.limits.items():
        predicted = latency(plan.predicted, f"{name}_ms", percentile)
        simulated = (
            "" if plan.simulated is None else f", {latency(plan.simulated, f'{name}_ms', percentile):,.4g} simulated"
        )
        tightest = len(used) > 1 and used[name] == max(used.values())
        verdict = f"{used[name]:.0%} used" + (", the tightest" if tightest else "")
        if used[name] >= _BINDS:
            over = used[name] - 1
            verdict = "binds" if over < 0.005 else f"binds, {over:.0%} over in the simulation"
        yield (
            f"{name.upper()} {percentile} {predicted:,.4g} ms predicted{simulated}, of {format_duration(limit)}: "
            f"{verdict}"
        )
    if not used:
        yield "no latency limit was asked: the plan runs close to saturation"


def cache(pool: Pool, alone: bool, most: float) -> str:
    """How full the KV cache of a pool is, which is named where it is not ``alone``; or how near its attention ranks are
    to the ``most`` requests that the engine runs on one."""
    filled = pool.running_batch / max(pool.max_batch, 1)
    where = "" if alone else f"{pool_text(pool)}: "
    what, binds = "the KV cache has room for", "memory binds"
    if pool.max_batch >= most:
        what, binds = "the engine runs at most", "that limit binds"
    return (
        f"{where}{what} {pool.max_batch:,} requests per attention rank, {pool.running_batch:,.0f} "
        f"run ({filled:.0%})" + ("" if filled < _BINDS else f": {binds}")
    )


def tpot_parts(plan: Plan, pool: Pool, step_ms: float) -> str | None:
    """Split the mean TPOT of an aggregated pool into its own decode steps and prompts of others; None elsewhere."""
    mean = plan.predicted.tpot_ms.mean
    if pool.role != "aggregated" or not 0 < step_ms <= mean or len(plan.pools) > 1:
        return None
    return (
        f"mean TPOT {mean:,.4g} ms = {step_ms:,.4g} ms decode step + {mean - step_ms:,.4g} ms in which prompts of "
        "other requests are prefilled"
    )


def decode_floor(pool: Pool, replica: Replica, step_ms: float) -> str:
    """What a step would take if it only read all weights and the running cache once, at datasheet bandwidth."""
    held = pool.memory.weights_gib * pool.layout.pp + pool.memory.kv_gib
    floor = held * GIB / replica.accelerator.memory_bandwidth * 1e3
    return (
        f"reading its {held:.1f} GiB of weights and cache once at {replica.accelerator.memory_bandwidth / 1e12:.3g} "
        f"TB/s takes {floor:,.3g} ms, {floor / step_ms:.0%} of a decode step"
    )


def prefill_floor(pool: Pool, replica: Replica, tokens: float, prompt_ms: float) -> str:
    """What a prompt would take at the datasheet's arithmetic rate: 2 FLOP per active parameter and token, over tp."""
    math = replica.formats[Part.EXPERTS if replica.has_experts else Part.FFN].math
    rate = replica.accelerator.flops.get(math) or max(replica.accelerator.flops.values())
    floor = 2.0 * active_parameters(replica.model) * tokens / (pool.layout.tp * pool.layout.cp * rate) * 1e3
    return (
        f"the matrix products of a prompt take {floor:,.3g} ms at {rate / 1e12:,.4g} TFLOP/s {math.split('_')[0]} per "
        f"GPU, {floor / prompt_ms:.0%} of its prefill"
    )


def words(tables: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What the operators' names mean that are not everybody's, where they take 2 % or more."""
    shown = {
        name
        for spent in tables.values()
        for name, ms in spent.items()
        if ms >= 0.02 * sum(spent.values())
    }  # fmt: skip
    return [f"{name}: {meaning}" for name, meaning in GLOSSARY.items() if name in shown]
