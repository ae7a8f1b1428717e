"""Ways to fill one node with replicas of given sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping


def sizes_nest(sizes: Iterable[int], node: int) -> bool:
    """Whether each size divides the next larger one and the node: then adding up GPUs decides packing exactly."""
    chain = [*sorted(set(sizes)), node]
    return all(large % small == 0 for small, large in itertools.pairwise(chain))


def node_patterns(sizes: tuple[int, ...], node: int) -> list[tuple[int, ...]]:
    """Maximal counts per size with sum(count * size) <= node: no further replica of any size fits.

    >>> node_patterns((3, 5), 8)
    [(1, 1), (2, 0)]
    """
    smallest = min(sizes, default=0)
    return sorted(p for p, room in _fill(sizes, node) if room < smallest)


def _fill(sizes: tuple[int, ...], room: int) -> Iterator[tuple[tuple[int, ...], int]]:
    if not sizes:
        yield (), room
        return
    for count in range(room // sizes[0] + 1):
        for rest, left in _fill(sizes[1:], room - count * sizes[0]):
            yield (count, *rest), left


def fewest_nodes(replicas: Mapping[int, int], node: int) -> int:
    """Fewest nodes that hold ``replicas`` (count by size).

    Sizes that nest fill nodes without loss, so ceil(sum of GPUs / node). Otherwise first-fit decreasing, unless
    that exceeds the sum bound; then an exact search over patterns.
    """
    counts = {size: count for size, count in replicas.items() if count > 0}
    floor = -(-sum(size * count for size, count in counts.items()) // node)
    if sizes_nest(counts, node):
        return floor
    greedy = _first_fit_decreasing(counts, node)
    return greedy if greedy == floor else _search_nodes(counts, node, greedy)


def _first_fit_decreasing(counts: Mapping[int, int], node: int) -> int:
    left = dict(counts)
    nodes = 0
    while any(left.values()):
        room, fill = node, {}
        for size in sorted(left, reverse=True):
            fill[size] = min(left[size], room // size)
            room -= fill[size] * size
        # The same filling repeats until one of its sizes runs out.
        times = min(left[s] // n for s, n in fill.items() if n)
        for size, n in fill.items():
            left[size] -= n * times
        nodes += times
    return nodes


def _search_nodes(counts: Mapping[int, int], node: int, best: int) -> int:
    """Depth-first over maximal patterns for the node that must hold the largest remaining replica."""
    sizes = tuple(sorted(counts, reverse=True))
    patterns = sorted(node_patterns(sizes, node), reverse=True)
    seen: dict[tuple[int, ...], int] = {}

    def least(left: tuple[int, ...], budget: int) -> int:
        if not any(left):
            return 0
        if -(-sum(s * n for s, n in zip(sizes, left, strict=True)) // node) > budget:
            return budget + 1
        if left in seen:
            return seen[left]
        first = next(i for i, n in enumerate(left) if n)
        result = budget + 1
        for pattern in patterns:
            if pattern[first]:
                rest = tuple(max(0, n - k) for n, k in zip(left, pattern, strict=True))
                result = min(result, 1 + least(rest, result - 2))
        if result <= budget:
            seen[left] = result
        return result

    total = tuple(counts[s] for s in sizes)
    if sum(total) > 60:  # beyond this the search is slow and first-fit is within a node or so
        return best
    return min(best, least(total, best - 1))
