"""Requests simulated per second of wall time on one core, and how that grows.

Run: python benchmarks/bench_simulation.py [mooncake.jsonl] [--quick]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from planner.api import Catalogs
from planner.job.traces import Trace
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths
from planner.simulation import Deployment, EngineSettings, Policy, Pool, Routing, TabulatedSteps, simulate, summarize
from planner.simulation.deploy import Served, step_model
from planner.simulation.simulator import Stream
from planner.simulation.streams import ClosedLoop, Fixed, Lognormal, OpenStream, Poisson, Replay, Sessions, Uniform


def steps_of(model: str, gpu: str, weights: str, layout: Layout) -> TabulatedSteps:
    """Iteration times of a real model from the cost model."""
    replica = Catalogs().replica(model, gpu, weights, "bf16", "vllm")
    return step_model(Served(replica, layout, 1, Lengths(1000.0, 250.0)))


SMALL = steps_of("meta-llama/Llama-3.1-8B", "h100-sxm", "bf16", Layout())
LARGE = steps_of("meta-llama/Llama-3.1-70B", "h100-sxm", "fp8", Layout(tp=4))
PROMPTS, OUTPUTS = Lognormal(1000, 1.0, 16_000), Lognormal(250, 0.8, 4000)


def measure(name: str, pool: Pool, stream: Stream) -> float:
    """Simulate, print one row and return requests per second of wall time."""
    began = time.perf_counter()
    run = simulate(Deployment(pool), stream)
    wall = time.perf_counter() - began
    s = summarize(run)
    verdict = "" if s.stability.stable else "UNSTABLE"
    print(
        f"{name:44} {run.finished:8,} req {wall:7.2f} s {run.finished / wall:9,.0f} req/s"
        f" {run.steps / run.finished:6.1f} steps/req  batch {s.mean_batch:5.1f}"
        f"  ttft p95 {s.ttft.p95:7.3f} s  hits {s.hit_share:4.0%}  {verdict}"
    )
    return run.finished / wall


def chat(rate: float, count: int, outputs: Lognormal = OUTPUTS) -> OpenStream:
    """Conversation-like requests."""
    return OpenStream(Poisson(rate), PROMPTS, outputs, count, seed=1)


def capacity(steps: TabulatedSteps, count: int = 4000) -> float:
    """Completions per second of one saturated replica."""
    pool = Pool(steps)
    run = simulate(Deployment(pool), chat(1000.0, count))
    return run.finished / run.end


def main(arguments: list[str]) -> None:
    scale = 10 if "--quick" in arguments else 1
    traces = [Path(a) for a in arguments if not a.startswith("--")]
    small, large = capacity(SMALL), capacity(LARGE)
    print(f"saturated: 8B {small:.1f} req/s, 70B {large:.1f} req/s; below at 80 % of that")
    measure("(a) 8B, one GPU, vLLM", Pool(SMALL), chat(0.8 * small, 100_000 // scale))
    for policy in Policy:
        if policy is not Policy.VLLM:
            rate = 0.3 if policy is Policy.STATIC else 0.8
            measure(
                f"    the same, {policy}, {rate:.0%}",
                Pool(SMALL, EngineSettings(policy)),
                chat(rate * small, 30_000 // scale),
            )
    measure("(b) 70B, 16 replicas", Pool(LARGE, replicas=16), chat(0.8 * large * 16, 100_000 // scale))
    for trace in traces:
        for routing in (Routing.LEAST_LOADED, Routing.PREFIX_AWARE):
            engine = EngineSettings(prefix_cache=True, hash_tokens=512)
            replay = Replay(lambda trace=trace: Trace(trace), copies=4)
            measure(f"(c) {trace.stem[:22]} x4, {routing}", Pool(LARGE, engine, replicas=16, routing=routing), replay)
    engine = EngineSettings(prefix_cache=True, hash_tokens=16)
    sessions = Sessions(Poisson(large), Fixed(300), OUTPUTS, Fixed(5), count=4000 // scale, system_tokens=512)
    measure(
        "    sessions of 5 turns, 8 replicas", Pool(LARGE, engine, replicas=8, routing=Routing.PREFIX_AWARE), sessions
    )
    for count in (10_000, 100_000, 300_000):
        measure(f"requests: {count // scale:,}", Pool(SMALL), chat(0.8 * small, count // scale))
    for output in (100, 1000, 10_000):
        users = ClosedLoop(16, PROMPTS, Uniform(output // 2, output * 3 // 2), 20_000 // scale)
        measure(f"output length: {output:,} tokens, 16 users", Pool(SMALL), users)
    for replicas in (1, 16, 64, 250):
        pool = Pool(LARGE, replicas=replicas)
        measure(f"replicas: {replicas} ({4 * replicas} GPUs)", pool, chat(0.8 * large * replicas, 50_000 // scale))


if __name__ == "__main__":
    main(sys.argv[1:])
