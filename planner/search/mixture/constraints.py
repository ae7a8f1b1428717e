"""One function per constraint, named after the law it states. Symbols:

n_k replicas of placement k, x_pw share of class w on pool p, r_w rate in requests/s, h_pw capacity in
requests/s, rho_p utilisation limit, N_o nodes of offer o, u_p whether pool p is used, lambda the
common multiple of all rates (1 unless throughput is the goal).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from planner.search.mixture.formulation import TINY_LOAD, UNBOUNDED_SHARE, Formulation
from planner.search.mixture.patterns import node_patterns, sizes_nest
from planner.search.mixture.problem import Role
from planner.search.mixture.space import nodes_of_pieces

ENTRY = frozenset({Role.AGGREGATED, Role.PREFILL})
AFTER_PREFILL = frozenset({Role.DECODE, Role.ATTENTION})
LATE_ENTRY = AFTER_PREFILL | {Role.AGGREGATED}


def serve_the_demand(form: Formulation) -> None:
    """Every class is served in full: sum over entry pools of x_pw = lambda.

    Requests enter at aggregated or prefill replicas; those that arrive with their KV cache at decode or attention.
    """
    units = 1.0 / form.slice_size
    for w, request in enumerate(form.space.classes):
        terms = list(_shares(form, w, LATE_ENTRY if request.prefilled else ENTRY))
        if form.rate is not None:
            form.model.row("demand", request.id, [*terms, (form.rate, -1.0)], lower=0.0, upper=0.0)
        else:
            form.model.row("demand", request.id, terms, lower=units, upper=units)


def balance_prefill_and_decode(form: Formulation) -> None:
    """What is prefilled is decoded: sum_prefill x_pw = sum_decode x_pw + sum_attention x_pw, in every region."""
    for region in sorted({p.region for p in form.space.pools}):
        for w, request in enumerate(form.space.classes):
            if request.prefilled:
                continue
            sent = list(_shares(form, w, {Role.PREFILL}, region))
            taken = list(_shares(form, w, AFTER_PREFILL, region))
            _equal(form, "prefill-decode balance", f"{request.id} {region}".strip(), sent, taken)


def balance_attention_and_ffn(form: Formulation) -> None:
    """Attention and FFN replicas see the same tokens: sum_attention x_pw = sum_ffn x_pw, per region and fabric."""
    zones = sorted({(p.region, p.template.fabric) for p in form.space.pools})
    for region, fabric in zones:
        for w, request in enumerate(form.space.classes):
            left = list(_shares(form, w, {Role.ATTENTION}, region, fabric))
            right = list(_shares(form, w, {Role.FFN}, region, fabric))
            _equal(form, "attention-FFN balance", f"{request.id} {region} {fabric}".strip(), left, right)


def stay_within_capacity(form: Formulation) -> None:
    """Busy replicas stay below the utilisation limit: sum_w x_pw r_w / h_pw <= rho_p (n_p - k u_p).

    k replicas may fail (spare replicas) and the others still carry the load of the pool.
    """
    spares = form.space.problem.limits.spare_replicas
    for p, pool in enumerate(form.space.pools):
        busy = [(column, form.load(q, w)) for (q, w), column in form.share.items() if q == p]
        have = [(form.replicas[k], -pool.utilisation) for k in form.space.of_pool(p)]
        lost = [(form.used[p], pool.utilisation * spares)] if spares else []
        form.model.row("capacity", pool.id, [*busy, *have, *lost], upper=0.0)


def serve_only_with_replicas(form: Formulation) -> None:
    """No replica, no service: x_pw <= n_p where the load is tiny, x_pw <= u_p where u_p exists.

    Implied by the capacity rows in exact arithmetic, but a class that loads a replica by less than the solver's
    tolerance would be served by nothing. With u_p the bound is tighter than any big constant.
    """
    full = 1.0 / form.slice_size if form.rate_bounded else UNBOUNDED_SHARE
    for (p, w), column in form.share.items():
        replicas = [(form.replicas[k], -full) for k in form.space.of_pool(p)]
        name = f"{form.space.pools[p].id} {form.space.classes[w].id}"
        if form.load(p, w) * full < TINY_LOAD * form.space.pools[p].utilisation:
            form.model.row("presence", name, [(column, 1.0), *replicas], upper=0.0)
        if p in form.used:
            form.model.row("use", name, [(column, 1.0), (form.used[p], -full)], upper=0.0)


def stay_within_kv_links(form: Formulation) -> None:
    """KV caches fit through the replicas' links: sum_w x_pw r_w kv_w <= n_p B_p, sending and receiving."""
    for p, pool in enumerate(form.space.pools):
        template = pool.template
        sides = (
            ("KV egress", template.kv_egress, {Role.PREFILL}),
            ("KV ingress", template.kv_ingress, AFTER_PREFILL),
        )
        for law, bandwidth, roles in sides:
            if bandwidth is None or template.role not in roles:
                continue
            traffic = [
                (
                    column,
                    form.space.classes[w].rate * form.space.classes[w].kv_bytes * form.slice_size * form.rate_unit,
                )
                for (q, w), column in form.share.items()
                if q == p and not form.space.classes[w].prefilled
            ]
            have = [(form.replicas[k], -bandwidth) for k in form.space.of_pool(p)]
            form.model.row(law, pool.id, [*traffic, *have], upper=0.0)


