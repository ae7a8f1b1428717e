import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from cost_device import DEVICE, EFFICIENCY, not_above, sizes
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog.load import load_hardware
from planner.cost.collective import (
    USUAL_REDUCE,
    ReduceKernel,
    Topology,
    all_gather_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
    point_to_point_seconds,
    reduce_scatter_seconds,
)
from planner.cost.efficiency import load_efficiency

TOPOLOGY = Topology.of(DEVICE)
MESH = dataclasses.replace(TOPOLOGY, pair_bandwidth=TOPOLOGY.bandwidth / 7, in_network_reduction=False)
HOST = dataclasses.replace(TOPOLOGY, bandwidth=32e9, pair_bandwidth=32e9, shared_host=True)
KERNELS = [all_reduce_seconds, all_gather_seconds, reduce_scatter_seconds, all_to_all_seconds]


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_rank_or_no_bytes_take_exactly_no_time(kernel):
    assert kernel(1e9, 1, topology=TOPOLOGY, efficiency=EFFICIENCY) == 0.0
    assert kernel(0, 8, topology=TOPOLOGY, efficiency=EFFICIENCY) == 0.0


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(KERNELS),
    st.sampled_from([TOPOLOGY, MESH, HOST]),
    sizes(1 << 34),
    st.sampled_from([2, 4, 8, 16, 64]),
    st.floats(1.0, 10.0),
)
def test_more_bytes_or_less_bandwidth_are_never_faster(kernel, topology, size, ranks, factor):
    base = kernel(size, ranks, topology=topology, efficiency=EFFICIENCY)
    assert not_above(base, kernel(size * factor, ranks, topology=topology, efficiency=EFFICIENCY))
    for field in ("bandwidth", "pair_bandwidth", "network_bandwidth"):
        better = dataclasses.replace(topology, **{field: getattr(topology, field) * factor})
        assert not_above(kernel(size, ranks, topology=better, efficiency=EFFICIENCY), base)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([all_reduce_seconds, all_gather_seconds]), sizes(1 << 32), st.sampled_from([2, 4, 8, 32]))
def test_more_ranks_behind_a_switch_are_never_faster(kernel, size, ranks):
    flat = dataclasses.replace(TOPOLOGY, domain_size=64, in_network_reduction=False)
    few = kernel(size, ranks, topology=flat, efficiency=EFFICIENCY)
    assert not_above(few, kernel(size, ranks * 2, topology=flat, efficiency=EFFICIENCY))


def test_large_all_reduce_approaches_the_bandwidth_bound():
    # 2*S*(n-1)/n wire bytes at most at link speed times the gain of the switch.
    seconds = all_reduce_seconds(4e9, 8, topology=TOPOLOGY, efficiency=EFFICIENCY)
    bound = 2 * 4e9 * 7 / 8 / TOPOLOGY.bandwidth
    assert bound / 1.2 < seconds < bound / 0.6


def test_the_custom_kernel_wins_small_messages_only():
    for size, wins in ((16e3, True), (1e9, False)):
        with_it = all_reduce_seconds(size, 8, topology=TOPOLOGY, efficiency=EFFICIENCY)
        without = all_reduce_seconds(size, 8, topology=TOPOLOGY, efficiency=EFFICIENCY, custom_kernel=None)
        assert bool(with_it < without) == wins


def test_crossing_domains_is_limited_by_the_nic():
    inside = all_to_all_seconds(1e9, 8, topology=TOPOLOGY, efficiency=EFFICIENCY)
    across = all_to_all_seconds(1e9, 16, topology=TOPOLOGY, efficiency=EFFICIENCY)
    assert across > 0.5e9 / TOPOLOGY.network_bandwidth
    assert across > 3 * inside


def test_a_mesh_serves_two_ranks_slower_than_a_switch():
    pair = [all_reduce_seconds(1e9, 2, topology=t, efficiency=EFFICIENCY) for t in (MESH, TOPOLOGY)]
    assert pair[0] > 3 * pair[1]


def test_ranks_may_be_an_array():
    ranks = np.array([1, 2, 8, 16])
    seconds = all_reduce_seconds(1e6, ranks, topology=TOPOLOGY, efficiency=EFFICIENCY)
    assert seconds.shape == (4,) and seconds[0] == 0.0 and np.all(np.diff(seconds) > 0)


def test_point_to_point_across_domains_is_slower():
    near, far = (
        point_to_point_seconds(1e8, topology=TOPOLOGY, efficiency=EFFICIENCY, across=across) for across in (False, True)
    )
    assert 0 < near < far


AITER = ReduceKernel(two_phase=0.776)
INT4 = ReduceKernel(two_phase=0.776, wire_bits=4.0)


@pytest.mark.parametrize(("kernel", "mean"), [("usual", 0.2), ("aiter", 0.06), ("int4", 0.1)])
def test_kernels_of_instinct_engines_take_the_published_times(kernel, mean):
    with (Path(__file__).parent / "data" / "all_reduce_amd.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kernel"] == kernel]
    hardware, errors = load_hardware(), []
    for row in rows:
        chip = hardware.accelerators[row["gpu"]]
        ours = all_reduce_seconds(
            float(row["kib"]) * 1024, int(row["ranks"]), topology=Topology.of(chip),
            efficiency=load_efficiency(chip.family),
            custom_kernel={"usual": USUAL_REDUCE, "aiter": AITER, "int4": INT4}[kernel],
        )  # fmt: skip
        errors.append(abs(float(ours) * 1e6 / float(row["microseconds"]) - 1))
    assert np.mean(errors) < mean
    assert max(errors) < 2 * mean


@settings(max_examples=40, deadline=None)
@given(sizes(1 << 34), st.sampled_from([2, 4, 8]), st.floats(1.0, 10.0))
def test_quantising_on_the_way_never_slows_an_all_reduce_and_more_bytes_never_take_less(size, ranks, factor):
    links = {"topology": MESH, "efficiency": EFFICIENCY}
    seconds = all_reduce_seconds(size, ranks, custom_kernel=INT4, **links)
    assert not_above(seconds, all_reduce_seconds(size, ranks, custom_kernel=AITER, **links))
    assert not_above(seconds, all_reduce_seconds(size * factor, ranks, custom_kernel=INT4, **links))
