"""The wait for a prefill pool against an event simulation of it."""

import heapq
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_cases import one, replica

from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory
from planner.serving.prefill import PrefillTimes

STATISTICS = ("mean", "p50", "p95")
ONES = np.array([1.0])


@cache
def stand_in() -> Memory:
    # Only the times matter to the queue.
    return memory(replica("llama-3.1-8b", "h100-sxm"), one(1), Lengths(1000.0, 100.0))


def pool(seats: int, full: float) -> PrefillTimes:
    """Replicas that serve ``seats`` prompts together in ``full`` times the second that one takes."""
    return PrefillTimes(ONES, full * ONES, seats * ONES, ONES, ONES, stand_in())


def simulated(n: int, ranks: int, seats: int, full: float, load: float, prompts: int = 12_000) -> list[float]:
    """Mean, median and p95 of the wait, and the mean time of a prompt's own iteration.

    Each prompt goes to the rank with the fewest of all; a replica starts an iteration with up to ``seats`` prompts of
    each of its ranks as soon as it is free and has any.
    """
    together = ranks * seats
    slope = (full - 1.0) / max(together - 1, 1)
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(full / (load * n * together), prompts))
    queues: list[list[int]] = [[] for _ in range(n * ranks)]
    held = np.zeros(n * ranks)
    running: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    events: list[tuple[float, int]] = []
    wait, own = np.zeros(prompts), np.zeros(prompts)

    def start(k: int, now: float) -> None:
        running[k] = [(p, r) for r in range(k * ranks, (k + 1) * ranks) for p in queues[r][:seats]]
        for r in range(k * ranks, (k + 1) * ranks):
            del queues[r][:seats]
        if running[k]:
            seconds = 1.0 + slope * (len(running[k]) - 1)
            for p, _ in running[k]:
                wait[p], own[p] = now - arrivals[p], seconds
            heapq.heappush(events, (now + seconds, k))

    for p, now in enumerate(arrivals):
        while events and events[0][0] <= now:
            ended, k = heapq.heappop(events)
            held -= np.bincount([r for _, r in running[k]], minlength=n * ranks)
            start(k, ended)
        chosen = int(rng.choice(np.flatnonzero(held == held.min())))
        queues[chosen].append(p)
        held[chosen] += 1
        if not running[chosen // ranks]:
            start(chosen // ranks, now)
    steady = slice(prompts // 10, int(prompts * 0.95))
    seen = wait[steady]
    return [float(seen.mean()), *np.percentile(seen, [50, 95]).tolist(), float(own[steady].mean())]


@pytest.mark.parametrize(
    ("n", "ranks", "seats", "full", "load"),
    [
        (1, 1, 8, 4.0, 0.6), (1, 1, 8, 4.0, 0.85), (4, 1, 8, 4.0, 0.7), (1, 8, 1, 1.5, 0.9), (2, 8, 1, 1.5, 0.8),
        (7, 4, 1, 1.3, 0.8), (2, 8, 8, 4.0, 0.8), (1, 16, 1, 1.4, 0.5), (3, 1, 2, 1.8, 0.8), (1, 1, 1, 1.0, 0.7),
        (1, 1, 4, 3.8, 0.85), (2, 1, 4, 3.8, 0.9), (4, 1, 2, 1.95, 0.9), (8, 1, 4, 3.8, 0.8),
    ],
)  # fmt: skip
def test_wait_and_own_time_are_those_of_a_simulated_pool(
    n: int, ranks: int, seats: int, full: float, load: float
) -> None:
    *waits, own = simulated(n, ranks, seats, full, load)
    times = pool(ranks * seats, full)
    rate = load * times.capacity
    predicted = float(times.own(rate, n)[0])
    assert predicted == pytest.approx(own, rel=0.12)
    for statistic, seen, within in zip(STATISTICS, waits, (0.2, 0.35, 0.25), strict=True):
        total = predicted + float(times.wait(rate, n, statistic)[0])
        assert total == pytest.approx(seen + own, rel=within), statistic


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2, 4, 8, 64]), st.floats(0.0, 1.0), st.sampled_from([1, 2, 7, 40]), st.data())
def test_a_prompt_never_waits_less_at_a_higher_rate(seats: int, uneven: float, n: int, data: st.DataObject) -> None:
    # The search places its bounds on a grid of loads: between two of them nothing may be better than at the lower one.
    times = pool(seats, 1.0 + (seats - 1) * uneven)
    rates = np.sort(data.draw(st.lists(st.floats(0.001, 0.999), min_size=2, max_size=2))) * times.capacity
    for statistic in (*STATISTICS, "p99"):
        low, high = (float((times.wait(r, n, statistic) + times.own(r, n))[0]) for r in rates)
        assert low <= high * (1 + 1e-9)
