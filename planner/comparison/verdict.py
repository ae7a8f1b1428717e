"""Who wins a comparison, and why: what a request costs on each kind of hardware, and what whole replicas lose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.plan import Plan
from planner.search.mixed import Menu
from planner.search.mixture import Goal


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the comparison: a plan, or the reason why there is none. ``given`` fleets come first.

    ``left_out`` names the units among which the plan is not proved best, because they miss a limit at their load.
    ``shares`` has the part of the plan that serves each job, by name, where several models share the fleet.
    """

    fleet: str
    plan: Plan | None
    reason: str | None
    given: bool = True
    left_out: tuple[str, ...] = ()
    shares: tuple[tuple[str, Plan], ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What the fleets are compared by: the first goal, and whether a rate was asked and prices are known."""

    goal: Goal
    rated: bool
    priced: bool

    def worth(self, plan: Plan) -> tuple[float, ...]:
        """Sort key, best first: the goal's value for a rate; $/M tokens, or output where prices are unknown, without
        one."""
        cost = math.inf if plan.cost_usd_per_hour is None else plan.cost_usd_per_hour
        if self.rated:
            value = {Goal.GPUS: float(plan.gpus_total), Goal.POWER: plan.certificate.value}.get(self.goal, cost)
            return (value, cost, float(plan.gpus_total))
        unit = plan.usd_per_million_output_tokens if self.priced else None
        return (math.inf if unit is None else unit, -plan.predicted.output_tok_s)

    def measure(self, plan: Plan) -> str:
        """The value that decides, with its unit."""
        value = self.worth(plan)[0]
        if not self.rated:
            return f"{value:.3g} $/M tokens" if self.priced else f"{plan.predicted.output_tok_s:,.0f} tok/s"
        if self.goal is Goal.POWER:
            return f"{value / 1e3:,.3g} kW"
        return f"{value:,.0f} GPUs" if self.goal is Goal.GPUS else f"{_plain(value)} $/h"


def winner_of(entries: Sequence[Entry], alone: Sequence[Entry], asked: Question, effort: Mapping[str, float]) -> tuple[
    str, str
]:  # fmt: skip
    """The given fleet, or the union, that serves the job best, and the sentences that say why.

    ``effort`` by GPU type (or pair of types): the least $/h of the asked rates if replicas could be cut.
    """
    able = [(e, e.plan) for e in entries if e.plan is not None]
    if not able:
        reasons = [f"{e.fleet}: {e.reason}" for e in (*entries, *alone) if e.reason]
        return "", "no fleet can serve the job: " + "; ".join(reasons)
    (best, plan), *others = sorted(able, key=lambda pair: asked.worth(pair[1]))
    text = [f"{best.fleet} wins: {_does(plan, asked)}."]
    rivals = [pair for pair in others if asked.worth(pair[1])[0] > asked.worth(plan)[0] * (1 + 1e-6)]
    if rivals:
        text.append(f"Next is {rivals[0][0].fleet}, {asked.measure(rivals[0][1])}{_margin(plan, rivals[0][1], asked)}.")
    equal = [e.fleet for e, other in others if asked.worth(other)[0] <= asked.worth(plan)[0] * (1 + 1e-6)]
    if equal:
        text.append(f"{' and '.join(equal)} can do no better.")
    if not asked.rated and asked.priced:
        most, its = max(able, key=lambda pair: pair[1].predicted.output_tok_s)
        if most is not best and its.predicted.output_tok_s > plan.predicted.output_tok_s * (1 + 1e-6):
            text.append(f"{most.fleet} gives most: {_does(its, asked)}.")
    text += _reasons(plan, asked, effort)
    freer = [(e, e.plan) for e in alone if e.plan is not None and asked.worth(e.plan)[0] < asked.worth(plan)[0] * 0.999]
    if freer:
        entry, its = min(freer, key=lambda pair: asked.worth(pair[1]))
        gpu = entry.fleet.removeprefix("unlimited ")
        text.append(f"Enough {gpu} alone would be better still: {_does(its, asked)}.")
    return best.fleet, " ".join(text)


def _plain(value: float) -> str:
    """Four digits, and whole numbers without an exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _margin(best: Plan, other: Plan, asked: Question) -> str:
    ours, theirs = asked.worth(best)[0], asked.worth(other)[0]
    return f" ({theirs / ours - 1:.1%} more)" if 0 < ours < math.inf and theirs < math.inf else ""


def _does(plan: Plan, asked: Question) -> str:
    """What a plan achieves at what price, in a phrase."""
    used = " + ".join(f"{count} {gpu}" for gpu, count in plan.gpus.items())
    price = "" if plan.cost_usd_per_hour is None else f" for {_plain(plan.cost_usd_per_hour)} $/h"
    unit = plan.usd_per_million_output_tokens
    each = "" if unit is None else f" ({unit:,.3g} $/M tokens)"
    one = plan.gpus_total == 1
    carry = f"{'carries' if one else 'carry'} the rate"
    verb = carry if asked.rated else f"{'gives' if one else 'give'} {_plain(plan.predicted.output_tok_s)} tok/s"
    return f"{used} {verb}{price}{each}"


def _reasons(plan: Plan, asked: Question, effort: Mapping[str, float]) -> list[str]:
    """Cost by hardware if replicas could be cut, and what whole replicas add to it."""
    if not asked.rated or asked.goal is not Goal.COST or not effort:
        return []
    order = sorted(effort.items(), key=lambda item: (item[1], item[0]))
    listed = ", ".join(f"{name} {value:,.3g}" for name, value in order[:4])
    text = [f"Why: kept busy all the time, the rate costs in $/h on {listed}."]
    least, cost = order[0][1], plan.cost_usd_per_hour
    if cost is not None and cost > least * 1.02:
        text.append(f"Whole replicas, limits and inventory bring that to {_plain(cost)}.")
    return text


def effort_of(menu: Menu, price: Mapping[str, float]) -> dict[str, float]:
    """Least $/h of all classes' rates by GPU type (or types of a pod) if replicas could be cut: for each class the
    template with the least price per request. A type that cannot serve some class is left out."""
    found: dict[str, dict[str, float]] = {}
    for template in menu.templates:
        name = " + ".join(sorted(template.gpus))
        cost = sum(count * price[gpu] for gpu, count in template.gpus.items())
        row = found.setdefault(name, {})
        for klass, rate in template.capacity.items():
            row[klass] = min(row.get(klass, math.inf), cost / rate if rate > 0 else math.inf)
    rates = {c.name: c.rate for c in menu.classes}
    totals = {
        name: sum(rate * row.get(klass, math.inf) for klass, rate in rates.items()) for name, row in found.items()
    }
    return {name: total for name, total in totals.items() if total < math.inf}
