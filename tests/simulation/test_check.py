"""Ranked plans are simulated before they are shown: what misses a limit falls back, with the reason."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from planner_cases import job, one, supply

from planner.architecture.catalog import load_model
from planner.job.job import Job
from planner.search.candidates import lengths_of
from planner.search.ranking import Candidate, Outcome, rank_key
from planner.search.search import search
from planner.serving.engine import load_engine
from planner.serving.iteration import Work, iteration_seconds
from planner.serving.queueing import mean_wait_deterministic
from planner.simulation.check import PROBLEM, TOLERANCE, check, performance, recheck
from planner.simulation.deploy import Served, deployment
from planner.simulation.metrics import summarize
from planner.simulation.part import simulated_replicas
from planner.simulation.simulator import simulate
from planner.simulation.streams import EvenPoisson, Fixed, OpenStream

MODEL = load_model("meta-llama/Llama-3.1-8B")
PRECISION = {"weights": ("bf16",), "kv": ("bf16",)}


def outcome(asked: Job, gpus: int = 1, engine: str = "vllm", **changes: float) -> Outcome:
    return search(MODEL, replace(load_engine(engine), **changes), [supply("h100-sxm", gpus)], asked)


def best(asked: Job, gpus: int = 1, engine: str = "vllm", **changes: float) -> Candidate:
    return outcome(asked, gpus, engine, **changes).ranked[0]


def hopeful(candidate: Candidate, factor: float) -> Candidate:
    """The candidate of a closed form that promises ``factor`` times what it should."""
    return replace(candidate, rate=candidate.rate * factor)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_prediction_and_simulation_agree_at_a_light_load(engine):
    """Hardly any queueing: 3 % for TPOT and end to end, 8 % for TTFT (an arrival waits for part of an iteration)."""
    asked = job(rate=0.5, **PRECISION)
    candidate = best(asked, engine=engine)
    predicted, seen = candidate.per_replica, performance(check(candidate, asked))
    assert seen is not None
    for statistic in ("mean", "p50", "p95"):
        assert getattr(seen.ttft_ms, statistic) == pytest.approx(predicted.ttft[statistic] * 1e3, rel=0.08)
        assert getattr(seen.tpot_ms, statistic) == pytest.approx(predicted.tpot[statistic] * 1e3, rel=0.03)
        assert getattr(seen.e2e_ms, statistic) == pytest.approx(predicted.e2e[statistic] * 1e3, rel=0.03)


@pytest.mark.parametrize("mode", ["aggregated", "pd"])
def test_prefix_hits_spare_prefill_but_decodes_read_the_whole_context(mode):
    asked = job(16_000, 300, rate=1.0, prefix_hit=0.9, modes=(mode,), **PRECISION)
    candidate = best(asked, gpus=2)
    predicted, seen = candidate.per_replica, performance(check(candidate, asked))
    assert seen is not None
    assert seen.tpot_ms.mean == pytest.approx(predicted.tpot["mean"] * 1e3, rel=0.12)
    assert seen.ttft_ms.mean == pytest.approx(predicted.ttft["mean"] * 1e3, rel=0.15)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.65])
def test_prompts_alone_queue_as_md1_predicts_and_as_simulated(load):
    """One prompt fills an iteration and there is no decode: W = rho S / (2 (1 - rho)).

    Predicted to 2 % of wait and service. The mean of eight short simulations to 8 %: single ones scatter by a
    third of the wait at the highest load.
    """
    engine = {"chunk_tokens": 4000.0, "offset": 0.0, "decode_steps": 0.0}
    idle = best(job(4000, 1, rate=0.1, **PRECISION), **engine)
    service = float(iteration_seconds(idle.replica, one(1), Work(chunk=4000)).ravel()[0])
    asked = job(4000, 1, rate=load / service, **PRECISION)
    candidate = best(asked, **engine)
    expected = service + mean_wait_deterministic(load / service, service)
    assert candidate.per_replica.ttft["mean"] == pytest.approx(expected, rel=0.02)
    runs = [check(candidate, asked.model_copy(update={"seed": seed})).summary.ttft.mean for seed in range(8)]
    assert sum(runs) / len(runs) == pytest.approx(expected, rel=0.08)


def test_a_plan_that_misses_its_limit_in_simulation_goes_last_and_says_why():
    asked = job(rate=40.0, ttft=0.5, tpot=0.02)
    found = outcome(asked, 4)
    first = found.ranked[0]
    saturated = outcome(job(ttft=0.5, tpot=0.02), 4).ranked[0]
    found.ranked = [hopeful(saturated, 1.3), *found.ranked[:3]]
    ranked = recheck(found, asked)
    assert ranked[0][0] == first
    demoted, verdict = ranked[-1]
    assert demoted == found.ranked[0]
    assert verdict is not None and verdict.simulated is not None
    (note,) = verdict.notes
    assert note.startswith("demoted: simulated tpot p95") and note.endswith("misses 20.0 ms")
    assert verdict.simulated.tpot_ms.p95 is not None and verdict.simulated.tpot_ms.p95 > 20 * (1 + TOLERANCE)
    assert all(v is not None and not any(n.startswith(PROBLEM) for n in v.notes) for _, v in ranked[:-1])


def test_an_overloaded_plan_has_no_simulated_numbers_but_a_reason():
    """Latencies of an unstable queue grow with the length of the run, so none is shown."""
    asked = job(rate=1e4)
    found = outcome(job(ttft=0.5), 1)
    found.ranked = [hopeful(found.ranked[0], 20.0)]
    ((_, verdict),) = recheck(found, asked)
    assert verdict is not None and verdict.simulated is None
    assert verdict.notes[0].startswith("demoted: unstable:") and "requests/s arrive" in verdict.notes[0]


def test_a_goodput_plan_is_derated_until_it_holds():
    """Promised 1.2 times its capacity: 0.78 of that is 0.94 of what it can."""
    asked = job(ttft=0.5, tpot=0.02)
    able = outcome(asked, 2).ranked[0]
    checked = check(hopeful(able, 1.2), asked)
    assert checked.problem is None
    assert checked.derated in (0.88, 0.78)
    assert checked.candidate.rate == pytest.approx(able.rate * 1.2 * checked.derated)
    assert checked.summary.tpot.p95 <= 0.02 * (1 + TOLERANCE)
    # The next higher step was tried, and missed.
    higher = {0.88: 0.95, 0.78: 0.88}[checked.derated]
    fixed = job(rate=able.rate * 1.2 * higher, ttft=0.5, tpot=0.02)
    assert check(hopeful(able, 1.2 * higher), fixed).problem is not None
    ((_, verdict),) = recheck(Outcome(ranked=[hopeful(able, 1.2)]), asked)
    assert verdict is not None
    assert any(f"load lowered to {checked.derated:.0%}" in note for note in verdict.notes)


def test_a_given_rate_is_never_lowered():
    asked = job(rate=500.0, ttft=0.5, tpot=0.02)
    able = outcome(job(ttft=0.5, tpot=0.02), 2).ranked[0]
    checked = check(hopeful(able, 1.5), asked)
    assert checked.derated == 1.0 and checked.problem is not None
    assert checked.candidate.rate == pytest.approx(able.rate * 1.5)


@pytest.mark.parametrize("objective", ["throughput", "cost", "latency", "gpus", "energy"])
def test_the_final_order_is_that_of_the_objective_at_the_load_that_holds(objective):
    asked = job(ttft=0.5, tpot=0.02, objective=objective, simulate_top=3)
    ranked = recheck(outcome(asked, 4), asked)
    key = rank_key(objective, "p95")
    failed = [verdict is not None and any("demoted" in n for n in verdict.notes) for _, verdict in ranked]
    now = [candidate if verdict is None else verdict.candidate for candidate, verdict in ranked]
    assert failed == sorted(failed)
    good = [key(c) for c, f in zip(now, failed, strict=True) if not f]
    assert all(a <= b for a, b in itertools.pairwise(good))


def test_only_the_first_plans_are_simulated():
    asked = job(ttft=0.5, tpot=0.02, simulate_top=2)
    verdicts = [verdict for _, verdict in recheck(outcome(asked, 4), asked)]
    assert all(v is not None for v in verdicts[:2])
    assert 2 <= sum(v is not None for v in verdicts) <= 4
    heard: list[str] = []
    recheck(outcome(asked, 4), asked, heard.append)
    assert len(heard) == sum(v is not None for v in verdicts) and heard[0].startswith("simulating plan 1: ")


def test_a_seed_decides_everything():
    asked = job(rate=40.0, simulate_top=2)
    first, second = (recheck(outcome(asked, 2), asked) for _ in range(2))
    assert first == second
    other = recheck(outcome(asked, 2), asked.model_copy(update={"seed": 7}))
    assert other[0][1].simulated != first[0][1].simulated  # type: ignore[union-attr]


def test_a_few_of_many_equal_replicas_stand_for_all():
    """64 replicas at 100 requests in flight each are not all simulated; rates are those of the whole plan."""
    asked = job(ttft=0.5, tpot=0.02)
    candidate = next(c for c in outcome(asked, 64).ranked if c.layout.gpus == 1)
    assert candidate.replicas == 64 and simulated_replicas(candidate) < 8
    checked = check(candidate, asked)
    seen = performance(checked)
    assert seen is not None
    assert seen.request_rate == pytest.approx(checked.candidate.rate, rel=1e-5)
    assert seen.output_tok_s == pytest.approx(checked.candidate.rate * 200, rel=1e-5)
    assert seen.output_tok_s_per_gpu == pytest.approx(seen.output_tok_s / 64, rel=1e-5)


def test_a_closed_loop_keeps_its_users():
    asked = job(concurrency=32.0, **PRECISION)
    candidate = best(asked)
    checked = check(candidate, asked)
    seen = performance(checked)
    assert checked.problem is None and seen is not None
    # Little's law: 32 users = throughput x time of a request, to 5 % for the ends of a finite run.
    assert seen.request_rate * seen.e2e_ms.mean / 1e3 == pytest.approx(32, rel=0.05)
    assert seen.request_rate == pytest.approx(candidate.rate, rel=0.05)


def test_answers_of_one_token_have_no_tpot():
    asked = job(2000, 1, rate=2.0)
    seen = performance(check(best(asked), asked))
    assert seen is not None and seen.tpot_ms.p95 == 0.0 and seen.ttft_ms.mean > 0


def test_a_limit_that_is_passed_within_the_error_of_the_simulation_is_said():
    """Such a plan stays in its place, but whoever builds it should know."""
    asked = job(rate=0.5, **PRECISION)
    candidate = best(asked)
    seen = check(candidate, asked).summary.ttft.p95
    for share, said in ((1.02, True), (1.001, False), (0.9, False)):
        limited = asked.model_copy(update={"slo": asked.slo.model_copy(update={"ttft": seen / share})})
        ((_, verdict),) = recheck(Outcome(ranked=[candidate]), limited)
        assert verdict is not None
        assert ["2.0% over" in note for note in verdict.notes] == [True] * said


def test_a_run_too_short_to_fill_the_batch_starts_in_full_swing(monkeypatch):
    """From an empty system 500 requests, two lifetimes of the batch, would find a TPOT 15 % too good."""
    monkeypatch.setattr("planner.simulation.part._MOST", 500)
    asked = job(50, 500, rate=28.0, **PRECISION)
    candidate = best(asked)
    running = candidate.per_replica.batch
    assert running > 200
    checked = check(candidate, asked)
    deployed = deployment(Served(candidate.replica, candidate.layout, 1, lengths_of(asked.workload)), 0.016)
    stream = OpenStream(EvenPoisson(28.0), Fixed(50), Fixed(500), round(9 * running), seed=3)
    steady = summarize(simulate(deployed, stream, details=False), warm_up=0.4)
    assert checked.summary.measured == 375  # the background leaves no records
    assert checked.summary.tpot.mean == pytest.approx(steady.tpot.mean, rel=0.04)
    assert checked.summary.ttft.p95 == pytest.approx(steady.ttft.p95, rel=0.1)
