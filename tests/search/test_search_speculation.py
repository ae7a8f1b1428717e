"""Drafts as a dimension of the search: every length is looked at, and load decides between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planner_cases import job, one, supply

from planner.architecture.catalog import load_model
from planner.job.job import Job
from planner.job.speculating import Speculating
from planner.search.ranking import Candidate, Outcome
from planner.search.search import search
from planner.serving.closed_loop import closed_loop
from planner.serving.drafting import Drafting
from planner.serving.engine import load_engine
from planner.serving.lengths import Lengths
from planner.serving.speculation import LENGTHS

MODEL = load_model("llama-3.1-8b")
EAGLE = Speculating(method="eagle", acceptance=(0.7,))


def found(asked: Job, how: Speculating | None = EAGLE, gpus: int = 2) -> Outcome:
    drafting = None if how is None else Drafting(how)
    return search(MODEL, load_engine("vllm"), [supply("h100-sxm", gpus)], asked, drafting=drafting)


def length(candidate: Candidate) -> int:
    return int(candidate.replica.verified) - 1


def test_the_length_is_the_best_of_all_by_brute_force() -> None:
    asked = job(isl=500, osl=200, concurrency=4, objective="latency", weights=("bf16",), kv=("bf16",))
    best = found(asked, gpus=1).ranked[0]
    tried = {}
    for n in (0, *LENGTHS):
        kind = replace(best.replica, speculation=None)
        kind = replace(kind, speculation=Drafting(EAGLE).speculation(kind, n) if n else None)
        loop = closed_loop(kind, one(1), np.array([4.0]), Lengths(500.0, 200.0))
        tried[n] = float((loop.ttft("p95") + 199 * loop.tpot("p95"))[0])
    assert length(best) == min(tried, key=lambda n: tried[n])
    assert best.per_replica.e2e["p95"] == pytest.approx(min(tried.values()))


def test_offering_drafts_never_loses_output() -> None:
    for asked in (job(tpot=0.01), job(tpot=0.05), job(concurrency=4)):
        assert found(asked).ranked[0].output_rate >= found(asked, None).ranked[0].output_rate * (1 - 1e-9)


def test_lengths_fall_with_load_and_end_at_none() -> None:
    short = [job(isl=32, osl=32, concurrency=c, weights=("bf16",), kv=("bf16",)) for c in (1, 64, 2000)]
    weak = Speculating(method="eagle", acceptance=(0.5,))
    chosen = [length(found(asked, weak, gpus=1).ranked[0]) for asked in short]
    assert chosen[0] > 0 and chosen[0] >= chosen[1] >= chosen[2] == 0


def test_an_asked_length_is_the_only_one() -> None:
    lengths = {length(c) for c in found(job(tpot=0.05), replace_tokens(2)).ranked}
    assert lengths == {2}
    assert {length(c) for c in found(job(tpot=0.05), replace_tokens(0)).ranked} == {0}


def replace_tokens(n: int) -> Speculating:
    return EAGLE.model_copy(update={"tokens": n})


def test_pipelines_do_not_draft_and_the_ledger_says_so() -> None:
    outcome = found(job(tpot=0.05))
    assert all(c.layout.pp == 1 for c in outcome.ranked if length(c))
    assert any(c.layout.pp > 1 for c in outcome.ranked)
    reasons = {reason: n for reason, n, _ in outcome.rejections.rows()}
    assert reasons["drafts need one pipeline stage"] > 0


def test_pools_that_hand_over_draft_alike() -> None:
    outcome = found(job(isl=2000, osl=200, ttft=2.0, tpot=0.02, modes=("pd",)), gpus=4)
    assert outcome.ranked
    for candidate in outcome.ranked:
        prefill, decode = candidate.pools
        assert str(prefill.replica.speculation) == str(decode.replica.speculation)
    assert any(length(c) for c in outcome.ranked)