def route_kv_between_fabrics(form: Formulation) -> None:
    """KV flows f_abw between fabrics: leaving a = prefilled on a, arriving at b = decoded on b.

    Across fabrics sum_w f_abw r_w kv_w <= B_ab over the listed links; within a fabric there is no limit.
    """
    links = form.space.problem.limits.kv_links
    if links is None:
        return
    allowed = {(link.source, link.target): link.bandwidth for link in links}
    regions = sorted({p.region for p in form.space.pools})
    fabrics = sorted({p.template.fabric for p in form.space.pools})
    flows: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for region, (w, request) in product(regions, enumerate(form.space.classes)):
        if request.prefilled:
            continue
        leaving: dict[str, list[tuple[int, float]]] = {f: [] for f in fabrics}
        arriving: dict[str, list[tuple[int, float]]] = {f: [] for f in fabrics}
        for a, b in product(fabrics, fabrics):
            if a == b or (a, b) in allowed:
                column = form.model.variable(f"flow {a} {b} {request.id} {region}")
                leaving[a].append((column, 1.0))
                arriving[b].append((column, 1.0))
                traffic = request.rate * request.kv_bytes * form.slice_size * form.rate_unit
                flows.setdefault((a, b), []).append((column, traffic))
        for fabric in fabrics:
            name = f"{request.id} {fabric} {region}".strip()
            sent = list(_shares(form, w, {Role.PREFILL}, region, fabric))
            taken = list(_shares(form, w, AFTER_PREFILL, region, fabric))
            _equal(form, "KV leaves its fabric", name, leaving[fabric], sent)
            _equal(form, "KV reaches its fabric", name, arriving[fabric], taken)
    for (a, b), terms in flows.items():
        if (a, b) in allowed:
            form.model.row("KV link", f"{a} to {b}", terms, upper=allowed[a, b])


def pack_nodes(form: Formulation) -> None:
    """Replicas stand inside nodes: sum of their GPUs <= node size * N_o.

    Exact where replica sizes nest (each divides the next and the node), as powers of two do. Otherwise columns are
    patterns, the maximal ways to fill one node: sum_patterns count_s y >= replicas of size s, N_o = sum y.
    """
    for offer_index, nodes in form.nodes.items():
        offer = form.space.offers[offer_index]
        by_size: dict[int, list[tuple[int, float]]] = {}
        whole: list[tuple[int, float]] = []
        for k, column in enumerate(form.replicas):
            for size, parts in form.space.pieces(k, offer_index).items():
                if size <= offer.node_gpus:
                    by_size.setdefault(size, []).append((column, float(parts)))
                else:
                    whole.append((column, float(parts * nodes_of_pieces(offer, (size,)))))
        if sizes_nest(by_size, offer.node_gpus):
            used = [(c, n * s) for s, columns in by_size.items() for c, n in columns]
            taken = [(c, n * offer.node_gpus) for c, n in whole]
            form.model.row("node packing", offer.id, [*used, *taken, (nodes, -float(offer.node_gpus))], upper=0.0)
        else:
            _fill_by_patterns(form, offer_index, by_size, whole)


