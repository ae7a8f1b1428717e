"""Prefix cache of one attention rank: KV blocks by hash id, pinned while in use, else evicted by age."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class PrefixCache:
    """Which hash blocks exist on one rank.

    A hash id stands for a block together with everything before it, so a prompt hits as long as its ids are
    found from the start. Freed blocks stay until their room is needed: least recently used first, and of one
    request the tail before the head (as vLLM's free queue and SGLang's leaf eviction do).

    Parameters
    ----------
    rank : bit of this rank in ``holders``.
    holders : id -> bit set of ranks that hold it, kept for a prefix-aware router; None if there is none.
    """

    __slots__ = ("_bit", "_holders", "idle", "pins")

    def __init__(self, rank: int = 0, holders: dict[int, int] | None = None) -> None:
        self.pins: dict[int, int] = {}  # id -> running requests that use it
        self.idle: OrderedDict[int, None] = OrderedDict()  # ids that nobody uses, oldest first
        self._holders = holders
        self._bit = 1 << rank

    def match(self, ids: Sequence[int], limit: int) -> int:
        """Number of leading ids, at most ``limit``, that are held."""
        pins, idle = self.pins, self.idle
        for found in range(limit):
            if ids[found] not in pins and ids[found] not in idle:
                return found
        return limit

    def idle_among(self, ids: Iterable[int]) -> int:
        """How many of these held ids would leave the evictable set if pinned."""
        return sum(1 for key in ids if key in self.idle)

    def pin(self, ids: Iterable[int]) -> int:
        """Use held blocks; return how many were idle before."""
        woken = 0
        for key in ids:
            if key in self.idle:
                del self.idle[key]
                self.pins[key] = 1
                woken += 1
            else:
                self.pins[key] += 1
        return woken

    def publish(self, ids: Iterable[int]) -> tuple[int, int]:
        """Make freshly computed blocks shareable and pin them.

        Returns
        -------
        pinned_twice : blocks that another running request had already published: the copy is dropped.
        woken : blocks that lay idle: the copy takes their place.
        """
        twice = woken = 0
        for key in ids:
            if key in self.pins:
                self.pins[key] += 1
                twice += 1
            elif key in self.idle:
                del self.idle[key]
                self.pins[key] = 1
                woken += 1
            else:
                self.pins[key] = 1
                self._announce(key)
        return twice, woken

    def release(self, ids: Sequence[int]) -> int:
        """Stop using these blocks; return how many became idle."""
        freed = 0
        for key in reversed(ids):
            if self.pins[key] == 1:
                del self.pins[key]
                self.idle[key] = None
                freed += 1
            else:
                self.pins[key] -= 1
        return freed

    def keep(self, ids: Iterable[int]) -> None:
        """Leave the blocks of a finished output behind, as idle ones."""
        for key in ids:
            if key not in self.pins and key not in self.idle:
                self.idle[key] = None
                self._announce(key)

    def evict(self, count: int) -> None:
        """Drop the ``count`` oldest idle blocks (all, if there are fewer)."""
        for _ in range(min(count, len(self.idle))):
            key, _ = self.idle.popitem(last=False)
            if self._holders is not None:
                left = self._holders[key] & ~self._bit
                if left:
                    self._holders[key] = left
                else:
                    del self._holders[key]

    def _announce(self, key: int) -> None:
        if self._holders is not None:
            self._holders[key] = self._holders.get(key, 0) | self._bit
