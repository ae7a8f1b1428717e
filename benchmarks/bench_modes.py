"""How long a search of a large expert model takes with all modes on: aggregated, prefill/decode, attention/FFN.

usage: python benchmarks/bench_modes.py          (prints a table; run with OMP_NUM_THREADS=1 on a quiet machine)
"""

from __future__ import annotations

from bench_search import command

_LOAD = ["--isl", "4000", "--osl", "1000", "--ttft", "3s", "--tpot", "50ms", "--modes", "aggregated,pd,af"]
_SEARCHES = {
    "DeepSeek-R1 on 64 h200-sxm": ["deepseek-ai/DeepSeek-R1", "--fleet", "h200-sxm:64"],
    "Qwen3-235B on 64 h100-sxm": ["Qwen/Qwen3-235B-A22B", "--fleet", "h100-sxm:64"],
    "Step-3 on 32 h20 and 32 h800": ["stepfun-ai/step3", "--fleet", "h20:32,h800-sxm:32"],
}
LIMIT_S = 3.0


def main() -> None:
    """Print wall and CPU seconds of cold processes, medians of three."""
    print(f"{'search, all modes':44} {'wall s':>8} {'CPU s':>8} {'asked':>8}")
    for name, arguments in _SEARCHES.items():
        for label, options in (("", []), (", no simulation", ["--no-simulate"])):
            wall, cpu = command(["search", *arguments, *_LOAD, *options], runs=3)
            print(f"{name + label:44} {wall:8.2f} {cpu:8.2f} {LIMIT_S:8.1f}")


if __name__ == "__main__":
    main()
