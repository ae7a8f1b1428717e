"""A run is given up only where its end could not change the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_cases import job, supply

from planner.architecture.catalog import load_model
from planner.job.slo import QUANTILE, Slo
from planner.search.search import search
from planner.serving.engine import load_engine
from planner.simulation import check as checking
from planner.simulation.hopeless import TOLERANCE, WARM_UP, Hopeless
from planner.simulation.records import Records
from planner.simulation.request import Request


def records(ttft: list[float], tpot: float, output: int):
    """Records that grow by a finished request at a time."""
    kept = Records()
    for number, first in enumerate(ttft):
        request = Request(number, 0.0, 1, output)
        request.admitted, request.first_token, request.finished = 0.0, first, first + tpot * (output - 1)
        kept.add(request, 0.0)
        yield kept


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.floats(0.0, 2.0), min_size=4, max_size=120),
    percentile=st.sampled_from(["mean", *QUANTILE]),
    output=st.integers(1, 3),
)
def test_what_is_given_up_misses_the_limit_at_its_end(values, percentile, output):
    hopeless = Hopeless(Slo(ttft=1.0, percentile=percentile), len(values))
    given_up = any(hopeless(seen) for seen in records(values, 0.01, output))
    measured = values[int(WARM_UP * len(values)) :]
    if given_up:
        assert percentile != "mean"
        assert np.percentile(measured, 100 * QUANTILE[percentile]) > 1.0 + TOLERANCE


@pytest.mark.parametrize("limit", [{"ttft": 1.0}, {"tpot": 0.01}, {"e2e": 2.0}])
def test_a_run_in_which_all_are_late_ends_early(limit):
    hopeless = Hopeless(Slo(**limit), 400)
    seen = next(len(r) for r in records([2.0] * 400, 0.1, 11) if hopeless(r))
    assert seen < 150


def test_a_derated_plan_is_the_same_whether_failing_runs_end_early_or_not(monkeypatch):
    asked = job(ttft=0.5, tpot=0.02)
    plan = search(load_model("meta-llama/Llama-3.1-8B"), load_engine("vllm"), [supply("h100-sxm", 1)], asked).ranked[0]
    hopeful = checking.at_rate(plan, plan.rate * 1.15)
    early = checking.check(hopeful, asked)
    monkeypatch.setattr(Hopeless, "__call__", lambda self, seen: False)
    assert early.derated < 1 and early == checking.check(hopeful, asked)


def test_a_late_first_token_counts_when_it_comes_and_only_once():
    hopeless = Hopeless(Slo(ttft=1.0, percentile="p90"), 40)
    assert not any(hopeless.first_token(number, 2.0) for number in range(10, 14))
    assert not hopeless.first_token(3, 2.0), "requests of the warm-up are not measured"
    assert not hopeless.first_token(13, 2.0), "known already"
    assert hopeless.first_token(14, 2.0)
