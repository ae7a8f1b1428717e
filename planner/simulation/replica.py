"""One replica: ranks and micro-batches that advance together, span after span of equal iterations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from planner.simulation.histogram import TimeHistogram
from planner.simulation.rank import Rank
from planner.simulation.request import Request
from planner.simulation.series import Load, Segment, decode_segments, elapsed, iterations_completed, iterations_until
from planner.simulation.settings import Pool
from planner.simulation.steps import Curve, compile_curve
from planner.simulation.timeline import Timeline


class Listener(Protocol):
    """Who is told what becomes of requests."""

    def prompt_done(self, request: Request, now: float, iteration: float) -> bool:
        """First token of ``request`` exists, from an ``iteration`` of so many seconds; True if it leaves this pool for
        another one."""
        ...

    def request_done(self, request: Request, now: float) -> None:
        """Last token of ``request`` exists and its KV has been released."""
        ...


@dataclass(slots=True)
class Shared:
    """What the replicas of a pool have in common.

    Parameters
    ----------
    exact : advance one iteration at a time (the reference for tests).
    details : keep the gaps between tokens and the integrals of load, not only what happens to each request.
    curves : decode time curves by number of sequences, asked of the StepModel once.
    """

    pool: Pool
    timeline: Timeline
    token_gaps: TimeHistogram
    exact: bool
    details: bool = True
    curves: dict[int, Curve] = field(default_factory=dict)


class Replica:
    """Executes spans: one iteration that prefills, or many decode iterations between two changes of the batch.

    Parameters
    ----------
    ranks : its attention ranks; every iteration lasts as long as the slowest lane of the slowest rank. A
        pipeline of pp stages keeps pp lanes in flight and a lane needs all stages for one token, so lanes also
        repeat at the pace of the slowest; each runs one stage behind the one before it.
    """

    def __init__(self, shared: Shared, ranks: list[Rank]) -> None:
        self.pool = shared.pool
        self.ranks = ranks
        self.lanes = [lane for rank in ranks for lane in rank.lanes]
        self.timeline = shared.timeline
        self.token_gaps = shared.token_gaps
        self.exact = shared.exact
        self.details = shared.details
        self.interval = shared.pool.engine.receive_interval
        self.prefills = False  # whether the span under way does
        self.since_look = 0  # decode iterations since the scheduler looked for arrivals
        self.started = 0.0
        self.iterations = 0  # length of the span under way; 0 while idle
        self.segments: list[Segment] = []
        self.version = 0  # wakes of an older version are void
        self.busy = 0.0
        self.kv_seconds = 0.0  # integral of held KV tokens over time
        self.sequence_seconds = 0.0  # integral of decoding sequences over time
        self.steps = 0
        self.next_sample = shared.timeline.interval
        self._curves = shared.curves

    # -- spans -----------------------------------------------------------------------------------------------

    def start(self, now: float) -> float | None:
        """Plan the next span at ``now``; return its end, or None if there is nothing to do."""
        prefills = False
        looks = not self.since_look or not any(rank.running for rank in self.ranks)
        for rank in self.ranks:
            prefills |= rank.plan(now, looks=looks)
        self.prefills = prefills
        self.started = now
        self.version += 1
        if prefills:
            self.iterations = 1
            self.segments = [Segment(1, self._mixed_seconds(), 0.0)]
        else:
            loads = [
                Load(lane.pace, lane.context, self._curve(lane.sequences)) for lane in self.lanes if lane.sequences
            ]
            if not loads:
                self.iterations = 0
                return None
            self.iterations = 1 if self.exact else self._free_run()
            self.segments = decode_segments(loads, self.iterations)
        return now + elapsed(self.segments, self.iterations)

    def _free_run(self) -> int:
        """Decode iterations until a sequence ends or memory runs out."""
        iterations = min(lane.next_completion() for lane in self.lanes if lane.sequences)
        for rank in self.ranks:
            iterations = rank.decode_limit(iterations)
        if self.interval > 1 and any(rank.waiting and not rank.blocked for rank in self.ranks):
            iterations = min(iterations, self._until_look(1))
        return iterations

    def _until_look(self, iterations: int) -> int:
        """Iterations of this span after which the scheduler looks for arrivals, no fewer than ``iterations``."""
        return -(-(self.since_look + iterations) // self.interval) * self.interval - self.since_look

    def _mixed_seconds(self) -> float:
        """Seconds of an iteration in which some lane prefills: the slowest lane's."""
        slowest = 0.0
        together = zip(*(rank.lanes for rank in self.ranks), strict=True)
        carried = [sum(lane.chunk_tokens for lane in lanes) for lanes in together]
        for rank in self.ranks:
            for lane, prompts in zip(rank.lanes, carried, strict=True):
                sequences = lane.sequences if rank.decoding else 0
                if lane.chunk_tokens:
                    context = lane.context if rank.decoding else 0
                    chunk = lane.chunk_tokens
                    mixed = self.pool.steps.mixed(sequences, context, chunk, lane.chunk_pairs, prompts / chunk)
                    seconds = float(mixed)
                elif sequences:
                    seconds = decode_segments([Load(lane.pace, lane.context, self._curve(sequences))], 1)[0].first
                else:
                    continue
                slowest = max(slowest, seconds)
        return slowest

    def _curve(self, sequences: int) -> Curve:
        curve = self._curves.get(sequences)
        if curve is None:
            curve = self._curves[sequences] = compile_curve(self.pool.steps.decode_steps(sequences))
        return curve

    def interrupt(self, rank: Rank, now: float) -> float | None:
        """Shorten the span to the iteration boundary at which an arrival of ``now`` is seen; return its new end."""
        if rank.blocked or self.iterations <= 1 or len(rank.waiting) > 1:
            return None
        iterations = self._until_look(iterations_until(self.segments, now - self.started))
        if iterations >= self.iterations:
            return None
        self.iterations = iterations
        self.version += 1
        return self.started + elapsed(self.segments, iterations)

    def finish(self, now: float, listener: Listener) -> None:
        """Apply the span that ends at ``now``."""
        iterations = self.iterations
        if self.details:
            if self.next_sample < now:
                self.sample_until(now)
            self._account(iterations, now)
        for rank in self.ranks:
            if rank.decoding:
                if rank.grows:
                    rank.used_blocks += rank.pending_blocks if iterations == 1 else rank.growth(iterations)
                for lane in rank.lanes:
                    if lane.sequences:
                        rank.held_tokens += lane.advance(iterations)
            rank.pending_blocks = 0
        self.since_look = 0 if self.prefills else (self.since_look + iterations) % self.interval
        for rank in self.ranks:
            self._retire(rank, now, listener)
        self.iterations = 0

    def _retire(self, rank: Rank, now: float, listener: Listener) -> None:
        """Hand out last tokens, then first tokens."""
        if rank.decoding:
            for lane in rank.lanes:
                if lane.heap and lane.heap[0][0] <= lane.count:
                    for request in lane.pop_completed():
                        rank.finish(request)
                        listener.request_done(request, now + request.skew)
        for lane in rank.lanes:
            lane.chunk_tokens, lane.chunk_pairs = 0, 0.0
        if rank.completing:
            completing, rank.completing = rank.completing, []
            for request, lane_index in completing:
                self._prompt_done(rank, request, lane_index, now, listener)

    def _prompt_done(self, rank: Rank, request: Request, lane: int, now: float, listener: Listener) -> None:
        rank.prefilled(request)
        request.generated += 1
        leaves = False
        if request.first_token < 0:
            request.skew = lane * self.segments[0].first / self.pool.stages
            request.first_token = now + request.skew
            leaves = listener.prompt_done(request, now + request.skew, self.segments[0].first)
        elif now > request.last_token:
            self.token_gaps.add(now - request.last_token)  # the gap that a preemption tore
        # In the next pool it starts afresh, with what was late here behind it.
        request.last_token = request.first_token if leaves else now
        if request.generated == request.output:
            rank.finish(request)
            listener.request_done(request, now + request.skew)
        elif not leaves:
            rank.join(request)

    # -- bookkeeping -----------------------------------------------------------------------------------------

    def _account(self, iterations: int, now: float) -> None:
        """Add the span to the integrals and to the gaps between tokens."""
        span = now - self.started
        self.busy += span
        self.steps += iterations
        sequences, pace = 0, 0.0
        for rank in self.ranks:
            if rank.decoding:
                for lane in rank.lanes:
                    sequences += lane.sequences
                    pace += lane.pace
        held = float(sum(rank.held_tokens for rank in self.ranks))
        self.sequence_seconds += sequences * span
        left = iterations
        for length, first, slope in self.segments:
            n = min(left, length)
            ramp = 0.5 * n * (n - 1)
            squares = ramp * (2 * n - 1) / 3
            self.kv_seconds += (
                n * held * first + (held * slope + pace * first) * ramp + pace * slope * squares
            )
            held += n * pace
            left -= n
            if not left:
                break
        if sequences:
            self._account_gaps(iterations)

    def _account_gaps(self, iterations: int) -> None:
        """Every decoding sequence has one gap per iteration, drafted tokens coming together; the first one also spans
        what it waited before."""
        first_end = self.started + self.segments[0].first
        total = 0
        for rank in self.ranks:
            for lane in rank.lanes:
                if rank.decoding and lane.sequences:
                    total += lane.sequences
                    early = lane.sequences - len(lane.late)
                    for last in lane.late:
                        self.token_gaps.add(first_end - last)
                    if early > 0:
                        self.token_gaps.add(first_end - lane.last_token, early)
                    lane.late.clear()
                    lane.last_token = self.started + elapsed(self.segments, iterations)
        left, skip = iterations, 1
        for length, first, slope in self.segments:
            n = min(left, length)
            if n > skip:
                self.token_gaps.add_series(first + slope * skip, slope, n - skip, total)
            left, skip = left - n, 0
            if not left:
                return

    def sample_until(self, now: float) -> None:
        """Report the grid times before ``now``; a point inside a span shows its last full iteration."""
        running = sum(len(rank.running) for rank in self.ranks)
        waiting = sum(len(rank.waiting) for rank in self.ranks)
        held = sum(rank.held_tokens for rank in self.ranks)
        growing = sum(lane.pace for rank in self.ranks if rank.decoding for lane in rank.lanes)
        while self.next_sample < now:
            time = self.next_sample
            moment = self.timeline.at(time)
            if moment is not None:
                done = 0
                if self.iterations:
                    done = min(self.iterations, iterations_completed(self.segments, time - self.started))
                moment.running += running
                moment.waiting += waiting
                moment.kv_tokens += held + int(done * growing)
                moment.preemptions += sum(rank.preempted for rank in self.ranks)
                moment.hit_tokens += sum(rank.hit_tokens for rank in self.ranks)
                moment.busy += self.busy + (time - self.started if self.iterations else 0.0)
            self.next_sample = self.timeline.next_after(time)
