"""How fast the search is: operating points per second on one core, cold starts of whole commands, memory.

usage: python benchmarks/bench_search.py          (prints a table; run with OMP_NUM_THREADS=1 on a quiet machine)
"""

from __future__ import annotations

import atexit
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache

import numpy as np

from planner.api import Catalogs
from planner.search.reject import Rejections
from planner.search.space import layouts
from planner.serving.aggregated import open_loop
from planner.serving.layout import Layouts
from planner.serving.lengths import Lengths

COMMANDS = {
    "planner --help": (["--help"], 0.4),
    "search Llama-3.1-70B on 16 h100-sxm": (
        ["search", "meta-llama/Llama-3.1-70B", "--fleet", "h100-sxm:16", "--isl", "4000", "--osl", "1000"],
        0.8,
    ),
    "search DeepSeek-R1 on 32 h200-sxm": (
        ["search", "deepseek-ai/DeepSeek-R1", "--fleet", "h200-sxm:32", "--isl", "4000", "--osl", "1000"],
        2.0,
    ),
}


def points_per_second(model: str, gpu: str, gpus: int) -> float:
    """Operating points (layout x batch, decode and mixed iteration, memory) evaluated per second."""
    replica = Catalogs().replica(model, gpu, "fp8", "fp8", "vllm")
    columns = Layouts.of(layouts(replica.model, replica.accelerator, gpus, Rejections()))
    batches = np.geomspace(1, 512, 96)[None, :]
    size = columns.tp.size * batches.size
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        open_loop(replica, columns, batches, Lengths(4000.0, 1000.0))
        best = min(best, time.perf_counter() - started)
    return size / best


@cache
def installed() -> dict[str, str]:
    """The environment of an installed program, whose byte code lies beside it: in a folder of its own where this
    environment keeps Python from writing any (compiling every module anew costs 0.2 s of each start)."""
    environment = dict(os.environ)
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        folder = tempfile.mkdtemp(prefix="planner-bench-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        environment["PYTHONPYCACHEPREFIX"] = folder
    return environment


def command(arguments: list[str], runs: int = 5) -> tuple[float, float]:
    """Median wall and CPU seconds of a cold process, after one that is not counted and leaves the byte code."""
    walls, cpus = [], []
    start = [sys.executable, "-m", "planner", *arguments]
    subprocess.run(start, check=True, capture_output=True, env=installed())
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(start, check=True, capture_output=True, env=installed())
        walls.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return float(np.median(walls)), float(np.median(cpus))


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("operating points per second on one core (at least 200,000)")
    for model, gpu, gpus in (
        ("meta-llama/Llama-3.1-70B", "h100-sxm", 16),
        ("deepseek-ai/DeepSeek-R1", "h200-sxm", 32),
        ("Qwen/Qwen3.5-397B-A17B", "b200-sxm", 16),
    ):
        print(f"  {model:32s} on {gpus} {gpu:10s} {points_per_second(model, gpu, gpus):12,.0f}")
    print("cold commands: median wall s, CPU s (limit)")
    for name, (arguments, limit) in COMMANDS.items():
        wall, cpu = command(arguments)
        print(f"  {name:40s} {wall:6.2f} {cpu:6.2f}  ({limit})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest resident memory of a command: {peak:.0f} MiB")


if __name__ == "__main__":
    main()
