"""Rows of ../shared/measured/ops on serving shapes, and what the operator costs predict for them."""

from __future__ import annotations

import csv
import dataclasses
from functools import lru_cache
from pathlib import Path

import numpy as np

from planner.catalog.hardware import Accelerator
from planner.catalog.load import load_hardware
from planner.cost.attention import (
    attention_decode_seconds,
    attention_prefill_seconds,
    latent_decode_seconds,
    latent_prefill_seconds,
)
from planner.cost.collective import (
    USUAL_REDUCE,
    Topology,
    all_gather_seconds,
    all_reduce_seconds,
    all_to_all_seconds,
    reduce_scatter_seconds,
)
from planner.cost.efficiency import Efficiency
from planner.cost.elementwise import elementwise_seconds
from planner.cost.gemm import gemm_seconds
from planner.cost.moe import LATENCY_KERNEL, NARROW, experts_seconds

OPS = Path(__file__).resolve().parents[2] / "shared" / "measured" / "ops"
CATALOG_ID = {
    "A100-SXM-80GB": "a100-sxm-80gb",
    "H100-SXM": "h100-sxm",
    "B200": "b200-sxm",
    "GB200": "gb200",
    "L40S": "l40s",
}
KV_BYTES = {"bfloat16": 2.0, "fp8": 1.0}
NO_WINDOW = 1e9
COLLECTIVES = {
    "all_gather": all_gather_seconds,
    "reduce_scatter": reduce_scatter_seconds,
    "alltoall": all_to_all_seconds,
}
GEMM_TYPE = {"gemm.bf16": "bfloat16", "gemm.fp8": "fp8", "gemm.fp8_block": "fp8_block", "gemm.fp4": "nvfp4"}
MOE_TYPE = {
    "moe.bf16": "bfloat16",
    "moe.fp8": "fp8",
    "moe.fp8_block": "fp8_block",
    "moe.fp4": "nvfp4",
    "moe.fp4_latency": "nvfp4",
    "moe.fp8_w4": "w4a8_mxfp4_mxfp8",
}
MX_BYTES = 0.5 + 1 / 32
"""mxfp4: one 8-bit scale for 32 weights."""
# trtllm-gen's minimum-latency kernel has constants of its own; engines take the faster one for each shape.
LATENCY_KERNELS = ("moe_torch_flow_min_latency",)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Columns of one operator on one GPU; ``kind`` names the operator."""

    kind: str
    columns: dict[str, np.ndarray]
    seconds: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def take(self, index: np.ndarray) -> Rows:
        """The rows at ``index``."""
        return Rows(self.kind, {k: v[index] for k, v in self.columns.items()}, self.seconds[index])

    def sample(self, count: int) -> Rows:
        """At most ``count`` rows, always the same ones."""
        order = np.random.default_rng(0).permutation(len(self.seconds))[:count]
        return self.take(np.sort(order))


@lru_cache(maxsize=1)
def _catalog() -> dict[str, Accelerator]:
    hardware = load_hardware()
    return {gpu: hardware.accelerators[name] for gpu, name in CATALOG_ID.items()}


def accelerator(gpu: str) -> Accelerator:
    """Datasheet facts of a measured GPU."""
    return _catalog()[gpu]


def family(gpu: str) -> str:
    """Efficiency family of a measured GPU."""
    return accelerator(gpu).family


@lru_cache(maxsize=16)
def _table(name: str) -> list[dict[str, str]]:
    with (OPS / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _keep(kind: str, row: dict[str, str]) -> bool:
    """Whether a row is a serving shape of operator ``kind``."""
    if kind.startswith("gemm"):
        return row["dtype"] == GEMM_TYPE[kind] and int(row["n"]) >= 512 and int(row["k"]) >= 512
    if kind.startswith("moe"):
        latency = row["kernel"] in LATENCY_KERNELS
        return row["dtype"] == MOE_TYPE[kind] and latency == kind.endswith(LATENCY_KERNEL)
    if kind in ("collective", "custom"):
        prefix = "nccl-2" if kind == "collective" else "custom"
        return row["impl"].startswith(prefix) and row["nodes"] == "1" and int(row["bytes"]) >= 8192
    if kind.startswith("latent") and row["kv_dtype"] != "bfloat16":
        return False
    return int(row["seq"]) >= (128 if kind.endswith("prefill") else 256)


FILES = {"prefill": "attention_prefill", "decode": "attention_decode", "latent_prefill": "mla_prefill",
         "latent_decode": "mla_decode", "collective": "collective", "custom": "collective"}  # fmt: skip


def _column(values: list[str]) -> np.ndarray:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return np.array(values)


def load_rows(kind: str) -> dict[str, Rows]:
    """Rows of one operator by GPU."""
    groups: dict[str, list[dict[str, str]]] = {}
    for row in _table(FILES.get(kind, kind.split(".")[0])):
        if row["gpu"] in CATALOG_ID and _keep(kind, row):
            groups.setdefault(row["gpu"], []).append(row)
    result = {}
    for gpu, rows in sorted(groups.items()):
        columns = {name: _column([row[name] for row in rows]) for name in rows[0]}
        if kind.startswith("moe"):
            columns["rows"], columns["active"] = routed(columns)
        result[gpu] = Rows(kind, columns, columns["latency_us"] * 1e-6)
    return result


def _adjust(counts: np.ndarray, change: int, limit: float) -> None:
    """Spread ``change`` tokens over the ranks of counts[ranks, experts] in turn.

    Each step raises the emptiest expert of a rank, or lowers the fullest.
    """
    ranks, local = counts.shape
    step = 1 if change > 0 else -1
    every, first = divmod(abs(change), ranks)
    if every > 4 * local:  # many: level them
        part = every if step > 0 else min(every, counts.sum() / ranks)
        counts += step * np.floor(part / local)
        np.clip(counts, 0, limit, out=counts)
        every = 0
    for turn in range(every + (first > 0)):
        chosen = np.arange(ranks if turn < every else first)
        expert = counts[chosen].argmin(1) if step > 0 else counts[chosen].argmax(1)
        moved = counts[chosen, expert] + step
        counts[chosen, expert] = np.clip(moved, 0, limit)


def _draw(tokens: float, top_k: float, experts: int, ep: int, alpha: float, version: str, seed: int) -> np.ndarray:
    """Tokens per rank and expert as aiconfigurator's collector draws them: a truncated power law, rounded; 12 draws.

    Rounding leaves most tokens of a small batch unplaced (two thirds of the experts round to none). The collector of
    TensorRT-LLM 1.0 hands them to the fullest experts and then in order of their index, so that they meet on one rank;
    later ones deal them out rank by rank.
    """
    low, high = (1.0, tokens * 0.8) if tokens * top_k > experts else (0.01, 2.0)
    high = max(high, low * 1.01)
    power = 1.0 - alpha
    rng = np.random.default_rng(seed)
    x = ((high**power - low**power) * rng.random((12, experts)) + low**power) ** (1.0 / power)
    target = int(tokens * top_k)
    drawn = np.round(x / x.sum(1, keepdims=True) * target)
    if version == "1.0.0":
        for counts in drawn:
            missing = int(target - counts.sum())
            order = np.argsort(-counts, kind="stable")
            if missing > 0:
                counts += missing // experts
                counts[order[: missing % experts]] += 1
            else:
                held = [e for e in order[::-1][:-missing] if counts[e] > 0] if missing else []
                counts[held] -= 1
                counts[order[0]] -= -missing - len(held)
        return np.minimum(drawn, tokens).reshape(12, ep, -1)
    ranks = drawn.reshape(12, ep, -1)
    for counts in ranks:
        over = int(np.maximum(counts - tokens, 0).sum())
        np.minimum(counts, tokens, out=counts)
        _adjust(counts, over, tokens)
        _adjust(counts, int(target - counts.sum()), tokens)
    return ranks


@lru_cache(maxsize=16384)
def _loaded_rank(
    tokens: float, top_k: float, experts: float, ep: float, distribution: str, framework: str
) -> tuple[float, float]:
    local = int(experts // ep)
    if distribution == "balanced":
        rows = tokens * top_k / ep
        return rows, max(1.0, min(local, rows))
    seed = int(tokens * 31 + top_k * 7 + experts * 3 + ep)
    alpha = float(distribution.split("_")[-1])
    ranks = _draw(tokens, top_k, int(experts), int(ep), alpha, framework.split("-")[-1], seed)
    worst = ranks[np.arange(len(ranks)), ranks.sum(2).argmax(1)]
    return max(float(worst.sum(1).mean()), 0.5), max(float((worst > 0).sum(1).mean()), 0.5)


def routed(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and active experts of the most loaded rank, from the distribution that the source names."""
    names = ("tokens", "topk", "num_experts", "ep", "distribution", "framework")
    pairs = [_loaded_rank(*key) for key in zip(*(columns[name].tolist() for name in names), strict=True)]
    found = np.array(pairs)
    return found[:, 0], found[:, 1]


