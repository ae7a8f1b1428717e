"""Ranked plans as people read them."""

from __future__ import annotations

from typing import Any

from planner.plan import FLEET_NOTE, Performance, Plan, PlanFile, Pool
from planner.report.formats import rows_text
from planner.report.modes import compare_modes
from planner.units import format_count


def layout_text(pool: Pool) -> str:
    """Write a split as ``tp8 pp2``."""
    x = pool.layout
    named = (("tp", x.tp), ("dp", x.attention_dp), ("pp", x.pp), ("ep", x.ep), ("cp", x.cp))
    return " ".join(f"{name}{width}" for name, width in named if width > 1) or "tp1"


def draft_text(pool: Pool) -> str | None:
    """Write how a pool drafts as ``mtp 2``; None where it does not."""
    return None if pool.speculation is None else f"{pool.speculation.method} {pool.speculation.tokens}"


def pool_text(pool: Pool) -> str:
    """Write a pool as ``8 x tp8``, with its role where there are several, or with the layers of each stage where these
    stand on different GPU types."""
    role = "" if pool.role == "aggregated" else f"{pool.role} "
    stages = " | ".join(f"{s.first}-{s.end - 1} {s.gpu}{f' tp{s.tp}' if s.tp > 1 else ''}" for s in pool.stages)
    return f"{role}{pool.replicas} x " + (f"layers {stages}," if stages else layout_text(pool))


def precisions(pool: Pool) -> str:
    """Precisions of weights and, where a pool holds one, of the cache."""
    return f"weights {pool.weights}" + ("" if pool.role == "ffn" else f", KV {pool.kv}")


def plan_rows(found: PlanFile) -> list[dict[str, Any]]:
    """One row per plan, plain numbers; latencies at the percentile of the job."""
    percentile = found.job["slo"]["percentile"]
    rows = [_row(plan, percentile) for plan in found.plans]
    if all(plan.simulated is None for plan in found.plans):
        rows = [{name: value for name, value in row.items() if not name.endswith(" sim")} for row in rows]
    if all(plan.mode == "aggregated" for plan in found.plans):
        rows = [{name: value for name, value in row.items() if name != "mode"} for row in rows]
    if all(row["drafts"] is None for row in rows) and not found.job.get("speculate"):
        rows = [{name: value for name, value in row.items() if name != "drafts"} for row in rows]
    return rows


def _row(plan: Plan, percentile: str) -> dict[str, Any]:
    pool, perf = plan.pools[-1], plan.predicted
    seen = plan.simulated
    return {
        "#": plan.rank,
        "mode": "agg" if plan.mode == "aggregated" else plan.mode,
        "GPUs": " + ".join(f"{count} {gpu}" for gpu, count in plan.gpus.items()),
        "replicas": " + ".join(pool_text(p) for p in plan.pools),
        "weights": " + ".join(dict.fromkeys(p.weights for p in plan.pools)),
        "KV": pool.kv,
        "drafts": " + ".join(dict.fromkeys(filter(None, map(draft_text, plan.pools)))) or None,
        "batch": round(pool.running_batch, 1),
        "tok/s": _tidy(perf.output_tok_s),
        "tok/s/GPU": _tidy(perf.output_tok_s_per_gpu),
        "req/s": _tidy(perf.request_rate),
        f"TTFT {percentile} ms": _tidy(latency(perf, "ttft_ms", percentile)),
        "TTFT sim": None if seen is None else _tidy(latency(seen, "ttft_ms", percentile)),
        f"TPOT {percentile} ms": _tidy(latency(perf, "tpot_ms", percentile)),
        "TPOT sim": None if seen is None else _tidy(latency(seen, "tpot_ms", percentile)),
        "$/h": None if plan.cost_usd_per_hour is None else round(plan.cost_usd_per_hour, 2),
        "$/M tok": _tidy(plan.usd_per_million_output_tokens),
    }


def narrow_rows(found: PlanFile) -> list[dict[str, Any]]:
    """``plan_rows`` for people: the simulated latency in brackets behind the predicted one."""
    return [_narrow(row) for row in plan_rows(found)]


