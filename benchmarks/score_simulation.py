"""Simulate the measured closed-loop points and score the result beside the closed forms.

usage: python benchmarks/score_simulation.py [POINTS.csv] [--every N]; without a file, the points that planner ships

Each point runs as its load test did: all requests at once at the start, then a constant number in flight, 10 per user,
output and prompt lengths uniform on 0.89 to 1.11 of their mean (the sources name 0.8 to 1.0 of a nominal value). A
published throughput is compared with output tokens over the duration of the test, its tail included; one that follows
from TTFT and TPOT with the same formula of theirs.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from fit_engines import score

from planner.accuracy.measured import Measured, read_measured, shipped_points
from planner.api import Catalogs, estimate, replica_of_point
from planner.serving.estimated import Estimate
from planner.serving.layout import Layout
from planner.serving.lengths import Lengths
from planner.simulation import simulate, summarize
from planner.simulation.deploy import Served, deployment
from planner.simulation.streams import ClosedLoop, Uniform

ROUNDS = 10


def simulated(measured: Measured, guess: Estimate, catalogs: Catalogs) -> Estimate:
    """Predict a measured point with TTFT, TPOT and throughput from the event simulation."""
    if guess.status != "ok" or guess.tpot is None or guess.output_rate_per_gpu is None:
        return guess
    point, pool = measured.point, measured.point.pool
    layout = Layout(pool.tp, pool.attention_dp, pool.pp, pool.ep)
    served = Served(replica_of_point(point, catalogs), layout, 1, Lengths(point.isl, point.osl))
    users = max(1, round(point.concurrency / pool.workers))
    stream = ClosedLoop(users, _around(point.isl), _around(point.osl), ROUNDS * users)
    run = simulate(deployment(served, guess.tpot), stream)
    summary = summarize(run, warm_up=0.0)
    ttft = summary.ttft.p50 if point.statistic == "p50" else summary.ttft.mean
    tpot = summary.tpot.p50 if point.statistic == "p50" else summary.tpot.mean
    if point.extra.get("output_tok_s_per_gpu"):
        rate = sum(run.records.output) / run.end
    else:
        rate = users * point.osl / (ttft + point.osl * tpot)
    return replace(guess, ttft=ttft, tpot=tpot, output_rate_per_gpu=rate / layout.gpus)


def _around(mean: float) -> Uniform:
    return Uniform(max(1, round(0.89 * mean)), max(1, round(1.11 * mean)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", nargs="?", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every Nth point")
    arguments = parser.parse_args()
    catalogs = Catalogs()
    measured = read_measured(arguments.points) if arguments.points else shipped_points()
    measured = [m for m in measured if m.point.mode == "aggregated"][:: arguments.every]
    points = [m.point for m in measured]
    started = time.perf_counter()
    closed = estimate(points, catalogs=catalogs)
    print(f"== closed forms, {time.perf_counter() - started:.1f} s\n{score(measured, closed)}")
    started = time.perf_counter()
    runs = [simulated(point, guess, catalogs) for point, guess in zip(measured, closed, strict=True)]
    print(f"== simulation, {time.perf_counter() - started:.1f} s\n{score(measured, runs)}")


if __name__ == "__main__":
    main()