def _by(rows: Rows, names: tuple[str, ...]) -> list[np.ndarray]:
    """Index groups of rows that agree in ``names``."""
    keys = np.array(["|".join(map(str, key)) for key in zip(*(rows[name].tolist() for name in names), strict=True)])
    return [np.flatnonzero(keys == key) for key in np.unique(keys)]


def _prefill(rows: Rows, gpu: str, efficiency: Efficiency) -> np.ndarray:
    device = accelerator(gpu)
    dim, kv_bytes = float(rows["head_dim"][0]), KV_BYTES[rows["kv_dtype"][0]]
    # With an 8-bit cache TensorRT-LLM runs 8-bit math on Hopper and Blackwell: rows labelled bf16 with fp8
    # KV exceed the 16-bit peak there (B200: 1,297 against 1,042 TFLOP/s at head size 128) and equal fp8 rows.
    narrow = rows["dtype"][0] == "fp8" or (kv_bytes < 2 and device.family in ("hopper", "blackwell"))
    window = np.where(rows["window"] > 0, rows["window"], NO_WINDOW)
    q, s, h, kv = rows["seq"], rows["batch"], rows["n_heads"], rows["n_kv_heads"]
    seconds = attention_prefill_seconds(
        q, 0.0, s, h, kv, dim, dim, math="fp8" if narrow else "bf16", kv_bytes=kv_bytes, window=window,
        accelerator=device, efficiency=efficiency, cache_hot=True,
    )  # fmt: skip
    if "trtllm" in str(rows["framework"][0]):  # these rows include rotary embedding and the KV write
        moved = s * q * dim * (2.0 * (h + 2.0 * kv) + 2.0 * h + 2.0 * kv * kv_bytes)
        seconds = seconds + elementwise_seconds(moved, accelerator=device, efficiency=efficiency, cache_hot=True)
    return seconds