def note_lines(found: PlanFile) -> list[str]:
    """Each note once, with the plans that it is about."""
    ranks: dict[str, list[str]] = {}
    for plan in found.plans:
        for note in plan.notes:
            ranks.setdefault(note, []).append(str(plan.rank))
    return [f"Plan{'s' if len(which) > 1 else ''} {', '.join(which)}: {note}." for note, which in ranks.items()]


def _narrow(row: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in row.items():
        metric = name.split(" ")[0]
        seen = row.get(f"{metric} sim")
        if name.endswith(" sim"):
            continue
        if metric in ("TTFT", "TPOT") and f"{metric} sim" in row:
            shown[f"{name} (sim)"] = f"{value:,.4g} ({seen:,.4g})" if seen is not None else f"{value:,.4g} (-)"
        else:
            shown[name] = value
    return shown


def latency(performance: Performance, metric: str, percentile: str) -> float:
    """Milliseconds of a metric at a percentile of the job."""
    values = getattr(performance, metric)
    return float(getattr(values, percentile, None) or values.p95)


def plans_text(found: PlanFile) -> str:
    """The table, and under it what one should know of the first plan."""
    best = found.plans[0]
    lines = [rows_text(narrow_rows(found), "table").rstrip(), ""]
    beside = [f"{line[0].upper()}{line[1:]}." for line in compare_modes(found)]
    lines += [verdict(found), *beside, caveat(found, best), *note_lines(found)]
    if best.gpus_idle:
        fleet = best.gpus_total + best.gpus_idle
        lines.append(f"Idle: {best.gpus_idle} of {fleet} GPUs; this plan needs no more.")
    return "\n".join(lines) + "\n"


def verdict(found: PlanFile) -> str:
    """Say in one line why the first plan leads the second."""
    best = found.plans[0]
    certificate = best.certificate
    fleet = next((note.removeprefix(FLEET_NOTE) for note in best.notes if note.startswith(FLEET_NOTE)), None)
    if fleet is not None:
        proof = "proved best" if certificate.status == "optimal" else f"within {certificate.gap:.2%} of the best"
        others = "; each other plan is that of another fleet" if len(found.plans) > 1 else ""
        return f"Plan 1 is {proof} for {certificate.objective} on {fleet}{others}."
    start = f"Plan 1 is optimal for {certificate.objective} among all layouts and precisions searched"
    if certificate.status == "best found":
        start = f"Plan 1 is the best found for {certificate.objective}; splits are pruned, so this is no proof"
    elif certificate.status != "optimal":
        return (
            f"Plan 1 leads on {certificate.objective} after simulation; the closed form put another plan "
            f"{certificate.gap:.1%} ahead of it."
        )
    if found.search.feasible == 1:
        return start + "; no other plan meets the request."
    if len(found.plans) == 1:
        return start + "."
    second = found.plans[1]
    gap = second.certificate.gap
    if certificate.objective == "throughput":  # as shown in the table, after the simulation lowered loads
        gap = max(0.0, 1 - second.predicted.output_tok_s / best.predicted.output_tok_s)
    if gap < 5e-4:
        return start + "; plan 2 ties on it."
    return start + f"; plan 2 is {gap:.1%} behind."


def caveat(found: PlanFile, best: Plan) -> str:
    """Say in one line how far to trust the first plan."""
    low, high = best.band["output_tok_s"]
    return f"Expect {format_count(low)} to {format_count(high)} tok/s (80 % band); {fitted(best)}."


def fitted(best: Plan) -> str:
    """What the numbers of a plan were fitted to."""
    yours = [gpu for gpu, by in best.calibrated_by.items() if by == "profile"]
    if yours and len(yours) == len(best.calibrated_by):
        return "calibrated by your profile"
    shipped = {
        "calibrated": "kernel efficiencies of this GPU family were fitted to measurements",
        "modelled": "modelled from the datasheet with the efficiencies that other families share",
        "measured": "measured",
    }[best.basis]
    return f"{shipped}; {' and '.join(yours)} calibrated by your profile" if yours else shipped


def _tidy(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
