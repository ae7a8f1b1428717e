"""Request streams: when requests come and how long they are. Deterministic for a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from planner.simulation.request import Request

if TYPE_CHECKING:
    import numpy as np

    Rng = np.random.Generator

BATCH = 4096  # random numbers drawn at once


# -- lengths ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fixed:
    """Always ``tokens`` tokens."""

    tokens: int

    def draw(self, rng: Rng, count: int) -> list[int]:
        """Draw ``count`` lengths."""
        return [max(1, self.tokens)] * count


@dataclass(frozen=True)
class Uniform:
    """Every length from ``low`` to ``high`` tokens, both included, is equally likely."""

    low: int
    high: int

    def draw(self, rng: Rng, count: int) -> list[int]:
        """Draw ``count`` lengths."""
        return [int(v) for v in rng.integers(max(1, self.low), self.high, count, endpoint=True)]


@dataclass(frozen=True)
class Lognormal:
    """Lognormal with the given mean (tokens) and coefficient of variation, rounded, cut to [1, longest].

    sigma^2 = ln(1 + cv^2), mu = ln(mean) - sigma^2/2.
    """

    mean: float
    cv: float
    longest: int = 1 << 20

    def draw(self, rng: Rng, count: int) -> list[int]:
        """Draw ``count`` lengths."""
        import numpy as np

        variance = np.log1p(self.cv**2)
        values = rng.lognormal(np.log(self.mean) - variance / 2, variance**0.5, count)
        return [int(v) for v in np.clip(np.rint(values), 1, self.longest)]


@dataclass(frozen=True)
class Empirical:
    """Lengths drawn with replacement from ``sample``."""

    sample: Sequence[int]

    def draw(self, rng: Rng, count: int) -> list[int]:
        """Draw ``count`` lengths."""
        return [max(1, self.sample[i]) for i in rng.integers(0, len(self.sample), count)]


Lengths = Fixed | Uniform | Lognormal | Empirical


# -- gaps between arrivals -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Poisson:
    """Independent arrivals at ``rate`` per second."""

    rate: float

    def gaps(self, rng: Rng, count: int) -> list[float]:
        """Draw ``count`` gaps (s)."""
        return [float(g) for g in rng.exponential(1 / self.rate, count)]


@dataclass(frozen=True)
class EvenPoisson:
    """Poisson arrivals, given how many come in all: each batch of draws is scaled to exactly ``rate`` per second.

    Short runs of a Poisson process have another rate than the asked one (500 arrivals: 4.5 % at one sigma), which near
    saturation decides everything. Bursts inside the run are those of a Poisson process: given their number, arrivals
    are uniform in time.
    """

    rate: float

    def gaps(self, rng: Rng, count: int) -> list[float]:
        """Draw ``count`` gaps (s)."""
        drawn = rng.exponential(1.0, count)
        return [float(g) for g in drawn / (self.rate * drawn.mean())]


@dataclass(frozen=True)
class Gamma:
    """Gamma gaps at ``rate`` per second; ``burstiness`` is the shape: 1 is Poisson, below 1 bursts (as vllm bench)."""

    rate: float
    burstiness: float

    def gaps(self, rng: Rng, count: int) -> list[float]:
        """Draw ``count`` gaps (s)."""
        return [float(g) for g in rng.gamma(self.burstiness, 1 / (self.rate * self.burstiness), count)]


@dataclass(frozen=True)
class Deterministic:
    """Equal gaps at ``rate`` per second."""

    rate: float

    def gaps(self, rng: Rng, count: int) -> list[float]:
        """Draw ``count`` gaps (s)."""
        return [1 / self.rate] * count


@dataclass(frozen=True)
class OnOff:
    """Poisson bursts: ``rate`` per second on average, all of it within ``on`` seconds of every ``on + off``."""

    rate: float
    on: float
    off: float

    def gaps(self, rng: Rng, count: int) -> list[float]:
        """Draw ``count`` gaps (s): exponential in busy time, with the pauses that they span put in."""
        import numpy as np

        busy_rate = self.rate * (self.on + self.off) / self.on
        # The busy clock starts at a fresh period on every call: BATCH arrivals span many periods.
        busy = np.cumsum(rng.exponential(1 / busy_rate, count))
        wall = busy + np.floor(busy / self.on) * self.off
        return [float(g) for g in np.diff(wall, prepend=0.0)]


Arrivals = Poisson | EvenPoisson | Gamma | Deterministic | OnOff


# -- streams ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenStream:
    """``count`` requests that come whatever the system does.

    Parameters
    ----------
    prompts, outputs : length distributions (tokens).
    hit : share of each prompt whose KV is there already.
    """

    process: Arrivals
    prompts: Lengths
    outputs: Lengths
    count: int
    seed: int = 0
    hit: float = 0.0

    def arrivals(self) -> Iterator[Request]:
        """Requests in the order of arrival."""
        import numpy as np

        rng = np.random.default_rng(self.seed)
        now, number = 0.0, 0
        while number < self.count:
            size = min(BATCH, self.count - number)
            lengths = zip(
                self.process.gaps(rng, size), self.prompts.draw(rng, size), self.outputs.draw(rng, size), strict=True
            )
            for gap, prompt, output in lengths:
                now += gap
                yield Request(number, now, prompt, output, found=round(self.hit * prompt))
                number += 1

    def after(self, request: Request, finished: float) -> Request | None:
        """Nothing follows."""
        return None


@dataclass
class ClosedLoop:
    """``users`` users who send the next request ``think`` seconds (mean, exponential) after the last answer.

    Parameters
    ----------
    count : requests in all.
    think : mean think time (s); 0 keeps ``users`` requests in the system, as ``--max-concurrency`` does.
    hit : share of each prompt whose KV is there already.
    """

    users: int
    prompts: Lengths
    outputs: Lengths
    count: int
    think: float = 0.0
    seed: int = 0
    hit: float = 0.0
    _made: int = field(default=0, init=False, repr=False)
    _lengths: Iterator[tuple[int, int, float]] = field(init=False, repr=False)

    def arrivals(self) -> Iterator[Request]:
        """Return the first request of every user, all at time 0."""
        self._made = 0
        self._lengths = self._draw()
        for _ in range(min(self.users, self.count)):
            yield self._make(0.0, think=False)

    def after(self, request: Request, finished: float) -> Request | None:
        """Return the user's next request."""
        return self._make(finished, think=True) if self._made < self.count else None

    def _make(self, now: float, think: bool) -> Request:
        prompt, output, pause = next(self._lengths)
        self._made += 1
        found = round(self.hit * prompt)
        return Request(self._made - 1, now + (pause if think else 0.0), prompt, output, found=found)

    def _draw(self) -> Iterator[tuple[int, int, float]]:
        import numpy as np

        rng = np.random.default_rng(self.seed)
        while True:
            pauses = [float(p) for p in rng.exponential(self.think, BATCH)] if self.think > 0 else [0.0] * BATCH
            yield from zip(self.prompts.draw(rng, BATCH), self.outputs.draw(rng, BATCH), pauses, strict=True)


