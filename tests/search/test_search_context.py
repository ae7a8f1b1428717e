"""Context parallelism in the search: looked at for long prompts or when asked, exact, and never in the way."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from planner_cases import gpu, job, replica, supply

from planner.architecture.catalog import load_model
from planner.job.job import Job
from planner.search.ranking import Outcome
from planner.search.reject import Rejections
from planner.search.search import search
from planner.search.space import LONG_PROMPT, context_widths, layouts
from planner.serving.closed_loop import closed_loop
from planner.serving.engine import load_engine
from planner.serving.layout import Layout, Layouts
from planner.serving.legality import shape_problem
from planner.serving.lengths import Lengths

MODEL = load_model("llama-3.1-8b")
ONE = {"weights": ("bf16",), "kv": ("bf16",)}


def found(asked: Job, gpus: int = 8) -> Outcome:
    return search(MODEL, load_engine("vllm"), [supply("h100-sxm", gpus)], asked)


def test_short_prompts_are_searched_as_ever() -> None:
    assert context_widths(job(isl=LONG_PROMPT - 1)) == (1,)
    assert context_widths(job(isl=4 * LONG_PROMPT, prefix_hit=0.9)) == (1,)  # what the cache holds is not computed
    assert max(context_widths(job(isl=LONG_PROMPT))) > 1
    assert context_widths(job(isl=100, cp=(2, 4))) == (2, 4)
    routed = load_model("qwen/qwen3-30b-a3b")
    plain = layouts(routed, gpu(), 16, Rejections())
    assert {x.cp for x in plain} == {1}
    assert [x for x in layouts(routed, gpu(), 16, Rejections(), None, (1, 2)) if x.cp == 1] == plain


def test_the_best_of_all_splits_is_found_by_brute_force() -> None:
    asked = job(isl=100_000, osl=200, concurrency=1, objective="latency", cp=(1, 2, 4), **ONE)
    best = found(asked).ranked[0]
    kind, tried = replica(MODEL), {}
    for tp, pp, cp in product(range(1, 9), range(1, 9), (1, 2, 4)):
        layout = Layout(tp, 1, pp, 1, cp)
        if layout.gpus > 8 or shape_problem(MODEL, layout):
            continue
        loop = closed_loop(kind, Layouts.of([layout], column=False), np.array([1.0]), Lengths(100_000.0, 200.0))
        if loop.memory.fits[0]:
            tried[layout] = float((loop.ttft("p95") + 199 * loop.tpot("p95"))[0])
    assert best.layout == min(tried, key=lambda layout: tried[layout])
    assert best.per_replica.e2e["p95"] == pytest.approx(min(tried.values()))


def test_the_fastest_answer_to_a_long_prompt_cuts_its_context() -> None:
    alone = {"isl": 128_000, "osl": 20, "concurrency": 1, "objective": "latency"}
    best, whole = (found(job(**alone, **more), 16).ranked[0] for more in ({}, {"cp": (1,)}))  # type: ignore[arg-type]
    assert best.layout.cp > 1 and whole.layout.cp == 1
    assert best.per_replica.e2e["p95"] < whole.per_replica.e2e["p95"]


def test_a_wider_space_never_loses() -> None:
    for asked in (job(isl=60_000, osl=200, tpot=0.03), job(isl=60_000, osl=200, ttft=8.0, tpot=0.05)):
        narrow = found(asked.model_copy(update={"cp": (1,)}))
        assert found(asked).ranked[0].output_rate >= narrow.ranked[0].output_rate * (1 - 1e-9)
