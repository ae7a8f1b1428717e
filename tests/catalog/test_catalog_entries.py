"""The shipped hardware catalog: plausible in every unit, dense, sourced, without ambiguous names."""

from __future__ import annotations

import re

import pytest

from planner.catalog import Accelerator, load_hardware
from planner.catalog.names import normalise
from planner.units import GIB

CATALOG = load_hardware()
ACCELERATORS = sorted(CATALOG.accelerators.values(), key=lambda a: a.id)
EACH_ACCELERATOR = pytest.mark.parametrize("gpu", ACCELERATORS, ids=lambda a: a.id)
IDS_THAT_USERS_TYPE = [
    "h100-sxm", "h100-pcie", "h100-nvl", "h200-sxm", "h200-nvl", "h800", "h20", "h20-141gb", "gh200",
    "gh200-144gb", "b200-sxm", "gb200", "b300-sxm", "gb300", "a100-sxm-80gb", "a100-sxm-40gb",
    "a100-pcie-80gb", "a100-pcie-40gb", "a800-sxm-80gb", "l40s", "l40", "l4", "t4", "a10", "a10g", "a30",
    "rtx-4090", "rtx-5090", "v100-sxm-16gb", "mi210", "mi250", "mi250x", "mi300x", "mi325x", "mi350x",
    "mi355x", "gaudi2", "gaudi3", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-v7x", "trainium1",
    "trainium2", "inferentia2", "ascend-910b", "ascend-910c",
]  # fmt: skip
NVIDIA_TENSOR = ("ampere", "ada", "hopper", "blackwell", "blackwell-rtx")


def test_catalog_is_as_wide_as_promised() -> None:
    """The product promises 45 accelerators of seven vendors and 100 dated prices."""
    assert len(ACCELERATORS) >= 45
    assert len(CATALOG.prices) >= 100
    assert {gpu.vendor for gpu in ACCELERATORS} >= {"NVIDIA", "AMD", "Intel", "Google", "AWS", "Huawei"}


@pytest.mark.parametrize("name", IDS_THAT_USERS_TYPE)
def test_ids_that_users_type_exist(name: str) -> None:
    assert CATALOG.accelerators[name].id == name


@EACH_ACCELERATOR
def test_values_are_in_the_range_of_real_hardware(gpu: Accelerator) -> None:
    """A unit slip (GB/s for TB/s, MiB for GiB) leaves these ranges."""
    assert 10 * GIB < gpu.memory < 500 * GIB
    assert 2e11 < gpu.memory_bandwidth < 3e13
    assert all(5e12 < rate < 5e16 for rate in gpu.flops.values())
    assert "bf16" in gpu.flops or "fp16" in gpu.flops
    assert 2017 <= gpu.year <= 2026
    assert gpu.power == 0 or 50 < gpu.power < 2500
    assert 1e9 <= gpu.network_bandwidth <= gpu.memory_bandwidth
    assert gpu.confidence in ("high", "medium", "low")


@EACH_ACCELERATOR
def test_bandwidths_fall_with_distance(gpu: Accelerator) -> None:
    """Memory is faster than the scale-up link, all links together at least as fast as one pair's."""
    assert gpu.memory_bandwidth > gpu.scale_up.bandwidth >= gpu.scale_up.pair_bandwidth > 0
    assert gpu.scale_up.domain_size >= 1 and gpu.scale_up.latency > 0
    assert CATALOG.fabrics[gpu.scale_up.kind].kind == "scale-up"


@EACH_ACCELERATOR
def test_every_accelerator_names_a_source(gpu: Accelerator) -> None:
    assert len(gpu.sources["all"]) > 10
    assert all(gpu.sources.values())


@pytest.mark.parametrize(
    "gpu", [a for a in ACCELERATORS if a.family in NVIDIA_TENSOR and "fp8" in a.flops], ids=lambda a: a.id
)
def test_fp8_is_dense(gpu: Accelerator) -> None:
    """Dense fp8 runs at twice dense bf16; a figure with sparsity on one side would give 4 or 1."""
    if not gpu.announced:
        assert gpu.flops["fp8"] / gpu.flops["bf16"] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("gpu", [a for a in ACCELERATORS if "fp4" in a.flops], ids=lambda a: a.id)
