"""The same job on several fleets: each as given, all of them together, and each GPU type without limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from planner.architecture.model import Model
from planner.job.comparing import UNION, ComparisonRequest
from planner.job.job import Job
from planner.mixed_plan import mixture_plan
from planner.plan import Plan
from planner.search.mixed import Menu, build_menu, problem_of, solve_fleet, with_corners
from planner.search.mixture import Limits, MixtureResult, Offer, SolveOptions
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
    """Everything that is compared, and who wins why; ``bucketing`` bounds what counting into classes may hide."""

    entries: tuple[Entry, ...]
    marginal: tuple[Marginal, ...]
    winner: str
    why: str
    bucketing: str | None = None


def compare(
    model: Model,
    engine: Engine,
    fleets: Sequence[FleetOffer],
    asked: ComparisonRequest,
    progress: Progress | None = None,
) -> Comparison:
    """Solve the job exactly on every fleet, on their union, and on each GPU type without limit.

    With a rate (of the job or of its classes) every fleet carries it as cheaply as it can. Without one each carries as
    much as it can, and an unlimited type what the best given fleet carries.
    """
    show = progress or (lambda message: None)
    union = _union(fleets)
    job, scale = asked.job, 1.0 if asked.job.workload.rate is not None else None
    menu = build_menu(model, engine, _largest(union.supplies), job, asked.classes, progress)
    solver = _Solver(menu, asked)
    entries, results, alone_entries = [], [], []
    for fleet in [*fleets, *([union] if len(fleets) > 1 else [])]:
        show(f"solving {fleet.name}")
        results.append(solver.solve(fleet.offers, scale))
        entries.append(_entry(menu, results[-1], job, fleet, given=fleet is not union))
    carried = scale or max((r.plan.rate_multiple for r in results if r.plan), default=None)
    for supply in union.supplies:
        show(f"solving {supply.accelerator.id} without limit")
        alone = _unlimited(supply, union.offers)
        if carried is None:
            reason = "no given fleet carries the job, so there is no rate to match"
            alone_entries.append(Entry(alone.name, None, reason, False))
            continue
        alone_entries.append(_entry(menu, solver.solve(alone.offers, carried), job, alone, given=False))
    # The union, or the only fleet.
    bucketing = _bucketing(model, engine, union, asked, results[-1])
    winner, why = _winner(entries, alone_entries, scale is not None)
    return Comparison((*entries, *alone_entries), solver.marginal(union, scale), winner, why, bucketing)


@dataclass(frozen=True, slots=True)
class _Solver:
    """The exact mixture of one menu under the rules that were asked."""

    menu: Menu
    asked: ComparisonRequest

    @property
    def limits(self) -> Limits:
        rules = self.asked.rules
        return Limits(rules.headroom, rules.spare, rules.budget, spot_share=rules.spot_share)

    @property
    def options(self) -> SolveOptions:
        return SolveOptions(solver=self.asked.rules.solver, seconds=self.asked.rules.seconds)

    def solve(self, offers: tuple[Offer, ...], scale: float | None) -> MixtureResult:
        return solve_fleet(self.menu, offers, scale=scale, limits=self.limits, options=self.options)

    def marginal(self, union: FleetOffer, scale: float | None) -> tuple[Marginal, ...]:
        """Both views of one more GPU: money saved at the asked rate, and output gained when everything is used."""

        def gains(goal_scale: float | None) -> dict[str, float]:
            problem = problem_of(self.menu, union.offers, scale=goal_scale, limits=self.limits)
            return {m.offer: m.gain / m.gpus for m in marginal_values(problem, self.options)}

        saved, gained = gains(scale) if scale is not None else {}, gains(None)
        tokens = sum(c.rate * c.osl for c in self.menu.classes)
        return tuple(
            Marginal(offer.id, saved.get(offer.id, 0.0), gained.get(offer.id, 0.0) * tokens)
            for offer in union.offers
            if offer.available is not None
        )


def _bucketing(
    model: Model, engine: Engine, union: FleetOffer, asked: ComparisonRequest, solved: MixtureResult
) -> str | None:
    """What counting a trace into classes may hide: the cost with the shortest and longest lengths of each class."""
    if all(c.low == c.high for c in asked.classes) or solved.plan is None or asked.job.workload.rate is None:
        return None
    bounds = []
    for corner in ("low", "high"):
        menu = build_menu(model, engine, _largest(union.supplies), asked.job, with_corners(asked.classes, corner))
        result = _Solver(menu, asked).solve(tuple(replace(o, available=None) for o in union.offers), 1.0)
        bounds.append(None if result.plan is None else result.plan.cost)
    low, high = bounds
    above = "no fleet" if high is None else f"{high:,.4g} $/h"
    below = "0 $/h" if low is None else f"{low:,.4g} $/h"
    return (
        f"{len(asked.classes)} classes stand for the trace. Were every request at the short or the long end of its "
        f"class, the cheapest mixture would cost {below} or {above}, against {solved.plan.cost:,.4g} $/h at the means."
    )


def _union(fleets: Sequence[FleetOffer]) -> FleetOffer:
    """All fleets together: counts of one GPU type on equal terms add up; a type's price is its lowest."""
    supplies: dict[str, Supply] = {}
    for fleet in fleets:
        for supply in fleet.supplies:
            known = supplies.get(supply.accelerator.id)
            supplies[supply.accelerator.id] = supply if known is None else known.joined(supply)
    return FleetOffer(UNION, tuple(supplies.values()), merged(offer for fleet in fleets for offer in fleet.offers))


