"""Pipelines over two GPU types as units of a mixture."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from planner.api import Catalogs
from planner.job.classes import single_class
from planner.job.job import Job
from planner.job.parse import parse_job
from planner.search.cross_type import MOST_GPUS, Pipeline, pipeline_capacity, worthwhile_pipelines
from planner.search.mixed import Menu, build_menu
from planner.search.unit_table import UnitTable
from planner.serving.engine import load_engine
from planner.serving.replica import Stage

KNOWN = Catalogs()
ENGINE = load_engine("vllm")


def job(fleet: str = "l4:2,t4:2", tpot: str = "300ms") -> Job:
    return parse_job(
        model="llama-3.1-8b", fleet=fleet, isl="1000", osl="200", ttft="5s", tpot=tpot, percentile="p95",
        weights="bf16", kv="bf16", engine="vllm", simulate_top=0,
    )  # fmt: skip


@cache
def menu(fleet: str = "l4:2,t4:2") -> Menu:
    asked = job(fleet)
    classes = single_class(1000, 200, None)
    return build_menu(
        KNOWN.model(asked.model),
        ENGINE,
        list(KNOWN.supplies(asked.fleet)),
        asked,
        classes,
        cross_type={"l4": 2, "t4": 2},
    )


def test_stages_follow_each_other_over_all_layers_on_both_types() -> None:
    assert menu().pipelines
    for pipeline in menu().pipelines:
        stages = pipeline.replica.stages
        assert stages[0].first == 0 and stages[-1].end == 32
        assert all(a.end == b.first for a, b in pairwise(stages))
        assert set(pipeline.gpus) == {"l4", "t4"} and max(pipeline.gpus.values()) <= MOST_GPUS


def test_templates_take_the_gpus_of_both_types_and_every_stage_stands_in_one_node() -> None:
    (pipeline, *_) = menu().pipelines
    (template,) = [t for t in menu().templates if t.id == pipeline.name]
    assert template.gpus == pipeline.gpus
    for gpu, count in template.gpus.items():
        sizes = [s.tp for s in pipeline.replica.stages if s.gpu == gpu]
        assert sum(template.pieces_on(gpu)) == count == sum(sizes)
    watts = sum(s.tp * s.replica.accelerator.power for s in pipeline.replica.stages)
    assert template.power == pytest.approx(watts)
    candidate = menu().candidates[pipeline.name, "all"]
    assert candidate.gpus_by_type == pipeline.gpus and candidate.gpus == sum(pipeline.gpus.values())
    price = {s.accelerator.id: s.price or 0.0 for s in KNOWN.supplies(job().fleet)}
    assert candidate.cost == pytest.approx(sum(n * price[gpu] for gpu, n in pipeline.gpus.items()))


def test_the_cut_is_as_good_as_the_best_of_all_two_stage_cuts() -> None:
    (pipeline,) = [p for p in menu().pipelines if len(p.replica.stages) == 2 and p.gpus == {"l4": 1, "t4": 2}]
    first, second = pipeline.replica.stages
    a, b = (KNOWN.replica("llama-3.1-8b", s.gpu, "bf16", "bf16", "vllm") for s in (first, second))
    rates = []
    for cut in range(4, 29):
        stages = (Stage(a.part(0, cut), first.tp, 0, cut), Stage(b.part(cut, 32), second.tp, cut, 32))
        found = pipeline_capacity(Pipeline(replace(a, stages=stages), None), job())
        rates.append(0.0 if found is None else found.rate)
    ours = menu().candidates[pipeline.name, "all"].rate
    assert ours >= max(rates) * 0.97


def test_a_pipeline_carries_more_than_smaller_units_on_its_gpus() -> None:
    for pipeline in menu().pipelines:
        alone = 0.0
        for gpu, count in pipeline.gpus.items():
            best = [0.0] * (count + 1)
            units = [(t.gpus[gpu], t.capacity["all"]) for t in menu().templates if set(t.gpus) == {gpu}]
            for n in range(1, count + 1):
                best[n] = max([best[n - 1], *(best[n - size] + rate for size, rate in units if size <= n)])
            alone += best[count]
        assert menu().candidates[pipeline.name, "all"].rate > alone


def test_nothing_is_built_where_each_type_does_better_alone_or_vendors_differ() -> None:
    asked = job("h100-sxm:2,a100-sxm-80gb:2", tpot="40ms")
    model = KNOWN.model(asked.model)
    units = [("h100-sxm", 1, 1e3), ("a100-sxm-80gb", 1, 1e3)]
    assert worthwhile_pipelines(model, ENGINE, list(KNOWN.supplies(asked.fleet)), asked, units) == []
    mixed = job("h100-sxm:1,mi300x:1")
    assert worthwhile_pipelines(model, ENGINE, list(KNOWN.supplies(mixed.fleet)), mixed, []) == []


def test_units_that_two_smaller_ones_replace_are_forgotten() -> None:
    table: UnitTable[str] = UnitTable(3)
    table.offer((1, 0), 2.0)
    table.offer((0, 1), 1.0)
    assert table.offer((1, 1), 3.5, "pair") and not table.offer((1, 1), 3.5, "again")
    table.offer((2, 1), 5.4, "split into a pair and a single")
    table.offer((2, 2), 9.0, "more than all parts")
    assert table.worthwhile() == ["pair", "more than all parts"]
    assert table.closed()[2, 1] == 5.5 and np.all(np.diff(table.closed(), axis=0) >= 0)
