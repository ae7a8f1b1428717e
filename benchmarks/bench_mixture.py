"""Wall and CPU time (children included) and gap of the mixture optimiser at the sizes that users meet.

    python benchmarks/bench_mixture.py [--solver highs] [--only melange]

Instances are synthetic and seeded: bucket grids with smooth throughput tables (like Mélange's), and engine
templates (role x TP x GPU type x model) with PD balance, KV egress, N+1 and node packing.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace

from planner.search.mixture import (
    Limits,
    MixtureProblem,
    Offer,
    RequestClass,
    Role,
    SolveOptions,
    Template,
    solve_mixture,
)
from planner.search.pipeline_columns import PipelineDevice, best_pipelines

# name, dense TFLOP/s, GB/s, GB, $/h: round datasheet numbers, only to give the instances a realistic spread.
GPUS = (
    ("L4", 121, 300, 24, 0.70), ("A10G", 125, 600, 24, 1.01), ("L40S", 362, 864, 48, 1.86),
    ("A100", 312, 2039, 80, 3.67), ("H100", 989, 3350, 80, 7.516), ("H200", 989, 4800, 141, 9.10),
    ("H20", 148, 4000, 96, 3.10), ("B200", 2250, 8000, 180, 13.40), ("MI300X", 1307, 5300, 192, 6.90),
    ("A6000", 155, 768, 48, 0.92), ("V100", 125, 900, 32, 2.48), ("T4", 65, 320, 16, 0.53),
    ("GH200", 989, 4000, 96, 8.20), ("MI250", 383, 3200, 128, 4.10), ("L20", 119, 864, 48, 1.20),
    ("A30", 165, 933, 24, 1.35),
)  # fmt: skip


def melange_like(buckets: int, types: int, rate: float, seed: int) -> MixtureProblem:
    """A grid of (input, output) lengths; capacity from a roofline of prefill plus decode, with 5 % noise."""
    rng = random.Random(seed)
    side = max(1, round(buckets**0.5))
    lengths = [(25 * 1.35 ** (i % 20), 20 * 1.3 ** (i // 20 if side > 20 else i % side)) for i in range(buckets)]
    lengths = [(25 * 2000 ** (rng.random()), 15 * 130 ** (rng.random())) for _ in lengths]
    weights = [rng.paretovariate(1.2) for _ in lengths]
    classes = tuple(RequestClass(f"b{i}", "m", round(rate * w / sum(weights), 9)) for i, w in enumerate(weights))
    templates, offers = [], []
    for name, tflops, bandwidth, memory, price in GPUS[:types]:
        capacity = {}
        for request, (prompt, output) in zip(classes, lengths, strict=True):
            batch = max(0.0, (memory - 16) * 1e9 / (130e3 * (prompt + output)))
            decode = (16e9 + min(batch, 256) * 130e3 * prompt) / (bandwidth * 1e9 * 0.8)
            seconds = prompt * 16e9 / (tflops * 1e12 * 0.5) + output * decode / max(min(batch, 256), 1e-9)
            capacity[request.id] = round(rng.uniform(0.95, 1.05) / seconds, 6) if batch >= 1 else 0.0
        templates.append(Template(name, "m", {name: 1}, capacity))
        offers.append(Offer(name, name, price))
    return MixtureProblem(tuple(templates), tuple(offers), classes)


def engines(
    types: int,
    classes_per_model: int,
    models: int,
    rate: float,
    seed: int = 1,
    *,
    spares: int = 0,
    nodes: bool = False,
) -> MixtureProblem:
    """Templates role x TP 1, 2, 4, 8 x type x model with PD balance, KV egress and limited inventory."""
    rng = random.Random(seed)
    templates, classes = [], []
    for m in range(models):
        weights = 16e9 * (1, 4.4, 9, 2)[m % 4]
        shapes = [(200 * 3 ** (i % 3), 60 * 3 ** (i // 3 % 3)) for i in range(classes_per_model)]
        ids = [f"m{m}c{i}" for i in range(classes_per_model)]
        shares = [rng.uniform(0.3, 1.0) for _ in ids]
        classes += [
            RequestClass(c, f"m{m}", round(rate / models * s / sum(shares), 6), kv_bytes=shape[0] * 130e3)
            for c, s, shape in zip(ids, shares, shapes, strict=True)
        ]
        for gpu in GPUS[:types]:
            templates += _templates_of(gpu, m, weights, dict(zip(ids, shapes, strict=True)), rng)
    offers = tuple(
        Offer(name, name, price, available=64 * max(1, round(rate / 40)), node_gpus=8 if nodes else 1)
        for name, _, _, _, price in GPUS[:types]
    )
    limits = Limits(utilisation=0.9, spare_replicas=spares)
    return MixtureProblem(tuple(templates), offers, tuple(classes), limits)


def _templates_of(
    gpu: tuple[str, float, float, float, float], m: int, weights: float,
    shapes: dict[str, tuple[int, int]], rng: random.Random,
) -> list[Template]:  # fmt: skip
    name, tflops, bandwidth, memory, _ = gpu
    made = []
    for tp in (1, 2, 4, 8):
        room = tp * memory * 0.9e9 - weights
        if room <= 2e9:
            continue
        efficiency = 1 - 0.06 * (tp.bit_length() - 1)
        speeds: dict[Role, dict[str, float]] = {Role.AGGREGATED: {}, Role.PREFILL: {}, Role.DECODE: {}}
        for c, (prompt, output) in shapes.items():
            batch = min(256.0, room / (130e3 * (prompt + output)))
            prefill = prompt * weights / (tp * tflops * 1e12 * 0.5 * efficiency)
            step = (weights + batch * 130e3 * prompt) / (tp * bandwidth * 0.8e9 * efficiency)
            decode = output * step / batch if batch >= 1 and step < 0.08 else None
            noise = rng.uniform(0.95, 1.05)
            if prefill < 1.0:
                speeds[Role.PREFILL][c] = noise / prefill
            if decode:
                speeds[Role.DECODE][c] = noise / decode
            if decode and prefill < 1.0:
                speeds[Role.AGGREGATED][c] = 0.85 * noise / (prefill + decode)
        for role, capacity in speeds.items():
            if capacity:
                egress = 5e9 * tp if role is Role.PREFILL else None
                made.append(
                    Template(f"m{m}-{role}-{name}-tp{tp}", f"m{m}", {name: tp}, capacity, role, kv_egress=egress)
                )
    return made


CASES: dict[str, tuple[Callable[[], MixtureProblem], str]] = {
    "5 types, 1 model, 10 classes": (lambda: engines(5, 10, 1, 40), "< 1 s proved"),
    "5 types, 1 model, 10 classes, N+1, nodes": (
        lambda: engines(5, 10, 1, 40, spares=1, nodes=True),
        "reported",
    ),
    "300 buckets x 8 types": (lambda: melange_like(300, 8, 100, 1), "< 1 s proved"),
    "6 types, 2 models, 9 classes": (lambda: engines(6, 9, 2, 40), "< 10 s proved"),
    "6 types, 2 models, 9 classes, nodes, 400/s": (
        lambda: engines(6, 9, 2, 400, nodes=True),
        "< 10 s proved",
    ),
    "6 types, 2 models, 9 classes, N+1, nodes": (
        lambda: engines(6, 9, 2, 40, spares=1, nodes=True),
        "reported",
    ),
    "1000 buckets x 16 types": (lambda: melange_like(1000, 16, 300, 1), "< 10 s proved"),
    "10 types, 4 models, 30 classes": (lambda: engines(10, 8, 4, 1000), "gap <= 3 % in 10 s"),
    "10 types, 4 models, 30 classes, nodes": (
        lambda: engines(10, 8, 4, 1000, nodes=True),
        "gap <= 3 % in 10 s",
    ),
    "10 types, 4 models, 30 classes, N+1, nodes": (
        lambda: engines(10, 8, 4, 1000, spares=1, nodes=True),
        "gap <= 3 % in 10 s",
    ),
    "8 types, 3 models, 16 classes, 80/s": (lambda: engines(8, 5, 3, 80), "reported"),
    "100 buckets x 8 types, 8 slices": (lambda: replace(melange_like(100, 8, 100, 1), slices=8), "reported"),
}


def cpu_seconds() -> float:
    """Of this process and of the solvers that it started."""
    used = os.times()
    return used.user + used.children_user


def pipelines() -> None:
    """Fleets like Helix's 10, 24 and 42 node cases: same node counts, layers and memory-bound speeds.

    The published throughput profile of the nodes cannot be had, so rates are not comparable with the paper's;
    what is compared is how close to its own proved bound the answer is, and how fast.
    """
    fleets = {
        "10 nodes, 2 kinds, 60 layers": (60, (("t4", 6, 0.9, 8), ("l4", 4, 1.0, 12))),
        "24 nodes, 3 kinds, 80 layers": (80, (("a100", 4, 6.2, 20), ("l4", 8, 1.0, 6), ("t4", 12, 0.9, 4))),
        "42 nodes, 7 kinds, 80 layers": (
            80,
            (("a100", 4, 6.2, 20), ("v100", 6, 2.7, 4), ("l4", 8, 1.0, 6), ("t4", 10, 0.9, 4), ("2xl4", 4, 1.9, 12),
             ("2xt4", 4, 1.7, 8), ("4xt4", 6, 3.2, 16)),
        ),
    }  # fmt: skip
    for name, (layers, devices) in fleets.items():
        fleet = best_pipelines(
            [PipelineDevice(d, n, tuple(1000 * speed / (layer + 0.5) for layer in range(1, most + 1)))
             for d, n, speed, most in devices],
            layers,
        )  # fmt: skip
        proof = fleet.certificate
        print(f"| {name} | - | near bound, < 20 s | {proof.seconds:.2f} | - | {proof.status} | {fleet.rate:.1f} /s | "
              f"{proof.gap:.2%} | {proof.solver} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    print("| case | templates | goal | wall s | CPU s | status | $/h | gap | solver |")
    print("|---" * 9 + "|")
    for name, (build, goal) in CASES.items():
        if arguments.only not in name:
            continue
        problem = build()
        started, worked = time.monotonic(), cpu_seconds()
        result = solve_mixture(problem, SolveOptions(arguments.solver, seconds=arguments.seconds))
        seconds, work = time.monotonic() - started, cpu_seconds() - worked
        proof = result.certificate
        gap = "-" if proof.gap is None else f"{proof.gap:.2%}"
        cost = f"{proof.value:.2f}" if proof.value is not None else "-"
        print(
            f"| {name} | {len(problem.templates)} | {goal} | {seconds:.2f} | {work:.2f} | {result.status} | {cost} | "
            f"{gap} | {proof.solver} |",
            flush=True,
        )
    if arguments.only in "pipelines":
        pipelines()


if __name__ == "__main__":
    main()