@dataclass
class Sessions:
    """Conversations: each turn repeats the history, adds a new prompt, and comes a pause after the last answer.

    Parameters
    ----------
    process : arrivals of conversations.
    turns : distribution of turns per conversation.
    prompts, outputs : new tokens of a turn and its answer.
    pause : mean time between an answer and the next turn (s, exponential).
    system_tokens : tokens of a system prompt that all conversations share.
    hash_tokens : tokens per hash id; history is reusable in whole blocks.
    longest : a conversation ends when its next prompt would be longer (tokens).
    """

    process: Arrivals
    prompts: Lengths
    outputs: Lengths
    turns: Lengths
    count: int
    pause: float = 10.0
    system_tokens: int = 0
    hash_tokens: int = 16
    longest: int = 1 << 20
    seed: int = 0
    _plans: dict[int, list[tuple[int, int, float]]] = field(default_factory=dict, init=False, repr=False)
    _number: int = field(default=0, init=False, repr=False)

    def arrivals(self) -> Iterator[Request]:
        """Return the first turn of each of the ``count`` conversations."""
        import numpy as np

        rng = np.random.default_rng(self.seed)
        self._plans, self._number = {}, 0
        now = 0.0
        for start in range(0, self.count, BATCH):
            size = min(BATCH, self.count - start)
            gaps, turns = self.process.gaps(rng, size), self.turns.draw(rng, size)
            for session, (gap, length) in enumerate(zip(gaps, turns, strict=True), start):
                now += gap
                pauses = [float(p) for p in rng.exponential(self.pause, length)]
                plan = list(zip(self.prompts.draw(rng, length), self.outputs.draw(rng, length), pauses, strict=True))
                self._plans[session] = plan
                request = self._turn(session, 0, self.system_tokens, now)
                if request is not None:
                    yield request

    def after(self, request: Request, finished: float) -> Request | None:
        """Return the next turn of the conversation."""
        plan = self._plans[request.session]
        if request.turn + 1 >= len(plan):
            del self._plans[request.session]
            return None
        pause = plan[request.turn][2]
        return self._turn(request.session, request.turn + 1, request.prompt + request.output, finished + pause)

    def _turn(self, session: int, turn: int, history: int, arrival: float) -> Request | None:
        new, output, _ = self._plans[session][turn]
        prompt = history + new
        if prompt > self.longest:
            return None
        shared = self.system_tokens // self.hash_tokens
        blocks = (prompt + output) // self.hash_tokens
        # Ids below ``shared`` belong to all; the rest to this conversation alone.
        ids = [*range(min(shared, blocks)), *((session + 1 << 32) + i for i in range(shared, blocks))]
        self._number += 1
        return Request(self._number - 1, arrival, prompt, output, ids, session, turn)


@dataclass
class Replay:
    """Recorded requests, with time compressed by ``speed`` and the load multiplied by ``copies``.

    Parameters
    ----------
    source : opens the recording anew: rows of (arrival, prompt, output, hash ids), arrivals ascending.
    speed : 2 replays an hour in half an hour: twice the rate, the same order.
    copies : every request arrives so many times, with hash ids of its own per copy: the rate grows, gaps keep.
    """

    source: Callable[[], Iterable[tuple[float, int, int, Sequence[int]]]]
    speed: float = 1.0
    copies: int = 1

    def arrivals(self) -> Iterator[Request]:
        """Requests in the order of arrival."""
        number = 0
        start: float | None = None
        for arrival, prompt, output, ids in self.source():
            start = arrival if start is None else start
            for copy in range(self.copies):
                own = ids if not copy else tuple((copy << 48) + i for i in ids)
                yield Request(number, (arrival - start) / self.speed, prompt, output, own)
                number += 1

    def after(self, request: Request, finished: float) -> Request | None:
        """Nothing follows: a recording does not react."""
        return None
