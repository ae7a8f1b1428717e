"""An accelerator and strategies that the tests of the cost functions share."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from planner.catalog.hardware import Accelerator, ScaleUp
from planner.cost.efficiency import load_efficiency

DEVICE = Accelerator(
    id="test",
    name="Test",
    vendor="NVIDIA",
    family="hopper",
    year=2022,
    memory=80e9,
    memory_bandwidth=3.35e12,
    flops={"bf16": 989e12, "fp16": 989e12, "fp8": 1979e12, "int8": 1979e12},
    compute_units=132,
    l2=50e6,
    scale_up=ScaleUp("nvlink4", 450e9, 450e9, 8, 1e-6, True),
    network_bandwidth=50e9,
    gpus_per_node=8,
    power=700.0,
)
EFFICIENCY = load_efficiency("hopper")
KEYS = {"accelerator": DEVICE, "efficiency": EFFICIENCY}

MATH = st.sampled_from(["bf16", "fp16", "fp8", "fp8_block", "fp4", "int8"])


def sizes(largest: int) -> st.SearchStrategy[int]:
    """Sizes spread over all magnitudes."""
    top = int(np.log2(largest))
    return st.integers(0, top - 1).flatmap(lambda p: st.integers(2**p, 2 ** (p + 1)))


def faster(**scale: float) -> Accelerator:
    """The device with a field scaled; more compute units bring their FLOP/s and watts along."""
    units = scale.get("compute_units", 1.0)
    peak = scale.get("flops", 1.0) * units
    return dataclasses.replace(
        DEVICE,
        flops={math: value * peak for math, value in DEVICE.flops.items()},
        compute_units=round(DEVICE.compute_units * units),
        power=DEVICE.power * units,
        memory_bandwidth=DEVICE.memory_bandwidth * scale.get("memory_bandwidth", 1.0),
    )


UPGRADES = [{"flops": 1.3}, {"memory_bandwidth": 1.3}, {"compute_units": 1.5}]


def not_above(low: object, high: object) -> bool:
    """low <= high up to rounding, all finite and positive."""
    a, b = np.asarray(low), np.asarray(high)
    return bool(np.all(np.isfinite(b)) and np.all(a > 0) and np.all(a <= b * (1 + 1e-9)))
