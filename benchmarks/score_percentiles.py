"""How far the closed-form percentiles are from the event simulation, over models, GPUs, engines and loads.

usage: python benchmarks/score_percentiles.py

Each best plan of a search without limits runs at 20 to 90 % of its highest stable rate: fixed lengths, Poisson
arrivals, 4,000 requests. Prints the median and the 90th percentile of |closed form/simulation - 1|, and the median
signed error.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from planner.api import Catalogs
from planner.job.parse import parse_job
from planner.search.rerate import at_rate
from planner.search.search import search
from planner.serving.engine import load_engine
from planner.simulation import simulate, summarize
from planner.simulation.deploy import Served, deployment
from planner.simulation.streams import Fixed, OpenStream, Poisson

CASES = [
    ("meta-llama/Llama-3.1-8B", "h100-sxm:1", 1000, 200),
    ("meta-llama/Llama-3.1-8B", "l40s:1", 500, 500),
    ("meta-llama/Llama-3.1-70B", "h100-sxm:4", 4000, 1000),
    ("Qwen/Qwen3-32B", "a100-sxm-80gb:2", 2000, 300),
    ("openai/gpt-oss-120b", "b200-sxm:1", 1000, 1000),
    ("deepseek-ai/DeepSeek-R1", "h200-sxm:8", 4000, 500),
]
LOADS = (0.2, 0.4, 0.6, 0.75, 0.9)
REQUESTS = 4000


def main() -> None:
    catalogs = Catalogs()
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for model, fleet, isl, osl in CASES:
        for engine in ("vllm", "sglang", "trtllm"):
            job = parse_job(model=model, fleet=fleet, isl=str(isl), osl=str(osl), engine=engine)
            outcome = search(catalogs.model(model), load_engine(engine), catalogs.supplies(job.fleet), job)
            best = next(c for c in outcome.ranked if c.layout.attention_dp == 1 and c.layout.pp == 1)
            for load in LOADS:
                point = at_rate(best, best.rate * load)
                served = Served(point.replica, point.layout, 1, point.lengths)
                rate = point.rate / point.replicas
                stream = OpenStream(Poisson(rate), Fixed(isl), Fixed(osl), REQUESTS)
                run = simulate(deployment(served, point.per_replica.tpot["mean"]), stream)
                seen = summarize(run, warm_up=0.2)
                for name, predicted, simulated in (
                    ("TTFT", point.per_replica.ttft, seen.ttft),
                    ("TPOT", point.per_replica.tpot, seen.tpot),
                ):
                    for statistic in ("mean", "p50", "p95", "p99"):
                        errors[name, statistic].append(predicted[statistic] / getattr(simulated, statistic) - 1)
    print(f"{len(CASES) * 3 * len(LOADS)} operating points")
    for (name, statistic), values in errors.items():
        found = np.array(values)[np.isfinite(values)]
        sizes = np.abs(found)
        print(
            f"  {name} {statistic:4s}  median {np.median(sizes):5.1%}  p90 {np.quantile(sizes, 0.9):5.1%}"
            f"  signed {np.median(found):+5.1%}  n {len(found)}"
        )


if __name__ == "__main__":
    main()