def _unlimited(supply: Supply, offers: Sequence[Offer]) -> FleetOffer:
    """As many GPUs of a type as one likes, at its lowest price: on demand, where it is offered so."""
    gpu = supply.accelerator.id
    _, price = min((o.spot, o.price) for o in offers if o.gpu == gpu)
    return FleetOffer(f"unlimited {gpu}", (supply,), (Offer(gpu, gpu, price),))


def merged(offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """Offers of one GPU type on equal terms as one, each with a name of its own: the type, and what tells it apart."""
    found: dict[tuple[str, float, str, bool, int], Offer] = {}
    for offer in offers:
        key = (offer.gpu, offer.price, offer.region, offer.spot, offer.node_gpus)
        found[key] = _added(found[key], offer) if key in found else offer
    kinds = tuple(found.values())
    return tuple(replace(o, id=_offer_name(o, [k for k in kinds if k.gpu == o.gpu])) for o in kinds)


def _offer_name(offer: Offer, rivals: Sequence[Offer]) -> str:
    """The GPU type with those of its terms in which the offers of this type differ."""
    terms: tuple[tuple[str, int], ...] = (
        (offer.region, len({r.region for r in rivals})),
        ("spot" if offer.spot else "on demand", len({r.spot for r in rivals})),
        (f"in nodes of {offer.node_gpus}", len({r.node_gpus for r in rivals})),
        (f"at {offer.price:.12g} $/h", len({r.price for r in rivals})),
    )
    return " ".join([offer.gpu, *(term for term, kinds in terms if term and kinds > 1)])


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


def _winner(entries: Sequence[Entry], alone: Sequence[Entry], rated: bool) -> tuple[str, str]:
    """The given fleet, or the union, that serves the job best, and the sentence that says why."""
    able = [e for e in entries if e.plan is not None]
    if not able:
        reasons = [f"{e.fleet}: {e.reason}" for e in (*entries, *alone) if e.reason]
        return "", "no fleet can serve the job: " + "; ".join(reasons)
    order = sorted(able, key=lambda e: _worth(e, rated))
    best = order[0]
    text = f"{best.fleet} {_does(best, rated)}"
    if len(order) > 1:
        text += f"; {order[1].fleet} {_does(order[1], rated)}"
    cheaper = [e for e in alone if e.plan is not None and _worth(e, rated) < _worth(best, rated)]
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
