"""Results of load tests, in the forms that load generators write, as rows of a points file with measured columns.

Read are ``vllm bench serve --save-result`` (one JSON object), SGLang ``bench_serving --output-file`` (JSON lines),
aiperf and genai-perf (``profile_export_*.json``, with units), guidellm (``benchmarks.json``) and a points CSV. What a
tool does not record, the layout above all, comes from options (`Deployment`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.job.points import Point, parse_row, read_points

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deployment:
    """What was tested; columns of a points file. Empty strings: as the file says, or the engine's default."""

    model: str = ""
    gpu: str = ""
    weights: str = ""
    kv: str = ""
    engine: str = ""
    tp: int = 1
    attention_dp: int = 1
    pp: int = 1
    ep: int = 1
    replicas: int = 1


def read_results(path: Path, deployment: Deployment) -> list[Point]:
    """Read one file of results. Raises InputError saying what is wrong with which result."""
    if path.suffix.lower() == ".csv":
        points = read_points(path)
        for point in points:
            if point.problem:
                raise InputError(f"{path.name}, {point.id}: {point.problem}")
        return points
    rows = [
        row for number, item in enumerate(_objects(path), 1) for row in _rows(item, f"{path.name}, result {number}")
    ]
    if not rows:
        raise InputError(f"{path}: no results")
    return [_point(row, deployment, f"{path.name}, result {n}", n) for n, row in enumerate(rows, 1)]


