"""Models, GPUs and engines small enough to count by hand, and shortcuts to real ones."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from planner.architecture.catalog import load_model
from planner.architecture.model import Attention, DenseFfn, Ffn, Layer, Mixer, Model, MoeFfn
from planner.catalog.hardware import Accelerator
from planner.catalog.load import load_hardware
from planner.cost.efficiency import Efficiency, load_efficiency
from planner.job.fleet import Fleet
from planner.job.job import Job
from planner.job.slo import Slo
from planner.job.workload import Workload
from planner.search.search import Supply
from planner.serving.engine import Engine, load_engine
from planner.serving.layout import Layout, Layouts
from planner.serving.replica import Replica

# hidden 64; q and o 64 x 64, k and v 64 x 32: 12,288 weights. Gate, up and down 3 x 64 x 128: 24,576 weights.
ATTENTION = Attention(heads=4, kv_heads=2, head_dim=16, value_dim=16)
DENSE = DenseFfn(width=128)
# One expert 3 x 64 x 32 = 6,144 weights; router 64 x 8 = 512.
MOE = MoeFfn(experts=8, top_k=2, width=32)


def tiny(layers: int = 1, mixer: Mixer = ATTENTION, ffn: Ffn = DENSE, **changes: Any) -> Model:
    """Return a model of width 64 and a vocabulary of 256: embedding and head 16,384 weights each."""
    model = Model(id="tiny", architecture="test", hidden=64, vocab=256, layers=(Layer(mixer, ffn),) * layers)
    return replace(model, **changes)


def plain_engine(**changes: Any) -> Engine:
    """Return an engine that adds nothing to the arithmetic: no host time, no gaps, no reserve."""
    nothing = {
        "step": 0.0,
        "sequence": 0.0,
        "layer_gap": 0.0,
        "latent_gap": 0.0,
        "recurrent_gap": 0.0,
        "sparse_gap": 0.0,
        "moe_gap": 0.0,
        "offset": 0.0,
        "decode_steps": 0.0,
        "reserve": 0.0,
        "exchange_start": 0.0,
        "utilization": 1.0,
        "utilization_ceiling": changes.get("utilization", 1.0),
        "of_free": False,
        "grows": False,
        "block_tokens": 16,
        "prefill": "mixed",
        "chunk_tokens": 8192.0,
        "max_sequences": 1024.0,
    }
    nothing |= {f"{kind}_slowdown": 1.0 for kind in ("dense", "attention", "expert", "collective", "chunk")}
    nothing |= {"collective_wait": 0.0, "evenness": math.inf}
    known = {field.name for field in fields(Engine)}
    return replace(load_engine("vllm"), **{k: v for k, v in {**nothing, **changes}.items() if k in known})


_IDEAL = {
    **dict.fromkeys(
        ("compute", "memory", "memory_fp8", "bandwidth", "quantise_memory", "dequantise", "in_network"), 1.0
    ),
    **dict.fromkeys(("power", "grain", "depth", "wave", "overlap", "fill", "launch", "quantise", "tail"), 0.0),
    **dict.fromkeys(("padding", "passes", "spread", "start", "hop", "own", "chunk"), 0.0),
    "group": 1.0,
    "tile": 1.0,
    "exponential": 1e30,
}


def ideal_efficiency() -> Efficiency:
    """Return constants with which every operator takes exactly its datasheet time."""

    def ideal(constants: Any) -> Any:
        names = {field.name for field in fields(constants)}
        return replace(constants, **{k: v for k, v in _IDEAL.items() if k in names})

    real = load_efficiency("hopper")
    tables = {name: {k: ideal(v) for k, v in getattr(real, name).items()} for name in ("gemm", "moe")}
    single = ("prefill", "decode", "latent_prefill", "latent_decode", "collective", "elementwise")
    return replace(real, **tables, **{name: ideal(getattr(real, name)) for name in single})


def gpu(name: str = "h100-sxm", **changes: Any) -> Accelerator:
    """Return a GPU of the catalog with some values changed."""
    return replace(load_hardware().accelerator(name), **changes)


def replica(model: Model | str, accelerator: Accelerator | str = "h100-sxm", **changes: Any) -> Replica:
    """Return a replica with the efficiencies of the GPU's family; ``engine`` defaults to vllm."""
    model = load_model(model) if isinstance(model, str) else model
    device = gpu(accelerator) if isinstance(accelerator, str) else accelerator
    base = Replica(model, device, load_efficiency(device.family), load_engine("vllm").on(device.vendor))
    return replace(base, **changes)


def supply(accelerator: Accelerator | str, count: int, price: float | None = 2.0) -> Supply:
    """Return ``count`` GPUs of one type at ``price`` US dollars per GPU and hour."""
    device = gpu(accelerator) if isinstance(accelerator, str) else accelerator
    return Supply(device, load_efficiency(device.family), count, price)


def job(
    isl: float = 1000,
    osl: float = 200,
    *,
    rate: float | None = None,
    concurrency: float | None = None,
    ttft: float | None = None,
    tpot: float | None = None,
    e2e: float | None = None,
    percentile: Any = "p95",
    prefix_hit: float = 0.0,
    **rest: Any,
) -> Job:
    """Return a job; its fleet is a placeholder, because supplies are handed to the search beside it."""
    return Job(
        model="test",
        fleet=Fleet(gpus={"h100-sxm": 1}),
        workload=Workload(isl=isl, osl=osl, rate=rate, concurrency=concurrency, prefix_hit=prefix_hit),
        slo=Slo(ttft=ttft, tpot=tpot, e2e=e2e, percentile=percentile),
        **rest,
    )


def one(*layout: int) -> Layouts:
    """Return one layout (tp, attention_dp, pp, ep) as flat columns."""
    return Layouts.of([Layout(*layout)], column=False)
