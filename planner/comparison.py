"""The same job on several fleets: each as given, all of them together, and each GPU type without limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from planner.architecture.model import Model
from planner.job.classes import WorkloadClass
from planner.job.job import Job
from planner.mixed_plan import mixture_plan
from planner.plan import Plan
from planner.search.mixed import Menu, build_menu, offers_of, problem_of, solve_fleet
from planner.search.mixture import MixtureResult, Offer, SolveOptions
from planner.search.mixture.marginal import marginal_values
from planner.search.search import Progress, Supply
from planner.serving.engine import Engine

# Enough GPUs to hold a replica of any layout worth having where a type has no limit.
UNLIMITED_REPLICA = 64


@dataclass(frozen=True, slots=True)
class FleetOffer:
    """A fleet as the user named it."""

    name: str
    supplies: tuple[Supply, ...]
    offers: tuple[Offer, ...]

    @property
    def gpus(self) -> int:
        """GPUs there are, 0 where a type has no limit."""
        return 0 if any(o.available is None for o in self.offers) else sum(o.available or 0 for o in self.offers)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the comparison: a plan, or the reason why there is none. ``given`` fleets come first."""

    fleet: str
    plan: Plan | None
    reason: str | None
    given: bool = True


@dataclass(frozen=True, slots=True)
class Marginal:
    """What one more GPU is worth, by exact re-solve: $/h saved at the rate, and output tokens/s gained on the fleet."""

    gpu: str
    usd_per_hour: float
    output_rate: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that is compared, and who wins why."""

    entries: tuple[Entry, ...]
    marginal: tuple[Marginal, ...]
    winner: str
    why: str


def compare(
    model: Model,
    engine: Engine,
    fleets: Sequence[FleetOffer],
    job: Job,
    classes: tuple[WorkloadClass, ...],
    options: SolveOptions,
    progress: Progress | None = None,
) -> Comparison:
    """Solve the job exactly on every fleet, on their union, and on each GPU type without limit.

    With a rate (of the job or of its classes) every fleet carries it as cheaply as it can. Without one each carries as
    much as it can, and an unlimited type what the best given fleet carries.
    """
    show = progress or (lambda message: None)
    union = _union(fleets)
    menu = build_menu(model, engine, _largest(union.supplies), job, classes, progress)
    scale = 1.0 if job.workload.rate is not None else None
    entries, results = [], {}
    for fleet in [*fleets, *([union] if len(fleets) > 1 else [])]:
        show(f"solving {fleet.name}")
        results[fleet.name] = solve_fleet(menu, fleet.offers, scale=scale, options=options)
        entries.append(_entry(menu, results[fleet.name], job, fleet, given=fleet is not union))
    carried = scale or max((r.plan.rate_multiple for r in results.values() if r.plan), default=None)
    for supply in union.supplies:
        show(f"solving {supply.accelerator.id} without limit")
        alone = FleetOffer(f"unlimited {supply.accelerator.id}", (supply,), offers_of([supply], limited=False))
        if carried is None:
            entries.append(
                Entry(alone.name, None, "no given fleet carries the job, so there is no rate to match", False)
            )
            continue
        result = solve_fleet(menu, alone.offers, scale=carried, options=options)
        entries.append(_entry(menu, result, job, alone, given=False))
    marginal = _marginal(menu, union, scale, options)
    return Comparison(tuple(entries), marginal, *_winner(entries, scale is not None))


def _union(fleets: Sequence[FleetOffer]) -> FleetOffer:
    """All fleets together: counts of one GPU type at one price add up."""
    supplies: dict[str, Supply] = {}
    offers: dict[tuple[str, float, str, bool, int], Offer] = {}
    for fleet in fleets:
        for supply in fleet.supplies:
            known = supplies.get(supply.accelerator.id)
            count = supply.count + (known.count if known else 0)
            supplies[supply.accelerator.id] = replace(supply, count=count)
        for offer in fleet.offers:
            key = (offer.gpu, offer.price, offer.region, offer.spot, offer.node_gpus)
            known_offer = offers.get(key)
            offers[key] = offer if known_offer is None else _added(known_offer, offer)
    named = tuple(
        replace(o, id=f"{o.id}#{i}") if _twice(o, offers.values()) else o for i, o in enumerate(offers.values())
    )
    return FleetOffer("union", tuple(supplies.values()), named)


def _twice(offer: Offer, offers: Iterable[Offer]) -> bool:
    return sum(other.id == offer.id for other in offers) > 1


def _added(first: Offer, second: Offer) -> Offer:
    both = None if first.available is None or second.available is None else first.available + second.available
    return replace(first, available=both)


def _largest(supplies: Sequence[Supply]) -> list[Supply]:
    """Enough of every type for all layouts that an unlimited fleet could want."""
    return [replace(s, count=max(s.count, min(UNLIMITED_REPLICA, 2 * s.accelerator.gpus_per_node))) for s in supplies]


def _entry(menu: Menu, result: MixtureResult, job: Job, fleet: FleetOffer, *, given: bool) -> Entry:
    if result.plan is None:
        parts = [r.message for r in (*result.relax, *result.shortfall)]
        nearest = next((f"{reason}: {near}" for reason, _, near in menu.rejections.rows()), "no layout serves the job")
        return Entry(fleet.name, None, "; ".join(parts) or nearest, given)
    return Entry(fleet.name, mixture_plan(menu, result, job, fleet=fleet.gpus or None), None, given)


def _marginal(menu: Menu, union: FleetOffer, scale: float | None, options: SolveOptions) -> tuple[Marginal, ...]:
    """Both views of one more GPU: money saved at the asked rate, and output gained when everything is used."""
    saved = {}
    if scale is not None:
        saved = {
            m.offer: m.gain / m.gpus for m in marginal_values(problem_of(menu, union.offers, scale=scale), options)
        }
    tokens = sum(c.rate * c.osl for c in menu.classes)
    gained = {
        m.offer: m.gain / m.gpus * tokens for m in marginal_values(problem_of(menu, union.offers, scale=None), options)
    }
    return tuple(
        Marginal(offer.id, saved.get(offer.id, 0.0), gained.get(offer.id, 0.0))
        for offer in union.offers
        if offer.available is not None
    )


def _winner(entries: Sequence[Entry], rated: bool) -> tuple[str, str]:
    """The given fleet, or the union, that serves the job best, and the sentence that says why."""
    able = [e for e in entries if e.plan is not None and not e.fleet.startswith("unlimited ")]
    if not able:
        return "", "no fleet can serve the job: " + "; ".join(f"{e.fleet}: {e.reason}" for e in entries if e.reason)
    order = sorted(able, key=lambda e: _worth(e, rated))
    best = order[0]
    text = f"{best.fleet} {_does(best, rated)}"
    if len(order) > 1:
        text += f"; {order[1].fleet} {_does(order[1], rated)}"
    cheaper = [
        e
        for e in entries
        if e.plan is not None and e.fleet.startswith("unlimited ") and _worth(e, rated) < _worth(best, rated)
    ]
    if cheaper:
        lead = min(cheaper, key=lambda e: _worth(e, rated))
        text += f". Without limits, {lead.fleet.removeprefix('unlimited ')} alone would do better: {_does(lead, rated)}"
    return best.fleet, text + "."


def _worth(entry: Entry, rated: bool) -> tuple[float, float]:
    """Sort key, best first: $/h for a rate, $/M tokens without one; then GPUs or output."""
    plan = entry.plan
    assert plan is not None
    if rated:
        return (plan.cost_usd_per_hour if plan.cost_usd_per_hour is not None else float("inf"), plan.gpus_total)
    cost = plan.usd_per_million_output_tokens
    return (cost if cost is not None else float("inf"), -plan.predicted.output_tok_s)


def _does(entry: Entry, rated: bool) -> str:
    """What a plan achieves at what price, in a phrase."""
    plan = entry.plan
    assert plan is not None
    used = " + ".join(f"{count} {gpu}" for gpu, count in plan.gpus.items())
    price = "at an unknown price" if plan.cost_usd_per_hour is None else f"for {plan.cost_usd_per_hour:,.4g} $/h"
    unit = plan.usd_per_million_output_tokens
    each = "" if unit is None else f" ({unit:,.3g} $/M tokens)"
    verb = "carries the rate" if rated else f"gives {plan.predicted.output_tok_s:,.4g} tok/s"
    return f"{verb} with {used} {price}{each}"