def _fill_by_patterns(
    form: Formulation,
    offer_index: int,
    by_size: dict[int, list[tuple[int, float]]],
    whole: list[tuple[int, float]],
) -> None:
    offer = form.space.offers[offer_index]
    sizes = tuple(sorted(by_size))
    columns = []
    for pattern in node_patterns(sizes, offer.node_gpus):
        columns.append((form.model.variable(f"nodes {offer.id} {pattern}", integer=True), pattern))
    for position, size in enumerate(sizes):
        places = [(column, float(pattern[position])) for column, pattern in columns]
        form.model.row(
            "node packing",
            f"{offer.id} size {size}",
            [*places, *((c, -n) for c, n in by_size[size])],
            lower=0.0,
        )
    total = [(column, 1.0) for column, _ in columns]
    form.model.row("node packing", offer.id, [*total, *whole, (form.nodes[offer_index], -1.0)], upper=0.0)


def stay_within_inventory(form: Formulation) -> None:
    """No more GPUs than exist: GPUs rented from o <= available_o."""
    for index, offer in enumerate(form.space.offers):
        terms = form.gpu_terms(index)
        if offer.available is not None and terms:
            form.model.row("inventory", offer.id, terms, upper=float(offer.available))


def stay_within_budget(form: Formulation) -> None:
    """sum over offers of price * GPUs <= budget, US dollars per hour."""
    if form.space.problem.limits.budget is None:
        return
    terms = [
        (column, count * offer.price)
        for index, offer in enumerate(form.space.offers)
        for column, count in form.gpu_terms(index)
    ]
    form.model.row("budget", "budget", terms, upper=form.space.problem.limits.budget)


def stay_within_power(form: Formulation) -> None:
    """sum over replicas of their power <= power limit, watts."""
    if form.space.problem.limits.power is None:
        return
    terms = [
        (form.replicas[k], form.space.pools[placement.pool].template.power)
        for k, placement in enumerate(form.space.placements)
    ]
    form.model.row("power", "power", terms, upper=form.space.problem.limits.power)


def limit_spot_share(form: Formulation) -> None:
    """Of the GPUs that replicas stand on, at most a share s is spot: sum_spot - s * sum_all <= 0.

    Idle GPUs of rented nodes do not count: renting idle on-demand nodes makes nothing safer.
    """
    share = form.space.problem.limits.spot_share
    if share is None:
        return
    terms = [
        (form.replicas[k], count * ((1.0 if form.space.offers[index].spot else 0.0) - share))
        for k, placement in enumerate(form.space.placements)
        for index, count in placement.offers
    ]
    form.model.row("spot share", "spot share", terms, upper=0.0)


def serve_from_each_region(form: Formulation) -> None:
    """A region serves at least its floor of all requests.

    sum over its entry pools of x_pw r_w >= floor * sum_w lambda r_w.
    """
    total = sum(c.rate for c in form.space.classes)
    for region, floor in form.space.problem.limits.region_floor.items():
        terms: list[tuple[int, float]] = []
        for w, request in enumerate(form.space.classes):
            entry = LATE_ENTRY if request.prefilled else ENTRY
            rate = request.rate * form.slice_size
            terms += [(column, rate) for column, _ in _shares(form, w, entry, region)]
        if form.rate is not None:
            form.model.row("region floor", region, [*terms, (form.rate, -floor * total)], lower=0.0)
        else:
            form.model.row("region floor", region, terms, lower=floor * total)


def _shares(
    form: Formulation, w: int, roles: Iterable[Role], region: str | None = None, fabric: str | None = None
) -> Iterator[tuple[int, float]]:
    """Share columns of a class on the pools with one of these roles."""
    wanted = frozenset(roles)
    for p, pool in enumerate(form.space.pools):
        if pool.template.role not in wanted or (p, w) not in form.share:
            continue
        if region in (None, pool.region) and fabric in (None, pool.template.fabric):
            yield form.share[p, w], 1.0


def _equal(
    form: Formulation, law: str, name: str, left: list[tuple[int, float]], right: list[tuple[int, float]]
) -> None:
    if left or right:
        form.model.row(law, name, [*left, *((c, -v) for c, v in right)], lower=0.0, upper=0.0)