def _objects(path: Path) -> list[Json]:
    """JSON objects of a file: one, a list, or one a line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        try:
            data = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise InputError(f"{path}: neither JSON nor JSON lines", hint="a .csv needs that suffix") from None
    items = data if isinstance(data, list) else [data]
    if not all(isinstance(item, dict) for item in items):
        raise InputError(f"{path}: not the output of a known load generator", hint=_KNOWN)
    return items


_KNOWN = "vllm bench serve, SGLang bench_serving, aiperf, genai-perf, guidellm, or a points CSV"


def _rows(item: Json, where: str) -> list[dict[str, Any]]:
    """Columns of a points row, for each run that an object reports."""
    if isinstance(item.get("benchmarks"), list):
        return [_guidellm(run, where) for run in item["benchmarks"] if isinstance(run, dict)]
    if isinstance(item.get("time_to_first_token"), dict):
        return [_aiperf(item, where)]
    if "mean_ttft_ms" in item or "median_ttft_ms" in item:
        return [_bench(item, where)]
    raise InputError(f"{where}: not the output of a known load generator", hint=_KNOWN)


def _bench(item: Json, where: str) -> dict[str, Any]:
    """vLLM and SGLang: totals, and mean_*_ms beside median_*_ms."""
    done, asked, failed = item.get("completed"), item.get("num_prompts"), item.get("failed")
    if failed is None and isinstance(done, int | float) and isinstance(asked, int | float):
        failed = asked - done  # older files count no failures
    _refuse_failures(failed, done, where)
    done = _number(item, "completed", where)
    statistic = "mean" if "mean_ttft_ms" in item else "median"
    rate = done / _number(item, "duration", where)
    output = _number(item, "total_output_tokens", where)
    ttft, tpot = (_number(item, f"{statistic}_{name}_ms", where) for name in ("ttft", "tpot"))
    end_to_end = item.get(f"{statistic}_e2el_ms", item.get(f"{statistic}_e2e_latency_ms"))
    if not isinstance(end_to_end, int | float):  # not saved unless asked for
        end_to_end = ttft + (output / done - 1) * tpot
    # With a finite request rate the limit is only a cap, which may never be reached.
    limit = item.get("max_concurrency") if item.get("request_rate") in (None, "inf", float("inf")) else None
    return {
        "model": item.get("model_id", ""),
        "engine": _ENGINES.get(str(item.get("backend", "")), ""),
        "isl": _number(item, "total_input_tokens", where) / done,
        "osl": output / done,
        "ttft_ms": ttft,
        "tpot_ms": tpot,
        "statistic": statistic,
        "concurrency": _concurrency(limit, rate, end_to_end),
        "output_tok_s": output / _number(item, "duration", where),
    }


_ENGINES = {"vllm": "vllm", "sglang": "sglang", "sglang-oai": "sglang", "trt": "trtllm", "tensorrt-llm": "trtllm"}


def _aiperf(item: Json, where: str) -> dict[str, Any]:
    """Aiperf and genai-perf: every metric is {unit, avg, ...}."""
    errors = item.get("error_request_count")
    _refuse_failures(errors.get("avg") if isinstance(errors, dict) else errors, None, where)
    end_to_end = _metric(item, "request_latency", where)
    rate = _metric(item, "request_throughput", where)
    load = _table(_table(item, "input_config"), "loadgen")
    return {
        "model": "",
        "engine": "",
        "isl": _metric(item, "input_sequence_length", where),
        "osl": _metric(item, "output_sequence_length", where),
        "ttft_ms": _metric(item, "time_to_first_token", where),
        "tpot_ms": _metric(item, "inter_token_latency", where),
        "statistic": "mean",
        "concurrency": _concurrency(load.get("concurrency"), rate, end_to_end),
        "output_tok_s": _metric(item, "output_token_throughput", where),
    }


_MILLISECONDS = {"ms": 1.0, "milliseconds": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3, "us": 1e-3, "ns": 1e-6}
_PER_SECOND = ("/s", "/sec", "/second", "per_second", "per second")
_TIMES = ("request_latency", "time_to_first_token", "inter_token_latency")


def _metric(item: Json, name: str, where: str) -> float:
    table = item.get(name)
    if not isinstance(table, dict):
        raise InputError(f"{where}: no {name}", hint="run with streaming, so that token times are recorded")
    value = _number(table, "avg", f"{where}, {name}")
    unit = str(table.get("unit", "")).lower()
    if name not in _TIMES:
        if name.endswith("throughput") and unit and not unit.endswith(_PER_SECOND):
            raise InputError(f"{where}: {name} has the unit {unit!r}", hint="tokens or requests per second")
        return value
    if unit not in _MILLISECONDS:
        raise InputError(f"{where}: {name} has the unit {unit!r}", hint=f"one of {', '.join(_MILLISECONDS)}")
    return value * _MILLISECONDS[unit]


def _guidellm(run: Json, where: str) -> dict[str, Any]:
    """Guidellm: metrics.<name>.successful.{mean, median}; times carry _ms, request_latency is in seconds."""
    metrics = _table(run, "metrics")

    def mean(name: str) -> float:
        return _number(_table(_table(metrics, name), "successful"), "mean", f"{where}, {name}")

    totals = _table(run, "request_totals")
    _refuse_failures(totals.get("errored"), totals.get("successful"), where)
    tpot = "inter_token_latency_ms"  # time_per_output_token_ms counts the first token too
    return {
        "model": "",
        "engine": "",
        "isl": mean("prompt_token_count"),
        "osl": mean("output_token_count"),
        "ttft_ms": mean("time_to_first_token_ms"),
        "tpot_ms": mean(tpot),
        "statistic": "mean",
        "concurrency": mean("request_concurrency"),
        "output_tok_s": mean("output_tokens_per_second"),
    }


def _table(item: Json, name: str) -> Json:
    """A table inside a table, empty where there is none."""
    found = item.get(name)
    return found if isinstance(found, dict) else {}


def _refuse_failures(failed: object, done: object, where: str) -> None:
    if isinstance(failed, int | float) and failed > 0:
        of = f" beside {done:g} completed ones" if isinstance(done, int | float) else ""
        raise InputError(
            f"{where}: {failed:g} requests failed{of}", hint="failed requests shorten the load; test again without them"
        )


def _number(table: Json, name: str, where: str) -> float:
    value = table.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e15:
        raise InputError(f"{where}: {name} is {value!r}; it must be a number above zero")
    return float(value)


def _concurrency(limit: object, rate: float, end_to_end: float) -> float:
    """Requests in flight: the limit of a closed loop, else the mean by Little's law (requests/s * ms in the system)."""
    if isinstance(limit, int | float) and limit > 0:
        return float(limit)
    return max(1.0, rate * end_to_end / 1e3)


def _point(row: Mapping[str, Any], deployment: Deployment, where: str, number: int) -> Point:
    known = {name: value for name, value in asdict(deployment).items() if value not in ("", None)}
    columns = {"mode": "aggregated", **{k: v for k, v in row.items() if v != ""}, **known, "id": where}
    for name in ("model", "gpu"):
        if not columns.get(name):
            raise InputError(f"{where}: the file does not say which {name}", hint=f"add --{name}")
    gpus = deployment.tp * deployment.attention_dp * deployment.pp * deployment.replicas
    columns["output_tok_s_per_gpu"] = columns.pop("output_tok_s") / gpus
    point = parse_row({name: str(value) for name, value in columns.items()}, number)
    if point.problem:
        raise InputError(f"{where}: {point.problem}")
    return point
