"""Layers over unlike devices: the dynamic program against enumeration, and pipelines by column generation."""

from __future__ import annotations

import itertools
import random

import pytest

from planner.errors import InputError
from planner.search.layer_partition import StageType, cheapest_partition, fastest_partition
from planner.search.pipeline_columns import PipelineDevice, best_pipelines

Send = dict[tuple[str, str], float]


def _case(seed: int) -> tuple[list[StageType], Send]:
    rng = random.Random(seed)
    layers, kinds = rng.randint(1, 5), rng.randint(1, 3)
    types = [
        StageType(
            f"g{g}", rng.randint(0, 2), tuple(float(rng.randint(1, 9)) for _ in range(layers)),
            tuple(float(rng.randint(1, 3)) for _ in range(layers)), float(rng.randint(2, 9)), float(rng.randint(1, 5)),
        )
        for g in range(kinds)
    ]  # fmt: skip
    return types, {(a.id, b.id): float(rng.randint(0, 3)) for a in types for b in types}


def _enumerated(types: list[StageType], send: Send) -> tuple[float, float] | None:
    layers, best = len(types[0].layer_seconds), None
    for stages in range(1, min(sum(t.count for t in types), layers) + 1):
        for cuts in itertools.combinations(range(1, layers), stages - 1):
            ends = [0, *cuts, layers]
            for chain in itertools.product(types, repeat=stages):
                if any(chain.count(t) > t.count for t in types):
                    continue
                spans = [slice(a, b) for a, b in itertools.pairwise(ends)]
                if any(sum(t.layer_bytes[s]) > t.memory for t, s in zip(chain, spans, strict=True)):
                    continue
                sends = [send[a.id, b.id] for a, b in itertools.pairwise(chain)] + [0.0]
                times = [sum(t.layer_seconds[s]) + x for t, s, x in zip(chain, spans, sends, strict=True)]
                found = (max(times), sum(t.price for t in chain))
                best = found if best is None or found < best else best
    return best


@pytest.mark.parametrize("block", range(5))
def test_fastest_then_cheapest_pipeline_equals_enumeration(block: int) -> None:
    for seed in range(block * 24, block * 24 + 24):
        types, send = _case(seed)
        found = fastest_partition(types, send)
        expected = _enumerated(types, send)
        assert (found and (found.bottleneck, found.price)) == expected
        if found:
            assert [s.end for s in found.stages[:-1]] == [s.first for s in found.stages[1:]]
            assert found.stages[0].first == 0 and found.stages[-1].end == len(types[0].layer_seconds)


def test_a_looser_bottleneck_is_never_dearer() -> None:
    types = [
        StageType("fast", 4, (1.0,) * 12, (1.0,) * 12, 6.0, 5.0),
        StageType("slow", 8, (3.0,) * 12, (1.0,) * 12, 3.0, 1.0),
    ]
    fastest = fastest_partition(types)
    assert fastest is not None and fastest.bottleneck == 3.0
    prices = [p.price for b in (3.0, 6.0, 9.0) if (p := cheapest_partition(types, b)) is not None]
    # 3 s: 3 layers on each of 2 fast, 1 on each of 6 slow; 6 s: 2 on each of 6 slow; 9 s: 3 on each of 4 slow
    assert prices == [16.0, 6.0, 4.0]


def test_nothing_fits_is_none_and_bad_shapes_are_refused() -> None:
    assert fastest_partition([StageType("g", 1, (1.0, 1.0), (2.0, 2.0), 3.0)]) is None
    assert fastest_partition([StageType("g", 0, (1.0,), (1.0,), 3.0)]) is None
    with pytest.raises(InputError):
        fastest_partition([StageType("g", 1, (1.0,), (1.0, 1.0), 3.0)])


def _most_rate(devices: list[PipelineDevice], layers: int) -> float:
    """Best total rate by recursion over every pipeline that the remaining devices allow."""
    rates = sorted({r for d in devices for r in d.rates})
    columns = []
    for counts in itertools.product(*(range(d.count + 1) for d in devices)):
        for rate in rates:
            holds = [sum(1 for r in d.rates if r >= rate) for d in devices]
            if sum(n * h for n, h in zip(counts, holds, strict=True)) >= layers:
                columns.append((counts, rate))

    def best(left: tuple[int, ...], start: int) -> float:
        value = 0.0
        for i in range(start, len(columns)):
            counts, rate = columns[i]
            if any(counts) and all(n <= m for n, m in zip(counts, left, strict=True)):
                value = max(value, rate + best(tuple(m - n for n, m in zip(counts, left, strict=True)), i))
        return value

    return best(tuple(d.count for d in devices), 0)


def _device(name: str, count: int, speed: float, most: int) -> PipelineDevice:
    return PipelineDevice(name, count, tuple(speed / n for n in range(1, most + 1)))


@pytest.mark.parametrize("seed", range(12))
def test_pipelines_lie_between_the_optimum_and_its_bound(seed: int) -> None:
    rng = random.Random(seed)
    devices = [_device(g, rng.randint(1, 3), rng.randint(2, 12), rng.randint(1, 4)) for g in "ab"]
    layers = rng.randint(2, 5)
    fleet = best_pipelines(devices, layers)
    optimum = _most_rate(devices, layers)
    assert fleet.certificate.bound is not None and fleet.certificate.bound >= optimum - 1e-9
    assert fleet.rate == pytest.approx(optimum)


def test_a_fleet_like_the_24_node_one_is_used_to_a_percent_of_its_bound() -> None:
    """4 A100, 8 L4, 12 T4 and 80 layers, with speeds by memory bandwidth; the published profile cannot be had."""
    devices = [_device("a100", 4, 16e3, 30), _device("l4", 8, 3e3, 8), _device("t4", 12, 2e3, 5)]
    fleet = best_pipelines(devices, 80)
    gap = fleet.certificate.gap
    assert gap is not None and gap < 0.02
    used = [sum(p.counts[k] * n for p, n in fleet.pipelines) for k in range(3)]
    assert all(n <= d.count for n, d in zip(used, devices, strict=True))
