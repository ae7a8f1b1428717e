"""Make the problem smaller without changing its optimum: dominated templates, proportional classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.search.mixture.problem import MixtureProblem, Offer, RequestClass, Template


@dataclass(frozen=True, slots=True)
class MergedClasses:
    """Classes that every template serves in one fixed proportion act as one: ``members`` by representative."""

    classes: tuple[RequestClass, ...]
    members: dict[str, tuple[str, ...]]


def undominated(problem: MixtureProblem) -> tuple[Template, ...]:
    """Drop a template if k copies of another do all it does in its place.

    t' dominates t if, with k = min over GPU types of floor(gpus_t / gpus_t'), k >= 1 and k * x_t' >= x_t for
    every capacity and KV link, k * power_t' <= power_t, and k replicas of t' fit wherever one of t fits. Under a
    limit on the spot share GPUs at work on demand are worth something by themselves, so t' must take as many.
    """
    exactly = problem.limits.spot_share is not None
    kept: list[Template] = []
    ordered = sorted(problem.templates, key=lambda t: (t.size, t.id))
    for candidate in ordered:
        if not any(_dominates(other, candidate, problem.offers, exactly) for other in kept):
            kept.append(candidate)
    # A larger template may dominate an equally large one that was kept before it.
    final = [
        t
        for t in kept
        if not any(
            o is not t and _dominates(o, t, problem.offers, exactly) and not _dominates(t, o, problem.offers, exactly)
            for o in kept
        )
    ]
    order = {t.id: i for i, t in enumerate(problem.templates)}
    return tuple(sorted(final, key=lambda t: order[t.id]))


def _dominates(small: Template, large: Template, offers: Sequence[Offer], exactly: bool) -> bool:
    same = (small.model, small.role, small.fabric) == (large.model, large.role, large.fabric)
    if not same or small.gpus.keys() != large.gpus.keys():
        return False
    copies = min(large.gpus[g] // small.gpus[g] for g in large.gpus)
    if copies < 1 or copies * small.power > large.power:
        return False
    if exactly and any(copies * small.gpus[g] != large.gpus[g] for g in large.gpus):
        return False
    if small.utilisation != large.utilisation or not _fits_in_place(small, large, offers):
        return False
    carries = all(copies * small.capacity.get(c, 0.0) >= h for c, h in large.capacity.items())
    return carries and _links_cover(small, large, copies)


def _links_cover(small: Template, large: Template, copies: int) -> bool:
    pairs = ((small.kv_egress, large.kv_egress), (small.kv_ingress, large.kv_ingress))
    return all(a is None or (b is not None and copies * a >= b) for a, b in pairs)


def _fits_in_place(small: Template, large: Template, offers: Sequence[Offer]) -> bool:
    """Node packing: copies of the small one must tile the nodes that the large one takes."""
    for offer in offers:
        size = large.gpus.get(offer.gpu)
        if size is None or offer.node_gpus == 1:
            continue
        if (small.pieces or large.pieces) and small.pieces_on(offer.gpu) != large.pieces_on(offer.gpu):
            return False
        if size <= offer.node_gpus:
            continue
        if offer.node_gpus % small.gpus[offer.gpu] != 0:
            return False
    return True


def merge_proportional(classes: Sequence[RequestClass], templates: Sequence[Template]) -> MergedClasses:
    """Merge classes whose loads rate/capacity are proportional over all templates.

    If load_2t = c * load_1t for every template t (and the KV traffic likewise), any split of both together can
    be had by splitting both alike, so class 1 with rate (1 + c) * rate_1 stands for both.
    """
    groups: dict[tuple[object, ...], list[tuple[RequestClass, float]]] = {}
    for request in classes:
        key, weight = _direction(request, templates)
        groups.setdefault(key, []).append((request, weight))
    merged, members = [], {}
    for group in groups.values():
        first, weight = group[0]
        total = sum(w for _, w in group) / weight if len(group) > 1 else 1.0
        merged.append(replace(first, rate=first.rate * total))
        members[first.id] = tuple(c.id for c, _ in group)
    return MergedClasses(tuple(merged), members)


def _direction(request: RequestClass, templates: Sequence[Template]) -> tuple[tuple[object, ...], float]:
    """Load vector over the templates, normalised by its first entry; equal to 13 digits counts as equal."""
    capacities = [t.capacity.get(request.id, 0.0) if t.model == request.model else 0.0 for t in templates]
    reference = next((c for c in capacities if c > 0), None)
    if reference is None:
        return (request.id,), request.rate
    ratios = tuple(float(f"{reference / c:.13g}") if c > 0 else None for c in capacities)
    kv_ratio = float(f"{request.kv_bytes * reference:.13g}")
    return (request.model, request.prefilled, ratios, kv_ratio), request.rate / reference
