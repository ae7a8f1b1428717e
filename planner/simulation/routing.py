"""Which attention rank of a pool gets a request."""

from __future__ import annotations

from planner.simulation.request import Request
from planner.simulation.settings import Pool, Routing

# Prefix-aware routing follows the cache only while load is balanced and the hit is worth it
# (the defaults of SGLang's router: cache_threshold 0.5, balance_abs_threshold 32, balance_rel_threshold 1.0001).
CACHE_THRESHOLD = 0.5
BALANCE_ABSOLUTE = 32
# A queued request weighs as much as four that run (vLLM's balancing of data-parallel ranks): it is a whole prompt of
# the next iteration, to which prompts that are being computed add nothing.
QUEUED = 3


class Router:
    """Chooses among ``ranks`` ranks by the requests that each has (queued and running) and by what each caches.

    ``loads`` are the requests of the ranks; one that is queued counts ``queued`` times more. Ranks and simulator tell
    it of what starts and ends.

    Parameters
    ----------
    holders : hash id -> bit set of ranks, kept up to date by the prefix caches.
    """

    def __init__(self, pool: Pool, ranks: int, holders: dict[int, int] | None) -> None:
        self.loads = [0] * ranks
        self._routing = pool.routing
        self.queued = QUEUED if pool.routing is Routing.LEAST_LOADED else 0
        self._holders = holders
        self._hash_tokens = pool.engine.hash_tokens
        self._next = 0
        # Ties go to the next rank in turn, of one replica after the other, as no router favours its first.
        replicas = max(ranks // pool.attention_dp, 1)
        self._turns = [k * pool.attention_dp + r for r in range(ranks // replicas) for k in range(replicas)]

    def choose(self, request: Request) -> int:
        """Return the rank for ``request`` and count it there."""
        loads = self.loads
        if len(loads) == 1:
            rank = 0
        elif self._routing is Routing.ROUND_ROBIN:
            rank, self._next = self._next, (self._next + 1) % len(loads)
        else:
            rank = -1
            if self._routing is Routing.PREFIX_AWARE:
                rank = self._by_prefix(request)
            if rank < 0:
                rank = self._least()
        loads[rank] += 1 + self.queued
        return rank

    def _least(self) -> int:
        least, turns, place = min(self.loads), self._turns, self._next
        while self.loads[turns[place]] != least:
            place = (place + 1) % len(turns)
        self._next = (place + 1) % len(turns)
        return turns[place]

    def _by_prefix(self, request: Request) -> int:
        """Return the least loaded rank with the longest prefix, or -1 if that is too short or the load is uneven."""
        loads, holders = self.loads, self._holders
        if not holders or max(loads) - min(loads) > BALANCE_ABSOLUTE:
            return -1
        best, length = 0, 0
        full = request.prompt // self._hash_tokens
        for key in request.hash_ids[:full]:
            mask = holders.get(key, 0) & (best or -1)
            if not mask:
                break
            best, length = mask, length + 1
        if length * self._hash_tokens <= CACHE_THRESHOLD * request.prompt:
            return -1
        candidates = [rank for rank in range(best.bit_length()) if best >> rank & 1]
        return min(candidates, key=lambda rank: (loads[rank], rank))
