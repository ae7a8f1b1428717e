"""Drafts in attention-FFN splits: pools against brute force, lengths against searches of one length each."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from planner_cases import job, supply

from planner.architecture.catalog import load_model
from planner.job.speculating import Speculating
from planner.search.attention_ffn import attention_ffn_pool, attention_ffn_pools
from planner.search.candidates import Family, fitting, lengths_of
from planner.search.ranking import Candidate
from planner.search.reject import Rejections
from planner.search.search import search
from planner.search.supply import Supply
from planner.serving.afd import AttentionFfn, Workers
from planner.serving.drafting import Drafting
from planner.serving.engine import load_engine
from planner.serving.latency import luck, slots_needed, z_score
from planner.serving.layout import Layout
from planner.serving.replica import Replica
from planner.serving.speculation import LENGTHS

STEP3 = load_model("stepfun-ai/step3")
ENGINE = load_engine("vllm")
EAGLE = Speculating(method="eagle", acceptance=(0.7,))
ASKED = job(4000, 500, modes=("af",), ttft=10.0, tpot=0.03, weights=("fp8",), kv=("fp8",))


def member(side: Supply, length: int) -> tuple[Supply, int, Family]:
    plain = Replica(STEP3, side.accelerator, side.efficiency, ENGINE, "fp8", "fp8")
    replica = replace(plain, speculation=Drafting(EAGLE).speculation(plain, length) if length else None)
    family = fitting(replica, [Layout(8, 1, 1, 8)], ASKED.workload, Rejections())
    assert family is not None
    return side, side.count, family


def test_a_pool_that_drafts_has_the_best_number_of_workers_by_brute_force() -> None:
    attention, ffn = member(supply("h20", 16), 2), member(supply("h800-sxm", 24), 2)
    lengths = lengths_of(ASKED.workload)
    pool = attention_ffn_pool(attention, ffn, ASKED.slo, lengths, Rejections())
    assert pool is not None
    both, batches, best = AttentionFfn(attention[2].replica, ffn[2].replica), np.geomspace(1, 700, 400), 0.0
    for n_a, n_f, tp, m in itertools.product((1, 2), (1, 2, 3), (1, 2, 4, 8), (2, 3, 4)):
        workers = Workers.one(Layout(tp, 8 // tp), Layout(8, ep=8), (n_a, n_f), m)
        requests = batches * float(workers.ranks[0])
        seconds = both.token_seconds(workers, requests, lengths)
        slope = np.maximum(seconds - seconds[0], 0.0) / batches
        lucky = luck(both.attention.tokens_per_step, both.attention.step_variance, seconds, lengths.osl)
        seen = seconds + z_score(ASKED.slo.percentile) * np.hypot(np.sqrt(batches) * slope, lucky)
        held = float(both.held(workers, lengths).slots[0])
        allowed = (slots_needed(batches, ASKED.slo.percentile) <= held) & (seen <= 0.03)
        best = max(best, float((np.where(allowed, requests / seconds, 0.0) / float(workers.gpus[0])).max()))
    found = pool.rate * float(np.ravel(lengths.decodes)[0]) / pool.gpus
    # As without drafts: a batch that just fills its tiles is up to a tenth better than its neighbours.
    assert 0.88 * best <= float(found.max()) <= 1.02 * best


def test_both_sides_of_every_pool_draft_alike() -> None:
    sides = [supply("h20", 16), supply("h800-sxm", 24)]
    members = [member(side, length) for side in sides for length in (0, 1, 3)]
    pools = list(attention_ffn_pools(members, ASKED.slo, lengths_of(ASKED.workload), Rejections()))
    drafts = [(str(p.blocks[0].attention.speculation), str(p.blocks[0].ffn.speculation)) for p in pools if p.blocks]
    assert all(first == second for first, second in drafts)
    assert {first for first, _ in drafts} == {"None", "eagle1", "eagle3"}
    assert len(pools) == 3 * 3  # any two types but H20 twice, which leaves no node for prompts


def best(tokens: int | None, how: Speculating | None = EAGLE) -> Candidate:
    drafting = None if how is None else Drafting(how.model_copy(update={"tokens": tokens}))
    found = search(STEP3, ENGINE, [supply("h800-sxm", 24)], ASKED, drafting=drafting)
    assert all(c.mode == "af" for c in found.ranked)
    return found.ranked[0]


def test_the_length_is_the_best_of_all_and_no_draft_is_one_of_them() -> None:
    free = best(None)
    tried = {n: best(n).output_rate for n in (0, *LENGTHS)}
    assert free.output_rate == max(tried.values())
    assert free.replica.verified - 1 == max(tried, key=lambda n: tried[n]) > 0
    assert tried[0] == best(None, None).output_rate
    assert {str(pool.replica.speculation) for pool in free.pools} == {str(free.replica.speculation)}
    useless = EAGLE.model_copy(update={"acceptance": (0.0,)})
    assert best(None, useless).replica.speculation is None
