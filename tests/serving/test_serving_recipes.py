"""Recipes by vendor, published 8-bit checkpoints, and the kernels that quantise for them."""

from dataclasses import replace

import numpy as np
import pytest

from planner.api import Catalogs
from planner.serving.engine import load_engine
from planner.serving.iteration import iteration_ledger
from planner.serving.layout import Layout, Layouts
from planner.serving.replica import Replica
from planner.serving.work import Work


def gaps(replica: Replica) -> float:
    ledger = iteration_ledger(replica, Layouts.of([Layout()], column=False), Work(np.array([8.0]), np.array([1000.0])))
    return float(ledger.seconds["kernel gaps"][0])


def test_a_recipe_of_a_vendor_is_left_again_on_other_gpus() -> None:
    engine = load_engine("sglang")
    assert engine.on("AMD").decode_steps < engine.decode_steps
    assert engine.on("AMD").on("NVIDIA").decode_steps == engine.decode_steps
    assert load_engine("vllm").on("AMD").decode_steps == load_engine("vllm").decode_steps


def test_fp8_is_the_makers_checkpoint_unless_the_engine_quantises_its_own() -> None:
    known = Catalogs()
    maths = {
        engine: {f.math for f in known.replica("Qwen/Qwen3-8B", "h100-sxm", "fp8", "", engine).formats.values()}
        for engine in ("vllm", "trtllm")
    }
    assert maths == {"vllm": {"bf16", "fp8_block"}, "trtllm": {"bf16", "fp8"}}


def test_a_dense_layer_quantises_the_inputs_of_its_four_products() -> None:
    replica = Catalogs().replica("Qwen/Qwen3-8B", "h100-sxm", "fp8", "", "vllm")
    none = replace(replica, engine=replace(replica.engine, quantise_gap=0.0))
    assert gaps(replica) - gaps(none) == pytest.approx(36 * 4 * replica.engine.quantise_gap)
