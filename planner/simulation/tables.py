"""Tables that were made before, for plans that share a pool or differ in their load alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from planner.simulation.deploy import Served

T = TypeVar("T")


class Tables:
    """Tables by what they were made of. Replicas are told apart by identity, so each is kept with its table."""

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[tuple[Served, ...], object]] = {}

    def get(self, name: Hashable, make: Callable[..., T], *served: Served) -> T:
        """The table ``name`` of some pools: the one known, or what ``make`` makes of them."""
        key = (name, *(_identity(pool) for pool in served))
        if key not in self._made:
            self._made[key] = served, make(*served)
        return cast(T, self._made[key][1])


def _identity(served: Served) -> Hashable:
    """All that iteration times of a pool depend on."""
    lengths = tuple(float(x) for x in (served.lengths.isl, served.lengths.osl, served.lengths.cached))  # type: ignore[arg-type]
    own = (id(served.replica), served.layout, served.simulated_ranks)
    blocks = served.blocks
    split = None if blocks is None else (id(blocks[0].attention), id(blocks[0].ffn), blocks[1].key)
    return (*own, lengths, split)
