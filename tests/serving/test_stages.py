"""Pipelines whose stages stand on different GPU types."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.api import Catalogs
from planner.serving.aggregated import open_loop
from planner.serving.iteration import iteration_ledger, iteration_seconds
from planner.serving.layout import Layout, Layouts
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.replica import Replica, Stage
from planner.serving.stages import WAITING, hop_seconds, staged_layout
from planner.serving.work import Work

KNOWN = Catalogs()
MODEL = "llama-3.1-70b"
LENGTHS = Lengths(1000.0, 200.0)
LOADS = (Work(sequences=8.0, context=1100.0), Work(sequences=4.0, context=1100.0, chunk=512.0))


def whole(gpu: str, weights: str = "bf16") -> Replica:
    return KNOWN.replica(MODEL, gpu, weights, "bf16", "vllm")


def staged(*parts: tuple[str, int, int, int]) -> Replica:
    stages = tuple(Stage(whole(gpu).part(first, end), tp, first, end) for gpu, tp, first, end in parts)
    return replace(whole(parts[0][0]), stages=stages)


def columns(replica: Replica) -> Layouts:
    return Layouts.of([staged_layout(replica.stages)])


@pytest.mark.parametrize("work", LOADS)
def test_equal_stages_take_the_time_of_an_ordinary_pipeline(work: Work) -> None:
    """All but what the head is to the last stage, which here sets the pace of both, and the hop behind the first."""
    pair = staged(("h100-sxm", 2, 0, 40), ("h100-sxm", 2, 40, 80))
    ordinary = iteration_seconds(whole("h100-sxm"), Layouts.of([Layout(2, 1, 2)]), work)
    ours = iteration_ledger(pair, columns(pair), work)
    assert float(ours.total.item() / ordinary.item()) == pytest.approx(1.0, abs=0.03)
    assert ours.total.item() >= ordinary.item() * 0.999


def test_the_pace_is_the_number_of_stages_times_the_slowest() -> None:
    uneven = staged(("h100-sxm", 2, 0, 60), ("l40s", 4, 60, 80))
    work = LOADS[0]
    ledger = iteration_ledger(uneven, columns(uneven), work)
    kernels = []
    for stage in uneven.stages:
        own = iteration_ledger(stage.replica, stage.layouts, work)
        kernels.append(own.total.item() - own.seconds["host"].item())
    kernels[0] += hop_seconds(*uneven.stages, np.array([8.0])).item()
    host = ledger.seconds["host"].item()
    assert ledger.total.item() == pytest.approx(2 * max(kernels) + host, rel=1e-9)
    assert ledger.seconds[WAITING].item() == pytest.approx(2 * max(kernels) - sum(kernels), rel=1e-9)


def test_a_lone_request_waits_for_no_other_micro_batch() -> None:
    uneven = staged(("h100-sxm", 2, 0, 60), ("l40s", 4, 60, 80))
    ledger = iteration_ledger(uneven, columns(uneven), Work(sequences=0.5, context=1100.0))
    assert ledger.seconds[WAITING].item() == 0.0


def test_parts_hold_all_weights_once() -> None:
    def held(replica: Replica) -> float:
        return memory(replica, Layouts.of([Layout(1)]), LENGTHS).weights.item()

    one = whole("h200-sxm")
    parts = [one.part(0, 30), one.part(30, 79), one.part(79, 80)]
    assert sum(held(part) for part in parts) == pytest.approx(held(one), rel=1e-9)
    assert [(p.embeds, p.samples) for p in parts] == [(True, False), (False, False), (False, True)]


def test_memory_is_that_of_the_stage_with_least_room() -> None:
    tight = staged(("h200-sxm", 1, 0, 60), ("l40s", 1, 60, 80))
    slots = [memory(s.replica, s.layouts, LENGTHS).slots.item() for s in tight.stages]
    found = memory(tight, columns(tight), LENGTHS)
    assert found.slots.item() == min(slots)
    crowded = staged(("h200-sxm", 1, 0, 50), ("l40s", 1, 50, 80))
    assert not memory(crowded, columns(crowded), LENGTHS).fits.item()


def test_more_layers_on_the_slower_gpu_never_carry_more() -> None:
    rates = []
    for cut in (70, 60, 50, 40):
        pipeline = staged(("h200-sxm", 2, 0, cut), ("l40s", 4, cut, 80))
        rates.append(open_loop(pipeline, columns(pipeline), np.array([[16.0]]), LENGTHS).rate.item())
    assert rates[1] > rates[2] > rates[3]


def test_hops_between_types_go_over_the_slower_nic() -> None:
    pair = staged(("h100-sxm", 2, 0, 40), ("l40s", 2, 40, 80))
    tokens = np.array([512.0])
    across = hop_seconds(*pair.stages, tokens).item()
    alike = staged(("h100-sxm", 2, 0, 40), ("h100-sxm", 2, 40, 80))
    assert across > hop_seconds(*alike.stages, tokens).item() > 0
    assert pair.hardware == "h100-sxm+l40s" and [str(s) for s in pair.stages][1] == "40-79 l40s tp2"
