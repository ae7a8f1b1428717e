"""Prefill and decode pools: queues against closed forms, transfers, bounds of the split, measured deployments."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_cases import gpu, one, plain_engine, replica

from planner.serving.aggregated import open_loop
from planner.serving.lengths import Lengths
from planner.serving.pd import Role, SplitFlow, closed_split, open_split
from planner.serving.prefill import PrefillTimes, prefill_times
from planner.serving.transfer import TransferOptions, exposed_seconds, request_kv_bytes

LENGTHS = Lengths(2000.0, 200.0)
MODEL = "meta-llama/Llama-3.1-8B"


def role(count: float = 1.0, **changes: float) -> Role:
    device = gpu("h100-sxm", **changes)
    return Role(replica(MODEL, device, weights="fp8"), one(1, 1, 1, 1), np.array([count]))


def flow(rate: float, prefill: Role, decode: Role, lengths: Lengths = LENGTHS) -> SplitFlow:
    return open_split(prefill, decode, np.array([rate]), lengths)


def single_server(seconds: float, together: float = 1.0) -> PrefillTimes:
    # Only the times matter to the queue; the memory of some layout stands in.
    real = prefill_times(role().replica, role().layouts, LENGTHS)
    time, ones = np.array([seconds]), np.array([1.0])
    return PrefillTimes(time, time * together, ones * together, ones, ones, real.memory)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
def test_one_prompt_at_a_time_waits_as_in_an_md1_queue(load: float) -> None:
    # Pollaczek-Khinchine with constant service S: rho * S / (2 (1 - rho)).
    times = single_server(0.2)
    expected = load * 0.2 / (2 * (1 - load))
    assert float(times.wait(load / 0.2, 1.0, "mean")[0]) == pytest.approx(expected)


def test_more_replicas_at_the_same_load_wait_less() -> None:
    times = single_server(0.2)
    waits = [float(times.wait(0.8 / 0.2, n, "mean")[0]) for n in (1.0, 2.0, 8.0)]
    assert waits == sorted(waits, reverse=True)


def bound_wait(servers: int, load: float, prompts: int = 30_000) -> float:
    """Mean wait over the service time when each prompt is bound on arrival to the server with fewest in the house."""
    rng, ends = np.random.default_rng(1), [deque([0.0]) for _ in range(servers)]
    now = total = 0.0
    for gap in rng.exponential(1.0 / (servers * load), prompts):
        now += gap
        for queue in ends:
            while len(queue) > 1 and queue[0] <= now:
                queue.popleft()
        ahead = [len(queue) - (queue[-1] <= now) for queue in ends]
        chosen = ends[rng.choice(np.flatnonzero(np.array(ahead) == min(ahead)))]
        start = max(now, chosen[-1])
        chosen.append(start + 1.0)
        total += start - now
    return total / prompts


@pytest.mark.parametrize(("servers", "load"), [(2, 0.8), (4, 0.7), (4, 0.9), (8, 0.8)])
def test_prompts_bound_to_a_replica_wait_as_a_replayed_router_lets_them(servers: int, load: float) -> None:
    predicted = float(single_server(1.0).wait(load, float(servers), "mean")[0])
    assert predicted == pytest.approx(bound_wait(servers, load), rel=0.12)


def test_a_pool_at_its_capacity_waits_for_ever() -> None:
    times = single_server(0.2)
    assert np.isinf(times.wait(5.0, 1.0, "mean")[0])
    assert np.isfinite(times.wait(4.99, 1.0, "p95")[0])


def replayed_loop(clients: int, think: float, rounds: int = 8, draws: int = 12) -> tuple[float, float]:
    """Mean wait before one server of a second per prompt, and requests/s, of load tests that start all at
    once: every client thinks 80 to 100 % of a nominal time, as decoding outputs of drawn length takes."""
    waits: list[float] = []
    lasting = 0.0
    for seed in range(draws):
        rng, free, started, end = np.random.default_rng(seed), 0.0, clients, 0.0
        arrivals = [0.0] * clients
        while arrivals:
            arrived = heapq.heappop(arrivals)
            start = max(arrived, free)
            free = start + 1.0
            waits.append(start - arrived)
            done = free + think * rng.uniform(0.8, 1.0) / 0.9
            end = max(end, done)
            if started < clients * rounds:
                started += 1
                heapq.heappush(arrivals, done)
        lasting += end
    return float(np.mean(waits)), clients * rounds * draws / lasting


def test_a_load_test_reports_what_its_replay_shows() -> None:
    # One prompt at a time, prefill pool about half busy, no overheads, 64 clients, eight rounds.
    engine = plain_engine(burst_rounds=8.0, chunk_tokens=2000.0, prefill="exclusive")
    pools = [replace(role(count), replica=replace(role().replica, engine=engine)) for count in (1.0, 4.0)]
    loop = closed_split(*pools, np.array([64.0]), Lengths(2000.0, 1000.0))
    service = 1.0 / float(loop.prefill.capacity[0])
    think = float(loop.lengths.decodes * loop.mean_tpot[0]) / service
    mean, rate = replayed_loop(64, think)
    (p50, served), (average, _) = loop.load_test("p50"), loop.load_test("mean")
    assert p50 == average  # as measured, though not as replayed: docs/accuracy.md
    others = float(loop.ttft("mean")[0]) - float(loop.prefill.wait(loop.rate, 1.0, "mean")[0]) * (1 - 1 / 64)
    assert (float(average[0]) - others) / service == pytest.approx(mean, rel=0.15)
    assert float(served[0]) * service == pytest.approx(rate, rel=0.02)


def test_the_whole_cache_of_a_prompt_travels() -> None:
    # Llama-3.1-8B: 32 layers, 8 KV heads of 128, keys and values, 2 bytes: 131,072 bytes per token.
    assert float(request_kv_bytes(role().replica, 2000.0)) == 2000 * 131_072


def test_sending_by_layer_hides_what_fits_beside_the_prefill() -> None:
    # 1 s on the wire, 4 s of prefill, 10 pieces: only the last tenth is left; without pieces all of it is.
    assert float(exposed_seconds(1.0, 4.0, 10.0)) == pytest.approx(0.1)
    assert float(exposed_seconds(1.0, 4.0, 1.0)) == pytest.approx(1.0)
    # A link slower than the prefill: 8 s less the 3.6 s that pass before the last piece is computed.
    assert float(exposed_seconds(8.0, 4.0, 10.0)) == pytest.approx(8.0 - 3.6)


def test_compression_shortens_the_transfer() -> None:
    slow = {"network_bandwidth": 1e9}
    plain = open_split(role(**slow), role(**slow), np.array([0.1]), LENGTHS)
    packed = open_split(role(**slow), role(**slow), np.array([0.1]), LENGTHS, TransferOptions(compression=4.0))
    # The eight GPUs of a node and more share no domain here: two pools of one GPU do, so put them on nine.
    far = open_split(role(5.0, **slow), role(4.0, **slow), np.array([0.1]), LENGTHS)
    assert float(packed.exposed[0]) < float(plain.exposed[0]) < float(far.exposed[0])


@settings(max_examples=20, deadline=None)
@given(slow=st.floats(1e9, 5e10), gain=st.floats(1.0, 50.0), rate=st.floats(0.1, 5.0))
def test_a_faster_link_never_lengthens_the_first_token(slow: float, gain: float, rate: float) -> None:
    def ttft(bandwidth: float) -> float:
        pools = (role(5.0, network_bandwidth=bandwidth), role(5.0, network_bandwidth=bandwidth))
        return float(flow(rate, *pools).ttft("p95")[0])

    assert ttft(slow * gain) <= ttft(slow) * (1 + 1e-9)


def test_decode_replicas_are_no_slower_than_those_that_also_prefill() -> None:
    # An infinite link and one replica more for the prompts: at the same batch no prompt interrupts an iteration.
    both = open_loop(role().replica, one(1, 1, 1, 1), np.array([64.0]), Lengths(2000.0, 1000.0))
    rate = float(both.rate[0])
    split = flow(rate, role(8.0, network_bandwidth=1e15), role(network_bandwidth=1e15))
    assert float(split.tpot("mean")[0]) <= float(both.tpot[0])
    assert float(split.batch[0]) <= 64.0


def test_prefix_hits_shorten_the_prefill_but_not_the_transfer() -> None:
    cold, warm = (flow(2.0, role(5.0), role(5.0), Lengths(2000.0, 200.0, hit)) for hit in (0.0, 1500.0))
    assert float(warm.prefill.own(0.1, 1.0)[0]) < 0.5 * float(cold.prefill.own(0.1, 1.0)[0])
    assert np.array_equal(warm.link.sending.seconds, cold.link.sending.seconds)


def test_everybody_in_a_closed_loop_is_somewhere() -> None:
    # Little's law over the whole deployment: N = X * (TTFT + (osl - 1) * TPOT), whatever holds the loop up.
    for concurrency in (1.0, 40.0, 4000.0):
        loop = closed_split(role(2.0), role(3.0), np.array([concurrency]), LENGTHS)
        cycle = float(loop.ttft("mean")[0]) + 199 * float(loop.mean_tpot[0])
        assert float(loop.rate[0]) * cycle == pytest.approx(concurrency, rel=1e-3)


def test_a_pool_that_is_short_holds_the_loop_up() -> None:
    loop = closed_split(role(1.0), role(8.0), np.array([2000.0]), LENGTHS)
    assert bool(loop.limited[0])
    assert float(loop.rate[0]) == pytest.approx(float(loop.prefill.capacity[0]), rel=0.01)


def test_one_request_alone_waits_for_nobody_however_busy_its_prefill_is() -> None:
    """Answers of two tokens: all the time goes into prompts, and a queue of nobody is no time."""
    with np.errstate(invalid="raise"):
        alone = closed_split(role(), role(), np.array([1.0]), Lengths(8000.0, 2.0))
        ttft = float(alone.ttft("p95")[0])
    assert ttft == pytest.approx(float(alone.ttft("mean")[0]))
    assert 1.0 / float(alone.rate[0]) == pytest.approx(ttft + float(alone.mean_tpot[0]), rel=1e-3)
