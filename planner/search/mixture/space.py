"""From a problem to what can be decided: active classes, pools of replicas and where they can stand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from planner.search.mixture.patterns import fewest_nodes
from planner.search.mixture.problem import MixtureProblem, Offer, RequestClass, Role, Template

LAST_NODE = " (last node)"
"""Added to the name of an offer for the node that is smaller than the others."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The replicas of one template in one region; they share load freely."""

    template: Template
    region: str
    utilisation: float

    @property
    def id(self) -> str:
        """Template name, with the region where there are several."""
        return f"{self.template.id}@{self.region}" if self.region else self.template.id

    def capacity(self, request: RequestClass) -> float:
        """Requests/s of the class that one replica carries alone (0: none)."""
        usable = self.template.model == request.model and not (request.prefilled and self.template.role is Role.PREFILL)
        return self.template.capacity.get(request.id, 0.0) if usable else 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Replicas of a pool whose GPUs come from these offers, one offer per GPU type."""

    pool: int
    offers: tuple[tuple[int, int], ...]  # (offer index, GPUs of one replica)


@dataclass(frozen=True, slots=True)
class Space:
    """The decision space of a problem; indices refer to these tuples."""

    problem: MixtureProblem
    classes: tuple[RequestClass, ...]
    offers: tuple[Offer, ...]
    pools: tuple[Pool, ...]
    placements: tuple[Placement, ...]

    def load(self, pool: int, request: RequestClass) -> float | None:
        """Replicas of the pool that the whole class would keep busy: rate / capacity (None: it cannot)."""
        capacity = self.pools[pool].capacity(request)
        return request.rate / capacity if capacity > 0 and request.rate / capacity < math.inf else None

    def pieces(self, placement: int, offer: int) -> Counter[int]:
        """How many parts of each size a replica of a placement has on an offer."""
        item = self.placements[placement]
        gpu = self.offers[offer].gpu
        here = any(index == offer for index, _ in item.offers)
        return Counter(self.pools[item.pool].template.pieces_on(gpu) if here else ())

    def of_pool(self, pool: int) -> list[int]:
        """Indices of the placements of a pool."""
        return [k for k, placement in enumerate(self.placements) if placement.pool == pool]


def build_space(problem: MixtureProblem, templates: tuple[Template, ...] | None = None) -> Space:
    """Enumerate pools and placements; leave out what has no demand, no capacity or no room."""
    classes = tuple(c for c in problem.classes if c.rate > 0)
    offers = tuple(part for offer in problem.offers for part in split_partial_node(offer))
    pools: list[Pool] = []
    placements: list[Placement] = []
    regions = sorted({o.region for o in offers})
    for template in problem.templates if templates is None else templates:
        ceiling = problem.limits.utilisation
        rho = ceiling if template.utilisation is None else min(ceiling, template.utilisation)
        for region in regions:
            pool = Pool(template, region, rho)
            choices = list(_places(pool, offers))
            if choices and any(pool.capacity(c) > 0 for c in classes):
                placements += [Placement(len(pools), choice) for choice in choices]
                pools.append(pool)
    return Space(problem, classes, offers, tuple(pools), tuple(placements))


def split_partial_node(offer: Offer) -> tuple[Offer, ...]:
    """An owned fleet of 12 GPUs in nodes of 8 is one node of 8 and one of 4, not 8 usable GPUs."""
    if offer.available is None or offer.available % offer.node_gpus == 0:
        return (offer,)
    rest = offer.available % offer.node_gpus
    last = replace(offer, id=offer.id + LAST_NODE, available=rest, node_gpus=rest)
    whole = offer.available - rest
    return (replace(offer, available=whole), last) if whole else (last,)


def _places(pool: Pool, offers: tuple[Offer, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every way to take the GPUs of a replica from offers of its region that have room for one."""
    per_type = []
    for gpu, count in sorted(pool.template.gpus.items()):
        fits = [
            (index, count)
            for index, offer in enumerate(offers)
            if offer.gpu == gpu and offer.region == pool.region and _has_room(offer, pool.template.pieces_on(gpu))
        ]
        per_type.append(fits)
    return product(*per_type)


def _has_room(offer: Offer, sizes: Sequence[int]) -> bool:
    return offer.available is None or offer.available // offer.node_gpus >= nodes_of_pieces(offer, sizes)


def nodes_of_pieces(offer: Offer, sizes: Sequence[int]) -> int:
    """Fewest nodes that hold parts of these sizes; a part larger than a node takes whole nodes for itself."""
    small = Counter(size for size in sizes if size <= offer.node_gpus)
    large = sum(-(-size // offer.node_gpus) for size in sizes if size > offer.node_gpus)
    return large + fewest_nodes(small, offer.node_gpus)
