"""The sections of the report, each a function from a saved search to HTML; every text is escaped here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from planner.plan import Plan, PlanFile
from planner.report.html.scatter import Dot, scatter
from planner.report.modes import compare_modes
from planner.report.plans import (
    caveat,
    fitted,
    latency,
    layout_text,
    narrow_rows,
    note_lines,
    pool_text,
    precisions,
    verdict,
)

MEMORY_PARTS = (("weights", "weights_gib", 0), ("KV cache", "kv_gib", 2), ("activations", "activations_gib", 4))

_ONE_LINE = 26  # longer texts may wrap
_WITH_SIMULATED = re.compile(r"[-\d.,]+ \([-\d.,]+\)")


def text_of(number: float) -> str:
    """Four digits at most, with separators."""
    return f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"


def text(value: Any) -> str:
    """Escape a value for HTML; numbers with separators."""
    if value is None:
        return "&ndash;"
    if isinstance(value, float):
        return escape(text_of(value))
    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def table(rows: Sequence[Mapping[str, Any]], best: int | None = None) -> str:
    """A table that scrolls sideways where the screen is narrow; numbers to the right."""
    if not rows:
        return ""
    names = list(rows[0])
    numeric = {n: all(_numeric(r[n]) for r in rows) for n in names}
    classes = {n: ' class="n"' if numeric[n] else "" for n in names}
    head = "".join(f"<th{classes[n]}>{text(n)}</th>" for n in names)
    body = "".join(
        f"<tr{' class=best' if index == best else ''}>"
        + "".join(f"<td{classes[n] or _short(row[n])}>{text(row[n])}</td>" for n in names) + "</tr>"
        for index, row in enumerate(rows)
    )  # fmt: skip
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _numeric(value: Any) -> bool:
    """Whether a cell holds a number, or a predicted one with the simulated one in brackets."""
    return value is None or isinstance(value, int | float) or bool(_WITH_SIMULATED.fullmatch(str(value)))


def _short(value: Any) -> str:
    return ' class="s"' if len(str(value)) <= _ONE_LINE else ""


def key(entries: Iterable[tuple[str, int]]) -> str:
    """The colours of a chart and what they mean."""
    return '<ul class="key">' + "".join(f'<li><i class="c{c % 6}"></i>{text(n)}</li>' for n, c in entries) + "</ul>"


def bar(label: str, parts: Sequence[tuple[str, float, int]], whole: float, value: str) -> str:
    """One bar of stacked parts, with a label before and a value behind it."""
    cells = "".join(
        f'<i class="c{c % 6}" style="width:{max(0.0, min(100.0, 100 * size / whole)):.2f}%" '
        f'data-tip="{text(name)}: {text(size)}" title="{text(name)}: {text(size)}"></i>'
        for name, size, c in parts if whole > 0
    )  # fmt: skip
    return f'<div class="row"><span>{text(label)}</span><div class="bar">{cells}</div><span>{text(value)}</span></div>'


def section(title: str, *parts: str) -> str:
    """A section with its heading; empty when all its parts are."""
    body = "".join(parts)
    return f"<section><h2>{text(title)}</h2>{body}</section>" if body else ""


def headline(found: PlanFile) -> str:
    """What was asked, and the first plan in six numbers."""
    best, percentile = found.plans[0], _percentile(found)
    pools = "; ".join(f"{pool_text(p)} on {p.gpu}, {precisions(p)}" for p in best.pools)
    said = [verdict(found), *(f"{line[0].upper()}{line[1:]}." for line in compare_modes(found)), caveat(found, best)]
    performance = best.predicted
    cost = "&ndash;" if best.cost_usd_per_hour is None else f"${best.cost_usd_per_hour:,.2f}"
    per_million = best.usd_per_million_output_tokens
    facts = (
        (text(performance.output_tok_s), "output tokens/s"),
        (text(best.gpus_total), "GPUs: " + text(" + ".join(f"{n} {g}" for g, n in best.gpus.items()))),
        (cost, "per hour"),
        ("&ndash;" if per_million is None else f"${per_million:,.2f}", "per million output tokens"),
        (f"{text(latency(performance, 'ttft_ms', percentile))} ms", f"TTFT {text(percentile)}"),
        (f"{text(latency(performance, 'tpot_ms', percentile))} ms", f"TPOT {text(percentile)}"),
    )
    cards = "".join(f"<div><b>{value}</b><span>{label}</span></div>" for value, label in facts)
    return (
        f'<h1>{text(found.job.get("model"))}</h1><p class="soft">{asked(found)}</p><p>Plan 1: {text(pools)}.</p>'
        f'<div class="facts">{cards}</div>' + "".join(f"<p>{text(line)}</p>" for line in said)
    )


def asked(found: PlanFile) -> str:
    """The request in one line, escaped."""
    job = found.job
    load, slo = job.get("workload", {}), job.get("slo", {})
    fleet = ", ".join(f"{n} {gpu}" for gpu, n in job.get("fleet", {}).get("gpus", {}).items())
    words = [f"{load.get('isl', 0):,.0f} tokens in, {load.get('osl', 0):,.0f} out"]
    words += [f"{load['rate']:g} requests/s"] if load.get("rate") else []
    words += [f"{load['concurrency']:g} requests in flight"] if load.get("concurrency") else []
    limits = [f"{n.upper()} {slo[n] * 1e3:,.0f} ms" for n in ("ttft", "tpot", "e2e") if slo.get(n)]
    words += [f"{' and '.join(limits)} at {slo.get('percentile', 'p95')}"] if limits else []
    return text("; ".join([*words, f"fleet: {fleet}", f"engine: {job.get('engine')}"]))


def pareto(found: PlanFile) -> str:
    """Output per GPU against speed for one user: the frontier that was searched and the ranked plans on it."""
    percentile = _percentile(found)
    names = sorted({str(p.get("gpu")) for p in found.search.pareto} | {_gpus(plan) for plan in found.plans})
    colour = {name: index for index, name in enumerate(names)}
    line = [
        Dot(
            float(p["tok_s_per_user"]), float(p["output_tok_s_per_gpu"]), colour[str(p.get("gpu"))],
            f"{p.get('gpu')} {p.get('layout')} {p.get('weights')}\n{p['output_tok_s_per_gpu']:,.1f} tok/s/GPU\n"
            f"{p['tok_s_per_user']:,.1f} tok/s per user",
        )
        for p in found.search.pareto if p.get("tok_s_per_user") and p.get("output_tok_s_per_gpu")
    ]  # fmt: skip
    dots = []
    for plan in found.plans:
        if latency(plan.predicted, "tpot_ms", percentile) <= 0:
            continue  # one output token a request: there is no speed of output
        speed = 1e3 / latency(plan.predicted, "tpot_ms", percentile)
        tip = f"Plan {plan.rank}: " + "; ".join(
            f"{p.replicas} x {layout_text(p)} {p.gpu} {p.weights}" for p in plan.pools
        )
        tip += f"\n{plan.predicted.output_tok_s_per_gpu:,.1f} tok/s/GPU\n{speed:,.1f} tok/s per user"
        dots.append(Dot(speed, plan.predicted.output_tok_s_per_gpu, colour[_gpus(plan)], tip, str(plan.rank)))
    drawn = scatter(line, dots, f"tokens/s for one user (1 / TPOT {percentile})", "output tokens/s per GPU")
    note = (
        '<p class="soft">Numbered: the ranked plans, at the load that the simulation carries. Small: the candidates '
        "that no other beats on both axes. Dashed: the frontier of both.</p>"
    )
    return section("Throughput against speed", drawn, key(colour.items()), note) if drawn else ""


def ranked(found: PlanFile) -> str:
    """Every ranked plan with its notes."""
    notes = "".join(f"<p>{text(line)}</p>" for line in note_lines(found))
    return section("Ranked plans", table(narrow_rows(found), best=0), notes)


def operators(times: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]]) -> str:
    """Where the time of an iteration goes, for each pool of the first plan."""
    parts = []
    for pool, tables in times:
        for name, title in (("decode_iteration_ms", "one decode step"), ("prefill_of_one_prompt_ms", "one prompt")):
            spent = {op: ms for op, ms in tables.get(name, {}).items() if ms > 0}
            total, most = sum(spent.values()), max(spent.values(), default=0.0)
            if not spent:
                continue
            parts.append(f"<h3>{text(pool)}: {title}, {text(total)} ms</h3>")
            ordered = sorted(spent.items(), key=lambda item: -item[1])
            parts += [bar(op, [(op, ms, 0)], most, f"{ms:,.2f} ms, {ms / total:.0%}") for op, ms in ordered]
    return section("Time by operator", *parts)


def memory(found: PlanFile) -> str:
    """What the fullest GPU of each pool holds."""
    rows = []
    for plan in found.plans[:10]:
        for pool in plan.pools:
            held = pool.memory
            parts = [(name, float(getattr(held, field)), c) for name, field, c in MEMORY_PARTS]
            used = sum(size for _, size, _ in parts)
            label = f"Plan {plan.rank}: {layout_text(pool)}, {pool.gpu}"
            label += "" if pool.role == "aggregated" else f", {pool.role}"
            rows.append(bar(label, parts, held.capacity_gib, f"{used:,.1f} of {held.capacity_gib:,.1f} GiB"))
    return section("Memory of the fullest GPU", key((name, c) for name, _, c in MEMORY_PARTS), *rows)


def costs(found: PlanFile, prices: Mapping[str, float]) -> str:
    """What each pool of the first plan costs per hour, at the reference price of its GPU."""
    rows = []
    best = found.plans[0]
    for pool in best.pools:
        x = pool.layout
        one = max(x.tp, x.ep) if pool.role == "ffn" else x.tp * x.attention_dp * x.pp * x.cp
        gpus = pool.replicas * one
        price = prices.get(pool.gpu)
        rows.append((f"{pool.role}: {gpus} {pool.gpu}", None if price is None else gpus * price))
    known = [cost for _, cost in rows if cost is not None]
    if not known:
        return ""
    most = max(known)
    bars = [
        bar(label, [(label, cost, 0)], most, f"${cost:,.2f}/h, {cost / sum(known):.0%}")
        for label, cost in rows if cost is not None
    ]  # fmt: skip
    total = best.cost_usd_per_hour
    note = (
        ""
        if total is None
        else f'<p class="soft">Plan 1 costs ${total:,.2f} per hour at the prices of the catalog.</p>'
    )
    return section("Cost by pool", *bars, note)


def simulated(found: PlanFile) -> str:
    """The closed forms beside the event simulation."""
    percentile, rows = _percentile(found), []
    for plan in found.plans:
        if plan.simulated is None:
            continue
        for name, field in ((f"TTFT {percentile} ms", "ttft_ms"), (f"TPOT {percentile} ms", "tpot_ms")):
            closed, seen = latency(plan.predicted, field, percentile), latency(plan.simulated, field, percentile)
            rows.append(_pair(plan.rank, name, closed, seen))
        rows.append(_pair(plan.rank, "output tok/s", plan.predicted.output_tok_s, plan.simulated.output_tok_s))
    return section("Predicted against simulated", table(rows))


def _pair(rank: int, what: str, closed: float, seen: float) -> dict[str, Any]:
    change = f"{seen / closed - 1:+.1%}" if closed > 0 else "-"
    return {"plan": rank, "what": what, "predicted": closed, "simulated": seen, "difference": change}


def rejected(found: PlanFile) -> str:
    """Why the other candidates fell out, with the nearest miss of each reason."""
    rows = [{"reason": r.reason, "candidates": r.count, "nearest miss": r.nearest} for r in found.search.rejected]
    return section("Rejected candidates", table(rows))


def provenance(found: PlanFile) -> str:
    """What the numbers rest on."""
    made, best = found.provenance, found.plans[0]
    proof = best.certificate
    band = "; ".join(f"{name} {text_of(low)} to {text_of(high)}" for name, (low, high) in best.band.items())
    facts = {
        "planner": made.planner_version, "created": made.created, "command": " ".join(made.argv), "seed": made.seed,
        "catalog sha256": made.catalog_sha256, "model sha256": made.model_sha256,
        "proof": f"{proof.objective} {proof.value:,.6g}, bound {proof.bound:,.6g}, gap {proof.gap:.2%}, "
        f"{proof.status}, {proof.solver}",
        "basis": f"{best.basis}: {fitted(best)}; 80 % band of plan 1: {band}",
        "searched": f"{found.search.candidates:,} candidates, {found.search.operating_points:,} operating points"
        + ("" if found.search.elapsed_s is None else f", {found.search.elapsed_s:,.2f} s"),
    }  # fmt: skip
    return section(
        "Provenance", "<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in facts.items()) + "</dl>"
    )


def _percentile(found: PlanFile) -> str:
    return str(found.job.get("slo", {}).get("percentile", "p95"))


def _gpus(plan: Plan) -> str:
    return " + ".join(sorted(plan.gpus))
