"""Metrics, stability, interruption, time series and progress."""

from __future__ import annotations

import csv
import itertools
import json
import math

import numpy as np
import pytest

from planner.simulation import AffineSteps, Deployment, Pool, Request, Target, simulate, summarize, timeline_text
from planner.simulation.histogram import TimeHistogram
from planner.simulation.series import Segment, elapsed, iterations_completed, iterations_until
from planner.simulation.streams import ClosedLoop, Fixed, Lognormal, OpenStream, Poisson

CHAT = {"prompts": Lognormal(500, 0.8), "outputs": Lognormal(100, 0.6)}


def serve(rate, count=3000, **options):
    return simulate(Deployment(Pool(AffineSteps())), OpenStream(Poisson(rate), **CHAT, count=count), **options)


def test_tpot_is_the_time_after_the_first_token_per_further_token():
    run = simulate(Deployment(Pool(AffineSteps(), offset=0.05)), OpenStream(Poisson(1), Fixed(100), Fixed(11), 50))
    summary = summarize(run)
    assert summary.tpot.mean == pytest.approx((summary.end_to_end.mean - summary.ttft.mean) / 10)
    assert summary.ttft.p50 > 0.05
    # Alone in the engine, the gap between tokens is the TPOT.
    assert summary.itl.p50 == pytest.approx(summary.tpot.p50, rel=0.01)


def test_goodput_counts_requests_within_every_target():
    run = serve(20)
    loose, tight = summarize(run, Target(ttft=100, tpot=100)), summarize(run, Target(ttft=1e-9))
    assert loose.attainment == 1 and loose.goodput == pytest.approx(loose.requests_per_s)
    assert tight.attainment == tight.goodput == 0
    some = summarize(run, Target(ttft=loose.ttft.p90))
    assert some.attainment == pytest.approx(0.9, abs=0.01)


def test_a_run_without_details_serves_every_request_as_one_with_them():
    whole, lean = serve(60), serve(60, details=False)
    assert list(lean.records.ttft) == list(whole.records.ttft)
    assert list(lean.records.end_to_end) == list(whole.records.end_to_end)
    assert summarize(lean).stability == summarize(whole).stability
    assert not lean.timeline.moments and not lean.token_gaps.count


def test_throughput_of_a_stable_system_is_the_offered_rate():
    summary = summarize(serve(20))
    assert summary.stability.stable
    assert summary.requests_per_s == pytest.approx(20, rel=0.05)
    assert 0 < summary.utilisation <= 1 and 0 < summary.kv_occupancy < 1


def test_overload_is_reported_as_unstable_and_not_as_a_huge_latency():
    summary = summarize(serve(120))
    assert not summary.stability.stable
    assert summary.ttft.p95 == math.inf
    assert summary.stability.served_per_s < 100
    assert "unstable" in str(summary.stability)
    # The fill at the start of a short run does not count as a failure to serve.
    assert summary.stability.carried_per_s == pytest.approx(summary.stability.offered_per_s / 1.5, rel=0.15)


@pytest.mark.parametrize("rate", [5, 20, 40])
def test_a_system_that_keeps_up_is_stable(rate):
    assert summarize(serve(rate)).stability.stable


def test_a_closed_loop_is_never_unstable():
    run = simulate(Deployment(Pool(AffineSteps())), ClosedLoop(1000, Fixed(500), Fixed(50), 5000))
    assert summarize(run).stability.stable
    assert run.finished == 5000


def test_little_s_law_holds():
    """Requests in decoding = rate x time in decoding, with times taken from the requests."""
    run = serve(20)
    between = sum(e - t for e, t in zip(run.records.end_to_end, run.records.ttft, strict=True))
    assert run.sequence_seconds == pytest.approx(between, rel=0.02)


def test_the_confidence_interval_covers_the_long_run_mean():
    long_run = summarize(serve(20, 40_000)).end_to_end
    short = summarize(serve(20, 4000)).end_to_end
    assert abs(short.mean - long_run.mean) < 2 * short.half_width
    assert long_run.half_width < short.half_width


class Interrupted(OpenStream):
    def arrivals(self):
        yield from itertools.islice(super().arrivals(), 500)
        raise KeyboardInterrupt


def test_ctrl_c_returns_what_is_known():
    run = simulate(Deployment(Pool(AffineSteps())), Interrupted(Poisson(20), **CHAT, count=1000))
    assert run.interrupted and 0 < run.finished <= 500
    assert summarize(run).interrupted


def test_progress_is_reported_and_requests_can_be_limited():
    calls = []
    run = serve(20, 10_000, progress=lambda *call: calls.append(call), max_requests=5000)
    assert run.finished == run.submitted == 5000
    assert [call[0] for call in calls] == [2000, 4000]


def test_the_timeline_is_bounded_and_exported():
    run = serve(20)
    rows = list(run.timeline.rows())
    assert 200 < len(rows) <= 513
    assert [m.busy for _, m in rows] == sorted(m.busy for _, m in rows)
    table = list(csv.DictReader(timeline_text(run.timeline, ".csv").splitlines()))
    assert len(table) == len(rows) and int(table[9]["running"]) == rows[9][1].running
    events = json.loads(timeline_text(run.timeline, ".json"))["traceEvents"]
    assert {e["name"] for e in events} == {"requests", "KV tokens", "preemptions"} and all(
        e["ph"] == "C" for e in events
    )


def test_an_empty_stream_has_no_statistics():
    run = simulate(Deployment(Pool(AffineSteps())), OpenStream(Poisson(1), **CHAT, count=0))
    assert math.isnan(summarize(run).ttft.mean)


def test_a_histogram_adds_a_series_as_its_terms():
    whole, terms = TimeHistogram(), TimeHistogram()
    whole.add_series(0.0101, 3e-5, 400, 3)
    for j in range(400):
        terms.add(0.0101 + 3e-5 * j, 3)
    assert whole.bins == terms.bins
    assert whole.total == pytest.approx(terms.total)
    assert whole.quantile(0.9) == pytest.approx(0.0101 + 3e-5 * 360, rel=0.002)


def test_closed_form_sums_equal_the_terms():
    segments = [Segment(5, 0.1, 0.01), Segment(3, 0.15, 0.0), Segment(100, 0.15, 0.002)]
    times = np.cumsum([s.first + s.slope * j for s in segments for j in range(s.length)])
    for n, time in enumerate(times, 1):
        assert elapsed(segments, n) == pytest.approx(time)
        assert iterations_until(segments, time - 1e-4) == n
        assert iterations_until(segments, time + 1e-4) == min(n + 1, len(times))
        assert iterations_completed(segments, time + 1e-4) == n
        assert iterations_completed(segments, time - 1e-4) == n - 1


def test_requests_can_be_read_in_a_debugger():
    assert "Request(3" in repr(Request(3, 0.0, 5, 6))
