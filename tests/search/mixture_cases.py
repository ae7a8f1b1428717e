"""Random problems and answers found without any solver."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

from planner.search.mixture import Goal, Limits, MixtureProblem, Offer, RequestClass, Role, Template


def two_types(seed: int) -> MixtureProblem:
    """Two GPU types, up to six classes, some that only one type can serve, some limits on inventory."""
    rng = random.Random(seed)
    classes = tuple(RequestClass(f"c{i}", "m", rng.randint(0, 40) / 10) for i in range(rng.randint(1, 6)))
    templates = tuple(
        Template(g, "m", {g: 1}, {c.id: rng.choice((0, *range(1, 30))) / 10 for c in classes}) for g in "ab"
    )
    offers = tuple(Offer(g, g, rng.randint(1, 500) / 100, rng.choice((None, None, rng.randint(0, 6)))) for g in "ab")
    return MixtureProblem(templates, offers, classes, Limits(utilisation=rng.choice((1.0, 0.8))))


def cheapest_of_two(problem: MixtureProblem) -> Fraction | None:
    """Exact optimum for two types: each count of a takes the classes that b is worst at (fractional knapsack)."""
    a, b = problem.templates
    rho = Fraction(str(problem.limits.utilisation))
    loads = []
    for request in problem.classes:
        if request.rate == 0:
            continue
        pair = [_load(request.rate, t.capacity[request.id]) for t in (a, b)]
        if pair == [None, None]:
            return None
        loads.append(pair)
    loads.sort(key=lambda p: math.inf if p[1] is None else 0 if p[0] is None else float(p[1] / p[0]), reverse=True)
    limit = math.ceil(sum((p[0] for p in loads if p[0] is not None), Fraction(0)) / rho)
    best: Fraction | None = None
    for count in range(min(limit, _most(problem.offers[0])) + 1):
        second = _rest_on_b(loads, count * rho)
        if second is None:
            continue
        other = math.ceil(second / rho)
        if other <= _most(problem.offers[1]):
            price = [Fraction(str(o.price)) for o in problem.offers]
            cost = count * price[0] + other * price[1]
            best = cost if best is None else min(best, cost)
    return best


def _load(rate: float, capacity: float) -> Fraction | None:
    return Fraction(str(rate)) / Fraction(str(capacity)) if capacity else None


def _most(offer: Offer) -> int:
    return 10**6 if offer.available is None else offer.available


def _rest_on_b(loads: list[list[Fraction | None]], room: Fraction) -> Fraction | None:
    """Load of type b once type a has filled ``room``; None if a class that only a can serve does not fit."""
    rest = Fraction(0)
    for on_a, on_b in loads:
        part = Fraction(0) if on_a is None else min(Fraction(1), room / on_a)
        room -= part * (on_a or 0)
        if part < 1 and on_b is None:
            return None
        rest += (1 - part) * (on_b or 0)
    return rest


def three_types_sliced(seed: int) -> MixtureProblem:
    """Three types, up to three classes in up to three slices."""
    rng = random.Random(seed)
    classes = tuple(RequestClass(f"c{i}", "m", rng.randint(1, 40) / 10) for i in range(rng.randint(1, 3)))
    templates = tuple(
        Template(g, "m", {g: 1}, {c.id: rng.choice((0, *range(1, 30))) / 10 for c in classes}) for g in "abc"
    )
    offers = tuple(Offer(g, g, rng.randint(1, 500) / 100, rng.choice((None, rng.randint(0, 5)))) for g in "abc")
    return MixtureProblem(templates, offers, classes, slices=rng.randint(1, 3))


def cheapest_sliced(problem: MixtureProblem) -> Fraction | None:
    """Every way to give the slices of every class to the types."""
    slices = problem.slices or 1
    ways = [w for w in itertools.product(range(slices + 1), repeat=3) if sum(w) == slices]
    best: Fraction | None = None
    for choice in itertools.product(ways, repeat=len(problem.classes)):
        cost: Fraction | None = Fraction(0)
        for t, (template, offer) in enumerate(zip(problem.templates, problem.offers, strict=True)):
            busy = Fraction(0)
            for request, way in zip(problem.classes, choice, strict=True):
                load = _load(request.rate, template.capacity[request.id])
                if way[t] and load is None:
                    cost = None
                    break
                busy += Fraction(way[t], slices) * (load or 0)
            if cost is None or math.ceil(busy) > _most(offer):
                cost = None
                break
            cost += math.ceil(busy) * Fraction(str(offer.price))
        if cost is not None and (best is None or cost < best):
            best = cost
    return best


def one_class_with_roles(seed: int) -> MixtureProblem:
    """One class, aggregated and PD templates of sizes 1 to 3 on two small offers, every optional limit now and then."""
    rng = random.Random(seed)
    request = RequestClass("c", "m", rng.randint(1, 30) / 10, kv_bytes=rng.choice((0.0, 2e8, 1e9)))
    templates = []
    for i, role in enumerate((Role.AGGREGATED, Role.AGGREGATED, Role.PREFILL, Role.DECODE)):
        size = rng.choice((1, 1, 2, 3))
        egress = 1e9 * rng.randint(1, 4) if role is Role.PREFILL and rng.random() < 0.5 else None
        ingress = 1e9 * rng.randint(1, 4) if role is Role.DECODE and rng.random() < 0.5 else None
        capacity = {"c": rng.randint(1, 20) * size / 10}
        gpu = rng.choice("ab")
        power = float(rng.randint(1, 9) * 100)
        templates.append(Template(f"t{i}", "m", {gpu: size}, capacity, role, None, power, egress, ingress))
    offers = tuple(
        Offer(g, g, rng.randint(1, 40) / 10, rng.randint(0, 6), rng.choice((1, 1, 2, 4)), spot=g == "b") for g in "ab"
    )
    limits = Limits(
        utilisation=rng.choice((1.0, 0.9)),
        spare_replicas=rng.choice((0, 0, 1)),
        budget=rng.choice((None, rng.randint(4, 20))),
        power=rng.choice((None, float(rng.randint(5, 40) * 100))),
        spot_share=rng.choice((None, 0.5)),
    )
    goal = rng.choice((Goal.COST, Goal.THROUGHPUT, Goal.POWER, Goal.GPUS))
    return MixtureProblem(tuple(templates), offers, (request,), limits, (goal,))


def best_with_roles(problem: MixtureProblem) -> Fraction | None:
    """Every count of every template; the rate of one class through them in closed form."""
    best: Fraction | None = None
    ranges = [range(6 // t.size + 1) for t in problem.templates]
    for counts in itertools.product(*ranges):
        value = _value_of(problem, counts)
        if value is not None and (best is None or value < best):
            best = value
    return best


def _value_of(problem: MixtureProblem, counts: tuple[int, ...]) -> Fraction | None:
    limits, goal = problem.limits, problem.goals[0]
    rented, working = {}, {}
    for offer in problem.offers:
        sizes = [t.gpus[offer.gpu] for t, n in zip(problem.templates, counts, strict=True) for _ in range(n)
                 if offer.gpu in t.gpus]  # fmt: skip
        gpus = _rented(sizes, offer)
        if gpus is None:
            return None
        rented[offer.id], working[offer.id] = gpus, sum(sizes)
    cost = sum((Fraction(str(o.price)) * rented[o.id] for o in problem.offers), Fraction(0))
    power = sum((Fraction(t.power) * n for t, n in zip(problem.templates, counts, strict=True)), Fraction(0))
    total = sum(rented.values())
    if (limits.budget is not None and cost > limits.budget) or (limits.power is not None and power > limits.power):
        return None
    spot = Fraction(str(limits.spot_share)) if limits.spot_share is not None else Fraction(1)
    if working["b"] > spot * sum(working.values()):
        return None
    multiple = _carried(problem, counts) / Fraction(str(problem.classes[0].rate))
    if goal is Goal.THROUGHPUT:
        return -multiple
    if multiple < 1:
        return None
    return {Goal.COST: cost, Goal.POWER: power, Goal.GPUS: Fraction(total)}[goal]


def _carried(problem: MixtureProblem, counts: tuple[int, ...]) -> Fraction:
    rate = dict.fromkeys(Role, Fraction(0))
    kv = Fraction(problem.classes[0].kv_bytes)
    for template, count in zip(problem.templates, counts, strict=True):
        working = max(0, count - problem.limits.spare_replicas)
        most = working * Fraction(str(template.capacity["c"])) * Fraction(str(problem.limits.utilisation))
        for link in (template.kv_egress, template.kv_ingress):
            if link is not None and kv:
                most = min(most, count * Fraction(link) / kv)
        rate[template.role] += most
    return rate[Role.AGGREGATED] + min(rate[Role.PREFILL], rate[Role.DECODE])


def _rented(sizes: list[int], offer: Offer) -> int | None:
    """GPUs paid for, by trying every way to put replicas into the nodes (the last one may be smaller)."""
    assert offer.available is not None
    if offer.node_gpus == 1:
        return sum(sizes) if sum(sizes) <= offer.available else None
    whole, rest = divmod(offer.available, offer.node_gpus)
    found = []
    for used_rest in (False, True) if rest else (False,):
        for used in range(whole + 1):
            rooms = [offer.node_gpus] * used + [rest] * used_rest
            if _fits(tuple(sorted(sizes, reverse=True)), tuple(rooms), offer.node_gpus):
                found.append(sum(rooms))
    return min(found, default=None)


def _fits(sizes: tuple[int, ...], rooms: tuple[int, ...], node: int) -> bool:
    if not sizes:
        return True
    first, later = sizes[0], sizes[1:]
    if first > node:
        whole = [i for i, r in enumerate(rooms) if r == node]
        needed = -(-first // node)
        if len(whole) < needed:
            return False
        return _fits(later, tuple(r for i, r in enumerate(rooms) if i not in whole[:needed]), node)
    for i, room in enumerate(rooms):
        fresh = room >= first and room not in rooms[:i]
        if fresh and _fits(later, (*rooms[:i], room - first, *rooms[i + 1 :]), node):
            return True
    return False


def classes_with_roles(seed: int) -> MixtureProblem:
    """Several classes over aggregated and PD templates of 1, 2 and 4 GPUs: too large to enumerate."""
    rng = random.Random(seed)
    classes = tuple(RequestClass(f"c{i}", "m", rng.randint(5, 60) / 10, kv_bytes=2e8 * i) for i in range(4))
    templates = []
    for gpu, speed in (("a", 1.0), ("b", 2.2), ("c", 0.4)):
        for size in (1, 2, 4):
            for role, share in ((Role.AGGREGATED, 0.8), (Role.PREFILL, 2.0), (Role.DECODE, 1.5)):
                scale = share * speed * size**0.95
                capacity = {c.id: round(scale * rng.uniform(0.6, 1.4), 3) for c in classes}
                egress = 2e8 * size if role is Role.PREFILL else None
                templates.append(Template(f"{role}-{gpu}{size}", "m", {gpu: size}, capacity, role, kv_egress=egress))
    prices = {"a": 2.0, "b": 4.1, "c": 0.9}
    offers = tuple(Offer(g, g, p, 40, rng.choice((1, 8))) for g, p in prices.items())
    limits = Limits(utilisation=0.9, spare_replicas=seed % 2, budget=60.0)
    goal = Goal.THROUGHPUT if seed % 3 == 0 else Goal.COST
    return MixtureProblem(tuple(templates), offers, classes, limits, (goal,))


def many_classes(seed: int, classes: int = 40, types: int = 6) -> MixtureProblem:
    """Pseudo-random capacities without structure, the hardest kind for its size."""
    value = seed
    numbers = []
    for _ in range(classes * (types + 1) + types):
        value = (1103515245 * value + 12345) % 2**31
        numbers.append(value / 2**31)
    take = iter(numbers)
    prices = [round(0.5 + 10 * next(take), 2) for _ in range(types)]
    requests = tuple(RequestClass(f"c{i}", "m", round(0.1 + next(take), 4)) for i in range(classes))
    templates = tuple(
        Template(f"g{g}", "m", {f"g{g}": 1}, {c.id: round((0.5 + next(take)) * price, 4) for c in requests})
        for g, price in enumerate(prices)
    )
    return MixtureProblem(templates, tuple(Offer(f"g{g}", f"g{g}", p) for g, p in enumerate(prices)), requests)


def scarce_nodes(seed: int) -> MixtureProblem:
    """Most throughput of three classes of very unlike rates on three types in nodes, one spare: values far below 1."""
    rng = random.Random(seed)
    classes = tuple(RequestClass(f"c{i}", "m", rate) for i, rate in enumerate((30.0, 4.0, 1e-9)))
    templates = []
    for gpu in "abc":
        base = [rng.uniform(5, 80), rng.uniform(1, 8), rng.uniform(50, 900)]
        for size in (1, 2, 4, 8):
            capacity = {
                c.id: round(rate * size * rng.uniform(0.8, 1.1), 3) for c, rate in zip(classes, base, strict=True)
            }
            templates.append(Template(f"{gpu}{size}", "m", {gpu: size}, capacity))
    offers = tuple(
        Offer(gpu, gpu, rng.choice([1.0, 2.0, 3.5]), rng.randint(5, 20), node_gpus=rng.choice([1, 4, 8]))
        for gpu in "abc"
    )
    limits = Limits(utilisation=0.85, spare_replicas=1)
    return MixtureProblem(tuple(templates), offers, classes, limits, (Goal.THROUGHPUT,))
