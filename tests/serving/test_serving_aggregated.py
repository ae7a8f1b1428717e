"""Continuous batching in steady state: open loop, closed loop, static batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from planner_cases import one, plain_engine, replica, tiny

from planner.serving.aggregated import open_loop, steps
from planner.serving.closed_loop import closed_loop, static_batch
from planner.serving.iteration import Work, iteration_seconds
from planner.serving.latency import closed_loop_ttft
from planner.serving.layout import Layout, Layouts
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.replica import Replica

DENSE, ROUTED = "llama-3.1-8b", "qwen/qwen3-30b-a3b"


def at(kind: Replica, layout: Layouts, **work: float) -> float:
    return float(iteration_seconds(kind, layout, Work(**work))[0])


def array(value: float) -> np.ndarray:
    return np.array([float(value)])


def test_a_prompt_adds_what_its_chunks_add_to_the_iterations_they_ride_in() -> None:
    kind = replica(DENSE, engine=plain_engine(chunk_tokens=8192.0))
    s = steps(kind, one(1), array(10), Lengths(1000, 200))
    decode = at(kind, one(1), sequences=10, context=1100)  # mean context 1000 + 200/2
    mixed = at(kind, one(1), sequences=10, context=1100, chunk=1000)
    assert float(s.decode[0]) == pytest.approx(decode)
    assert float(s.prefill[0]) == pytest.approx(mixed - decode)
    assert float(s.own_prefill[0]) == pytest.approx(mixed)  # one chunk: the prompt lasts one mixed iteration


def test_a_long_prompt_is_cut_into_chunks_beside_the_running_decodes() -> None:
    kind = replica(DENSE, engine=plain_engine(chunk_tokens=2048.0))
    s = steps(kind, one(1), array(48), Lengths(6000, 200))
    assert float(s.chunks[0]) == 3  # 6000 tokens, 2048 - 48 of them in one iteration
    decode = at(kind, one(1), sequences=48, context=6100)
    mixed = at(kind, one(1), sequences=48, context=6100, chunk=2000, prefix=2000)  # the mean chunk follows 2000
    assert float(s.prefill[0]) == pytest.approx(3 * (mixed - decode))


@pytest.mark.parametrize(("isl", "osl", "batch"), [(51, 32, 900), (100, 50, 400)])
def test_many_short_prompts_share_an_iteration(isl: int, osl: int, batch: int) -> None:
    kind, prompts = replica(DENSE), batch / osl  # that many requests start, and end, in every iteration
    point = open_loop(kind, one(1), array(batch), Lengths(isl, osl))
    work = {"sequences": batch, "context": isl + osl / 2, "chunk": prompts * isl, "prompts": prompts}
    assert float(point.tpot[0]) == pytest.approx(at(kind, one(1), **work), rel=0.05)


def test_an_engine_that_stops_decoding_for_prompts_pays_whole_prefill_iterations() -> None:
    kind = replica(DENSE, engine=plain_engine(prefill="exclusive"))
    s = steps(kind, one(1), array(10), Lengths(1000, 200))
    assert float(s.prefill[0]) == pytest.approx(at(kind, one(1), chunk=1000))


def test_prompt_tokens_in_the_prefix_cache_are_not_prefilled_again() -> None:
    kind = replica(DENSE, engine=plain_engine())
    s = steps(kind, one(1), array(10), Lengths(1000, 200, 600))
    decode = at(kind, one(1), sequences=10, context=1100)
    assert float(s.prefill[0]) == pytest.approx(
        at(kind, one(1), sequences=10, context=1100, chunk=400, prefix=600) - decode
    )


def test_open_loop_rate_follows_from_littles_law_and_the_prompts_met() -> None:
    kind, osl = replica(ROUTED), 200
    layout = one(2, 4, 1, 8)
    point = open_loop(kind, layout, array(16), Lengths(1000, osl))
    s = point.steps
    tpot = float(s.decode[0]) + 16 / (osl - 1) * float(s.prefill[0])  # one prompt each in its osl-1 iterations
    assert float(point.tpot[0]) == pytest.approx(tpot)
    per_rank = 16 / ((osl - 1) * tpot)  # L = lambda W
    assert float(point.rate[0]) == pytest.approx(4 * per_rank)  # 4 attention ranks
    assert float(point.prefill_load[0]) == pytest.approx(per_rank * float(s.prefill[0]))


@given(
    batch=st.floats(0.1, 400),
    isl=st.integers(1, 30_000),
    osl=st.integers(1, 3000),
    layout=st.sampled_from([(1,), (4,), (1, 1, 2), (1, 4, 1, 4)]),
    engine=st.sampled_from(["mixed", "exclusive"]),
)
def test_open_loop_points_are_finite_and_decode_faster_than_they_serve(
    batch: float, isl: int, osl: int, layout: tuple[int, ...], engine: str
) -> None:
    kind = replica(ROUTED)
    kind = replace(kind, engine=replace(kind.engine, prefill=engine))
    point = open_loop(kind, one(*layout), array(batch), Lengths(isl, osl))
    if osl > 1:  # an answer of one token has no decode
        assert float(point.tpot[0]) >= float(point.steps.decode[0]) > 0
    assert float(point.prefill_load[0]) >= 0 and np.isfinite(float(point.rate[0]))


def cycle_by_hand(kind: Replica, layout: Layouts, concurrency: float, lengths: Lengths) -> tuple[float, float, float]:
    """(rate, batch, tpot) of a closed loop below its slots, by bisection on exact step times."""
    osl = float(lengths.osl)  # type: ignore[arg-type]
    low, high = 1e-3, concurrency
    for _ in range(60):
        batch = (low + high) / 2
        s = steps(kind, layout, array(batch), lengths)
        tpot = float(s.decode[0]) + max(batch - 1, 0) / osl * float(s.prefill[0])
        ttft = float(closed_loop_ttft(s, array(tpot), osl, kind.engine, "p50")[0])
        in_flight = batch * (1 + ttft / ((osl - 1) * tpot))
        low, high = (low, batch) if in_flight >= concurrency else (batch, high)
    mean = float(closed_loop_ttft(s, array(tpot), osl, kind.engine, "mean")[0])
    return concurrency / (mean + (osl - 1) * tpot), batch, tpot


@pytest.mark.parametrize("concurrency", [1, 3, 17, 100])
@pytest.mark.parametrize(("name", "layout"), [(DENSE, (1,)), (ROUTED, (2,)), (DENSE, (2, 1, 2))])
def test_closed_loop_solves_littles_law_on_both_phases(name: str, layout: tuple[int, ...], concurrency: int) -> None:
    kind, lengths = replica(name), Lengths(1000, 200)
    rate, batch, tpot = cycle_by_hand(kind, one(*layout), concurrency, lengths)
    found = closed_loop(kind, one(*layout), array(concurrency), lengths)
    # 2 %: between its knots the grid interpolates linearly
    assert float(found.rate[0]) == pytest.approx(rate, rel=0.02)
    assert float(found.steps.batch[0]) == pytest.approx(batch, rel=0.02)
    assert float(found.mean_tpot[0]) == pytest.approx(tpot, rel=0.02)
    assert float(found.queue[0]) == 0.0


def test_requests_in_flight_are_rate_times_their_time_in_the_system() -> None:
    kind, layout = replica(ROUTED), one(1, 2, 1, 2)
    found = closed_loop(kind, layout, array(32), Lengths(1000, 200))
    seconds = float(found.ttft("mean")[0]) + 199 * float(found.tpot("mean")[0])
    assert float(found.rate[0]) * seconds == pytest.approx(2 * 32)  # 32 on each of two attention ranks


def test_one_request_alone_decodes_at_the_pace_of_a_batch_of_one() -> None:
    kind = replica(DENSE)
    found = closed_loop(kind, one(1), array(1), Lengths(1000, 200))
    assert float(found.tpot("mean")[0]) == pytest.approx(at(kind, one(1), sequences=1, context=1100))


def test_requests_beyond_the_slots_wait_and_do_not_run() -> None:
    kind, lengths = replica(DENSE), Lengths(20_000, 500)
    slots = float(memory(kind, one(1), lengths).slots[0])
    crowd = [closed_loop(kind, one(1), array(n * slots), lengths) for n in (2, 4, 8)]
    for found in crowd:
        assert float(found.steps.batch[0]) == pytest.approx(slots, rel=1e-3)
    rates = [float(found.rate[0]) for found in crowd]
    full = slots / (499 * float(crowd[0].mean_tpot[0]))
    assert rates[-1] == pytest.approx(full, rel=0.1)  # the slots turn over no faster
    # a queue twice as long lasts twice as long: TTFT grows by slots/rate for every further filling
    added = float(crowd[2].queue[0]) - float(crowd[1].queue[0])
    assert added == pytest.approx(4 * slots / full, rel=0.02)


@given(
    name=st.sampled_from([DENSE, ROUTED]),
    layout=st.sampled_from([(1,), (2,), (8,), (2, 1, 2)]),
    isl=st.integers(10, 8000),
    osl=st.integers(16, 2000),
    crowd=st.floats(1, 300),
    more=st.floats(1.05, 4),
)
def test_more_requests_in_flight_never_slow_the_server_or_speed_up_a_user(
    name: str, layout: tuple[int, ...], isl: int, osl: int, crowd: float, more: float
) -> None:
    kind, lengths = replica(name), Lengths(isl, osl)
    # evaluated together, because the interpolation grid spans the largest concurrency of a call
    both = Layouts.of([Layout(*layout)] * 2, column=False)
    found = closed_loop(kind, both, np.array([crowd, crowd * more]), lengths)
    assume(bool(found.memory.fits.all()))
    assert found.tpot("mean")[1] >= found.tpot("mean")[0] * (1 - 1e-6)
    # 5 %: a larger opening burst stays in the mean TTFT of a test of given rounds, and so in its mean rate
    assert found.rate[1] >= found.rate[0] * (1 - 0.05)


def test_a_static_batch_is_one_prefill_of_all_and_then_decodes_together() -> None:
    kind = replica(DENSE, engine=plain_engine(chunk_tokens=8192.0))
    found = static_batch(kind, one(1), array(8), Lengths(1000, 200))
    prefill = at(kind, one(1), chunk=8000, prompts=8)
    decode = at(kind, one(1), sequences=8, context=1100)
    assert float(found.duration[0]) == pytest.approx(prefill + 199 * decode)
    assert float(found.rate[0]) == pytest.approx(8 / (prefill + 199 * decode))
    assert float(found.tpot[0]) == pytest.approx(decode)


def test_a_static_batch_beyond_the_cache_runs_in_waves() -> None:
    kind, lengths = replica(tiny(4), engine=plain_engine(max_sequences=50.0)), Lengths(100, 20)
    one_wave, three = (static_batch(kind, one(1), array(n), lengths) for n in (50, 150))
    assert bool(three.memory.fits[0])
    assert float(three.duration[0]) == pytest.approx(3 * float(one_wave.duration[0]))
    assert float(three.rate[0]) == pytest.approx(float(one_wave.rate[0]))


def test_a_single_output_token_needs_no_decode() -> None:
    kind = replica(DENSE, engine=plain_engine())
    found = static_batch(kind, one(1), array(1), Lengths(1000, 1))
    assert float(found.duration[0]) == pytest.approx(at(kind, one(1), chunk=1000))
