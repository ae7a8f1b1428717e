"""One attention rank: its queue, its KV blocks, and what it does in the next iteration."""

from __future__ import annotations

from collections import deque

from planner.simulation.admission import may_start
from planner.simulation.history import OutputHistory
from planner.simulation.lane import Lane
from planner.simulation.prefix_cache import PrefixCache
from planner.simulation.request import Request
from planner.simulation.routing import Router
from planner.simulation.settings import EXCLUSIVE_PREFILL, RESERVES_OUTPUT, Policy, Pool
from planner.simulation.speculative_lane import SpeculativeLane

UNLIMITED = 1 << 60


class Rank:
    """Scheduler state of one attention rank. The replica asks it to plan, tells it what has passed.

    ``used_blocks`` counts blocks that running requests hold (a shared block once); idle cached blocks lie in
    the rest and give way. ``held_tokens`` is the same in tokens, without the unused ends of blocks.
    """

    def __init__(self, pool: Pool, number: int, router: Router, holders: dict[int, int] | None = None) -> None:
        engine = self.engine = pool.engine
        self.number = number
        self.loads, self.queued = router.loads, router.queued  # what the router knows of all ranks
        self.block = engine.block_tokens
        self.total_blocks = pool.steps.kv_tokens // self.block
        self.used_blocks = 0
        self.pending_blocks = 0  # growth of the iteration that is being planned
        self.held_tokens = 0
        self.max_sequences = min(pool.steps.max_sequences, engine.max_sequences or UNLIMITED)
        self.exclusive = engine.policy in EXCLUSIVE_PREFILL
        self.grows = engine.policy not in RESERVES_OUTPUT
        self.static = engine.policy is Policy.STATIC
        self.remembers = engine.policy is Policy.PAST_FUTURE
        self.left_free = int(engine.watermark * self.total_blocks)  # blocks that admission leaves
        self.forecasts = engine.policy in (Policy.SGLANG, Policy.PAST_FUTURE)
        self.cache = PrefixCache(number, holders) if engine.prefix_cache else None
        self.hash_blocks = engine.hash_tokens // self.block
        self.checked = pool.drafts.checked if pool.drafts else 1
        self.lanes = [
            SpeculativeLane(self.block, pool.drafts) if pool.drafts else Lane(self.block) for _ in range(pool.stages)
        ]
        self.waiting: deque[Request] = deque()
        self.prefilling: deque[Request] = deque()
        self.running: dict[int, Request] = {}  # by number, in the order of admission
        self.completing: list[tuple[Request, int]] = []  # prompts whose last chunk is under way, with their lane
        self.blocked = False  # the head of the queue cannot start until something leaves
        self.decoding = False  # whether the iteration under way decodes
        self.preempted = 0
        self.hit_tokens = 0
        self.history = OutputHistory()
        self.output_to_come = 0  # sum of ``output`` over running requests
        self._ratio_start, self._ratio_from = engine.output_reserve, 0

    # -- what the iteration does -------------------------------------------------------------------------

    def plan(self, now: float, *, looks: bool = True) -> bool:
        """Choose the work of the next iteration; return whether it prefills. Without a look nothing new is seen."""
        self.pending_blocks = 0
        if looks and self.waiting and self.waiting[0].ready:
            self._start_transferred(now)
        if self.exclusive:
            if self._fill_chunks(now, looks):
                self.decoding = False
                return True
            self._make_room()
            self.decoding = True
            return False
        preempted = self.grows and self._make_room()
        self.decoding = True
        return self._fill_chunks(now, looks and not preempted)

    def join(self, request: Request) -> None:
        """Let a request whose prompt is computed decode, in the emptiest micro-batch."""
        lane = min(range(len(self.lanes)), key=lambda i: self.lanes[i].sequences) if len(self.lanes) > 1 else 0
        request.lane = lane
        self.lanes[lane].join(request, self._private(request, request.prompt + request.generated))

    def _start_transferred(self, now: float) -> None:
        """Start requests whose KV came from a prefill pool: they decode at once."""
        self.pending_blocks = self.growth(1)
        while self.waiting and self.waiting[0].ready and self._admit(now, transferred=True):
            request = self.prefilling.pop()
            request.ready = False
            request.computed = request.target
            request.waited += now
            if request.first_token > now:
                request.first_token = request.last_token = now
            self.prefilled(request)
            self.join(request)
        self.pending_blocks = 0

    def decode_limit(self, iterations: int) -> int:
        """Largest number of pure decode iterations, at most ``iterations``, whose growth fits the memory."""
        if not self.grows:
            return iterations
        free = self.total_blocks - self.used_blocks
        most = 0
        for lane in self.lanes:
            most += lane.most_growth(iterations)
        if most <= free or self.growth(iterations) <= free:
            return iterations
        low, high = 1, iterations  # growth(low) fits: _make_room saw to it
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.growth(middle) <= free else (low, middle)
        return low

    def growth(self, iterations: int) -> int:
        """Blocks that decoding allocates in so many iterations."""
        if not self.grows:
            return 0
        if len(self.lanes) == 1:
            return self.lanes[0].growth(iterations)
        return sum(lane.growth(iterations) for lane in self.lanes)

    def _make_room(self) -> bool:
        """Preempt the youngest requests until the next iteration fits; return whether any was."""
        if not self.grows:
            return False
        before = self.preempted
        need = self.growth(1)
        while self.used_blocks + need > self.total_blocks:
            self._preempt(self.running[next(reversed(self.running))])
            need = self.growth(1)
        self.pending_blocks = need
        return self.preempted > before

    def _preempt(self, request: Request) -> None:
        """Drop its KV and put it at the head of the queue: it will compute prompt and output so far again."""
        if request.lane >= 0:
            self.lanes[request.lane].leave(request)
        else:
            self.prefilling.remove(request)
        self.release(request)
        request.preemptions += 1
        request.computed = 0
        request.target = request.prompt + request.generated
        self.preempted += 1
        self.waiting.appendleft(request)
        self.loads[self.number] += self.queued
        self.blocked = True  # what it needs is what it gave back: it cannot return before something else leaves
        if self.engine.policy is Policy.SGLANG:
            self._raise_ratio()

    def _fill_chunks(self, now: float, admit: bool) -> bool:
        """Hand prompt tokens to the lanes within the token budget, oldest first; return whether there are any."""
        admit = admit and not self.blocked and bool(self.waiting) and not (self.static and self.running)
        if not admit and not self.prefilling:
            return False
        filled = False
        for index, lane in enumerate(self.lanes):
            beside = 0 if self.exclusive else lane.sequences * self.checked
            budget = UNLIMITED if self.static else self.engine.token_budget - beside
            while budget > 0 and (self.prefilling or (admit and self._admit(now))):
                request = self.prefilling[0]
                tokens = self._chunk(request, lane, budget)
                if not tokens:
                    break
                lane.chunk_tokens += tokens
                lane.chunk_pairs += tokens * (request.computed + 0.5 * (tokens + 1))
                request.computed += tokens
                budget -= tokens
                filled = True
                if request.computed == request.target:
                    self.prefilling.popleft()
                    self.completing.append((request, index))
        return filled

    def _chunk(self, request: Request, lane: Lane, budget: int) -> int:
        """Prompt tokens that go into this iteration."""
        left = request.target - request.computed
        if self.engine.chunked or left <= budget:
            return min(left, budget)
        return 0 if lane.chunk_tokens else left

    # -- memory --------------------------------------------------------------------------------------------

    def _admit(self, now: float, transferred: bool = False) -> bool:
        """Start the head of the queue if the policy and the memory allow it."""
        if self.blocked or not self.waiting:
            return False
        request = self.waiting[0]
        if request.ready != transferred:  # transferred KV joins at the next start, it is not computed again
            return False
        hits, blocks = self._needs(request)
        idle = self.cache.idle_among(request.hash_ids[:hits]) * self.hash_blocks if self.cache and hits else 0
        full = len(self.running) >= self.max_sequences
        if full or (self.running and not may_start(self, request, blocks + idle)):
            self.blocked = True
            return False
        self.waiting.popleft()
        self.loads[self.number] -= self.queued
        self._allocate(request, hits, blocks)
        if request.admitted < 0:
            request.admitted = now
        self.running[request.number] = request
        self.output_to_come += request.output
        self.prefilling.append(request)
        return True

    def _needs(self, request: Request) -> tuple[int, int]:
        """Return the hash blocks that it hits and the engine blocks that it needs beyond them."""
        hits = 0
        if self.cache is not None:
            self.trim()
            size = self.engine.hash_tokens
            request.full_blocks = min(request.prompt // size, len(request.hash_ids))
            # The last prompt token is always computed: its logits give the first output token.
            hits = self.cache.match(request.hash_ids, min(request.full_blocks, (request.target - 1) // size))
        length = request.target if self.grows else request.prompt + request.output
        request.blocks = -(-self._private(request, length) // self.block)
        if not request.full_blocks:
            return 0, request.blocks
        return hits, request.blocks + (request.full_blocks - hits) * self.hash_blocks

    def _private(self, request: Request, tokens: int) -> int:
        return tokens - request.full_blocks * self.engine.hash_tokens

    def _allocate(self, request: Request, hits: int, blocks: int) -> None:
        self.held_tokens += request.target - hits * self.engine.hash_tokens
        self.used_blocks += blocks
        request.computed = request.found
        request.cached_blocks, request.fresh_blocks = hits, request.full_blocks - hits
        if request.found and not request.preemptions and not request.ready:
            request.hit_tokens = request.found
            self.hit_tokens += request.found
        if self.cache is None:
            return
        if hits:
            self._woken(self.cache.pin(request.hash_ids[:hits]))
            request.computed = hits * self.engine.hash_tokens
            if not request.preemptions:
                request.hit_tokens = request.computed
                self.hit_tokens += request.computed
        self.trim()

    def _woken(self, hash_blocks: int) -> None:
        self.used_blocks += hash_blocks * self.hash_blocks
        self.held_tokens += hash_blocks * self.engine.hash_tokens

    def trim(self) -> None:
        """Evict idle cached blocks that no longer fit beside the used ones."""
        if self.cache is not None and self.cache.idle:
            room = (self.total_blocks - self.used_blocks - self.pending_blocks) // self.hash_blocks
            self.cache.evict(max(0, len(self.cache.idle) - max(0, room)))

    def prefilled(self, request: Request) -> None:
        """Publish the prompt blocks that were just computed; copies of blocks that exist are dropped."""
        if self.cache is None or not request.fresh_blocks:
            return
        first = request.cached_blocks
        twice, _ = self.cache.publish(request.hash_ids[first : request.full_blocks])
        self.used_blocks -= twice * self.hash_blocks
        self.held_tokens -= twice * self.engine.hash_tokens
        request.cached_blocks, request.fresh_blocks = request.full_blocks, 0

    def release(self, request: Request) -> None:
        """Give back everything a running request holds."""
        del self.running[request.number]
        self.output_to_come -= request.output
        # The KV of the newest token is written by the next iteration only.
        tokens = request.target if request.computed < request.target else self.written(request)
        private = self._private(request, tokens)
        self.held_tokens -= private + request.fresh_blocks * self.engine.hash_tokens
        self.used_blocks -= request.fresh_blocks * self.hash_blocks
        self.used_blocks -= -(-private // self.block) if self.grows else request.blocks
        if self.cache is not None and request.cached_blocks:
            freed = self.cache.release(request.hash_ids[: request.cached_blocks])
            self.used_blocks -= freed * self.hash_blocks
            self.held_tokens -= freed * self.engine.hash_tokens
        request.cached_blocks = request.fresh_blocks = 0
        self.blocked = False

    def written(self, request: Request) -> int:
        """Tokens of a decoding or finished request whose KV exists."""
        return request.prompt + request.generated - 1

    def finish(self, request: Request) -> None:
        """Release a request that has its last token; its output stays behind if its hash ids are known."""
        self.release(request)
        if self.remembers:
            self.history.add(request.output)
        if self.cache is not None:
            known = min(len(request.hash_ids), self.written(request) // self.engine.hash_tokens)
            if known > request.full_blocks:
                self.cache.keep(request.hash_ids[request.full_blocks : known])
            self.trim()

    # -- what admission asks -------------------------------------------------------------------------------

    def generated_by(self, request: Request) -> int:
        """Output tokens of a request so far."""
        if request.lane < 0:
            return request.generated
        return self.lanes[request.lane].generated_by(request)

    def context_tokens(self) -> int:
        """Prompt and output tokens of all running requests so far, shared prefixes counted for each."""
        prefilling = sum(r.target for r in self.prefilling)
        return sum(lane.context for lane in self.lanes) + prefilling + sum(r.target for r, _ in self.completing)

    def outstanding_tokens(self) -> int:
        """Output tokens that running requests have still to generate."""
        decoding = sum(lane.to_come for lane in self.lanes)
        prefilling = sum(r.output - r.generated for r in self.prefilling)
        return decoding + prefilling + sum(r.output - r.generated for r, _ in self.completing)

    def reserve_ratio(self) -> float:
        """SGLang's new_token_ratio now."""
        engine = self.engine
        steps = self.lanes[0].count - self._ratio_from
        fall = (engine.output_reserve - engine.output_reserve_floor) / engine.reserve_steps
        return max(engine.output_reserve_floor, self._ratio_start - fall * steps)

    def _raise_ratio(self) -> None:
        """After a retraction: the share of their output that running requests have generated, 20 steps ahead."""
        done = self.output_to_come - self.outstanding_tokens()
        share = (done + 20 * len(self.running)) / max(1, self.output_to_come)
        self._ratio_start, self._ratio_from = min(1.0, share), self.lanes[0].count