def test_fp4_is_dense(gpu: Accelerator) -> None:
    """fp4 runs at one to three times fp8 (four on GeForce, whose fp8 is halved by FP32 accumulation)."""
    assert 1 <= gpu.flops["fp4"] / gpu.flops["fp8"] <= (4 if gpu.id == "rtx-5090" else 3)


def test_hardware_without_fp8_does_not_claim_it() -> None:
    """Volta, Turing, Ampere and CDNA2 cannot multiply fp8; peak() then falls back to bf16."""
    for gpu in ACCELERATORS:
        if gpu.family in ("volta", "turing", "ampere", "cdna2"):
            assert not {"fp8", "fp4"} & gpu.flops.keys(), gpu.id
    a100 = CATALOG.accelerator("A100")
    assert a100.peak("fp8") == a100.flops["bf16"]


@pytest.mark.parametrize(
    ("name", "bf16_tflops", "bandwidth_tbs", "memory_gib"),
    [
        ("h100-sxm", 989.4, 3.35, 79.65),
        ("h200-sxm", 989.4, 4.8, 140.4),
        ("b200-sxm", 2250, 8.0, 179.1),
        ("a100-sxm-80gb", 312, 2.039, 79.3),
        ("mi300x", 1307.4, 5.3, 192.0),
        ("mi355x", 2516.6, 8.0, 288.0),
        ("l40s", 362.05, 0.864, 45.0),
    ],
)
def test_well_known_datasheet_values(
    name: str, bf16_tflops: float, bandwidth_tbs: float, memory_gib: float
) -> None:
    gpu = CATALOG.accelerators[name]
    assert gpu.flops["bf16"] == pytest.approx(bf16_tflops * 1e12, rel=0.001)
    assert gpu.memory_bandwidth == pytest.approx(bandwidth_tbs * 1e12, rel=0.001)
    assert gpu.memory == pytest.approx(memory_gib * GIB, rel=0.002)


def test_every_name_means_one_accelerator() -> None:
    names = [
        normalise(name) for gpu in ACCELERATORS for name in {normalise(n) for n in (gpu.id, *gpu.aliases)}
    ]
    assert len(names) == len(set(names))


def test_every_fabric_and_node_is_plausible() -> None:
    for fabric in CATALOG.fabrics.values():
        assert 0 < fabric.achieved_fraction <= 1
        assert 0 <= fabric.in_network_fraction <= 1.2
        assert 1e9 <= fabric.bandwidth <= 2e12
        assert 0 < fabric.latency < 1e-4
        assert len(fabric.source) > 10
    for node in CATALOG.nodes.values():
        gpu = CATALOG.accelerators[node.accelerator]
        assert 1 <= node.gpus <= node.scale_up_domain
        assert node.network_bandwidth / node.gpus <= gpu.scale_up.bandwidth
        assert CATALOG.fabrics[node.fabric].kind == "scale-out"
        assert node.source


def test_every_price_is_dated_sourced_and_plausible() -> None:
    for price in CATALOG.prices:
        assert re.match(r"20\d\d", price.date)
        assert price.source and price.provider
        assert 0.05 < price.usd_per_gpu_hour < 30
        assert price.accelerator in CATALOG.accelerators
    assert {price.term for price in CATALOG.prices} == {"on-demand", "spot", "reserved-1y", "reserved-3y"}


def test_reserved_and_spot_undercut_on_demand() -> None:
    """Within one provider, region and instance, committing or risking eviction never costs more."""
    offers = {(p.provider, p.region, p.instance, p.accelerator, p.term): p for p in CATALOG.prices}
    for (*offer, term), price in offers.items():
        listed = offers.get((*offer, "on-demand"))
        if term != "on-demand" and listed:
            assert price.usd_per_gpu_hour <= listed.usd_per_gpu_hour, price


def test_announced_parts_are_marked() -> None:
    assert all(gpu.announced for gpu in ACCELERATORS if gpu.year >= 2026)
    assert not CATALOG.accelerators["h100-sxm"].announced
