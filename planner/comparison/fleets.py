"""Fleets as the optimiser sees them: offers of GPU types, their union, and each type without limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from planner.job.comparing import UNION
from planner.search.mixture import Offer
from planner.search.supply import Supply

# Enough GPUs to hold a replica of any layout worth having where a type has no limit.
UNLIMITED_REPLICA = 64
BOUNDLESS = 10**6


@dataclass(frozen=True, slots=True)
class FleetOffer:
    """A fleet as the user named it; ``unpriced`` GPU types have an offer whose price nobody knows."""

    name: str
    supplies: tuple[Supply, ...]
    offers: tuple[Offer, ...]
    unpriced: frozenset[str] = frozenset()

    @property
    def gpus(self) -> int:
        """GPUs there are, 0 where a type has no limit."""
        return 0 if any(o.available is None for o in self.offers) else sum(o.available or 0 for o in self.offers)

    @property
    def counts(self) -> dict[str, int]:
        """GPUs by type; more than any replica takes where a type has no limit."""
        found: dict[str, int] = {}
        for offer in self.offers:
            found[offer.gpu] = found.get(offer.gpu, 0) + (BOUNDLESS if offer.available is None else offer.available)
        return found


def union_of(fleets: Sequence[FleetOffer]) -> FleetOffer:
    """All fleets together: counts of one GPU type on equal terms add up."""
    supplies: dict[str, Supply] = {}
    for fleet in fleets:
        for supply in fleet.supplies:
            known = supplies.get(supply.accelerator.id)
            supplies[supply.accelerator.id] = supply if known is None else known.joined(supply)
    offers = merged(offer for fleet in fleets for offer in fleet.offers)
    return FleetOffer(UNION, tuple(supplies.values()), offers, frozenset[str]().union(*(f.unpriced for f in fleets)))


def unlimited(supply: Supply, union: FleetOffer) -> FleetOffer:
    """As many GPUs of a type as one likes, at its lowest price: on demand, where it is offered so."""
    gpu = supply.accelerator.id
    _, price = min((o.spot, o.price) for o in union.offers if o.gpu == gpu)
    return FleetOffer(f"unlimited {gpu}", (supply,), (Offer(gpu, gpu, price),), union.unpriced & {gpu})


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


def largest(supplies: Sequence[Supply]) -> list[Supply]:
    """Enough of every type for all layouts that an unlimited fleet could want."""
    return [replace(s, count=max(s.count, min(UNLIMITED_REPLICA, 2 * s.accelerator.gpus_per_node))) for s in supplies]