def _decode(rows: Rows, gpu: str, efficiency: Efficiency) -> np.ndarray:
    dim = float(rows["head_dim"][0])
    window = np.where(rows["window"] > 0, rows["window"], NO_WINDOW)
    return attention_decode_seconds(
        rows["batch"], rows["seq"], rows["n_heads"], rows["n_kv_heads"], dim, dim, window=window,
        kv_bytes=KV_BYTES[rows["kv_dtype"][0]], accelerator=accelerator(gpu), efficiency=efficiency, cache_hot=True,
        widest_group=32.0 if "trtllm" in str(rows["framework"][0]) else None,
        flash2="vllm" in str(rows["framework"][0]) and accelerator(gpu).family == "ampere",
    )  # fmt: skip


def _latent(rows: Rows, gpu: str, efficiency: Efficiency) -> np.ndarray:
    kv_bytes = KV_BYTES[rows["kv_dtype"][0]]
    if rows.kind == "latent_decode":
        return latent_decode_seconds(
            rows["batch"], rows["seq"], rows["n_heads"], 512.0, 64.0, kv_bytes=kv_bytes,
            accelerator=accelerator(gpu), efficiency=efficiency, cache_hot=True,
        )  # fmt: skip
    return latent_prefill_seconds(
        rows["seq"], 0.0, rows["batch"], rows["n_heads"], nope_dim=128.0, rope_dim=64.0, value_dim=128.0,
        kv_bytes=kv_bytes, accelerator=accelerator(gpu), efficiency=efficiency, cache_hot=True,
    )  # fmt: skip


def _moe(rows: Rows, gpu: str, efficiency: Efficiency) -> np.ndarray:
    math = rows.kind.split(".")[1]
    kernel = "latency" if math.endswith(LATENCY_KERNEL) else "grouped"
    return experts_seconds(
        rows["tokens"], rows["hidden"], rows["inter"], rows["num_experts"], rows["topk"], ep=rows["ep"],
        tp=rows["tp"], gated=bool(rows["gated"][0]), math=math.removesuffix(LATENCY_KERNEL).removesuffix(NARROW),
        weight_bytes=MX_BYTES if math.endswith(NARROW) else None,
        rows=rows["rows"], active=rows["active"], kernel=kernel, accelerator=accelerator(gpu),
        efficiency=efficiency, cache_hot=True,
    )  # fmt: skip


def _collective(rows: Rows, gpu: str, efficiency: Efficiency) -> np.ndarray:
    topology = Topology.of(accelerator(gpu))
    op = str(rows["op"][0])
    if op == "all_reduce":
        return all_reduce_seconds(
            rows["bytes"],
            rows["n_gpus"],
            topology=topology,
            efficiency=efficiency,
            custom_kernel=USUAL_REDUCE if rows.kind == "custom" else None,
        )
    return COLLECTIVES[op](rows["bytes"], rows["n_gpus"], topology=topology, efficiency=efficiency)


def predict(rows: Rows, gpu: str, efficiency: Efficiency) -> np.ndarray:
    """Predicted seconds of every row."""
    kind = rows.kind
    if kind.startswith("gemm"):
        return gemm_seconds(
            rows["m"], rows["n"], rows["k"], math=kind.split(".")[1], accelerator=accelerator(gpu),
            efficiency=efficiency, cache_hot=True,
        )  # fmt: skip
    function, names = {
        "prefill": (_prefill, ("dtype", "kv_dtype", "head_dim", "framework")),
        "decode": (_decode, ("kv_dtype", "head_dim", "framework")),
        "latent_prefill": (_latent, ("kv_dtype",)),
        "latent_decode": (_latent, ("kv_dtype",)),
        "collective": (_collective, ("op",)),
        "custom": (_collective, ("op",)),
    }.get(kind, (_moe, ("gated",)))
    seconds = np.empty(len(rows.seconds))
    for index in _by(rows, names):
        seconds[index] = function(rows.take(index), gpu, efficiency)
    return seconds
