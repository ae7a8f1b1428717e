"""A study: the options of ``planner search``, each a value or a list; its points are all combinations."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.api import NO_PROFILE, Catalogs, search
from planner.errors import InputError, NoPlanError, PlannerError, UnknownNameError
from planner.job.parse import parse_job
from planner.plan import Plan, PlanFile
from planner.serving.profile import Profile

OPTIONS = (
    "model", "fleet", "isl", "osl", "rate", "concurrency", "prefix_hit", "ttft", "tpot", "e2e", "percentile",
    "objective", "modes", "weights", "kv", "engine", "budget", "seed", "simulate_top", "speculate", "acceptance",
    "draft_tokens", "tp_overlap", "two_batch_overlap", "redundant_experts", "expert_imbalance", "kv_transfer",
    "kv_compression", "cp",
)  # fmt: skip
_NUMBERS = (
    "concurrency", "seed", "simulate_top", "draft_tokens", "redundant_experts", "expert_imbalance", "kv_compression",
)  # fmt: skip
REQUIRED = ("model", "fleet", "isl", "osl")
MAX_POINTS = 1_000_000
Row = dict[str, Any]
_RESULTS = (
    "status", "reason", "mode", "gpus", "gpus_total", "pools", "output_tok_s", "output_tok_s_per_gpu", "request_rate",
    "ttft_ms", "tpot_ms", "e2e_ms", "cost_usd_per_hour", "usd_per_million_output_tokens", "basis",
    "calibrated_by",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """One search. ``id`` is a hash of its options, so that a grown study keeps what is done."""

    id: str
    options: Mapping[str, Any]


def read_study(path: Path) -> list[Point]:
    """Return the points of a study in the order of its lists, the last option fastest. Raises InputError."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as problem:
        raise InputError(f"{path}: not YAML: {problem}") from None
    if not isinstance(data, dict):
        raise InputError(
            f"{path}: a study is a mapping of options", hint="model: ..., fleet: [...], isl: ..., osl: ..."
        )
    grid = {}
    for key, value in data.items():
        name = str(key).replace("-", "_")
        if name not in OPTIONS:
            raise UnknownNameError(f"option in {path}:", str(key), OPTIONS)
        grid[name] = _values(path, name, value)
    missing = [name for name in REQUIRED if name not in grid]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)}", hint="a study needs model, fleet, isl and osl")
    return points(grid, path)


def points(grid: Mapping[str, Sequence[Any]], where: Path) -> list[Point]:
    """All combinations of a grid, each once."""
    total = 1
    for values in grid.values():
        total *= len(values)
    if total > MAX_POINTS:
        raise InputError(f"{where}: {total:,} combinations; at most {MAX_POINTS:,}")
    found: dict[str, Point] = {}
    for values in itertools.product(*grid.values()):
        options = dict(zip(grid, values, strict=True))
        text = json.dumps(options, sort_keys=True)
        point = Point(hashlib.sha256(text.encode()).hexdigest()[:16], options)
        found.setdefault(point.id, point)
    return list(found.values())


def _values(path: Path, name: str, value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise InputError(f"{path}: {name}: an empty list")
    for item in values:
        if name == "two_batch_overlap":
            if not isinstance(item, bool):
                raise InputError(f"{path}: {name}: {item!r} is neither true nor false")
        elif isinstance(item, bool) or not isinstance(item, str | int | float | None):
            raise InputError(f"{path}: {name}: {item!r} is neither text nor a number")
        elif name in _NUMBERS and isinstance(item, str):
            raise InputError(f"{path}: {name}: {item!r} is no number")
    return values


def run_point(point: Point, folders: tuple[Path, ...], assume: str | None, profile: Profile = NO_PROFILE) -> Row:
    """Search one point. Never raises: what went wrong is in ``status`` and ``reason``."""
    row: Row = {"id": point.id, **point.options}
    try:
        found = search(parse_job(**_options(point)), catalogs=Catalogs(folders, assume, profile))
    except NoPlanError as none:
        return _filled(row, "no plan", f"{none}{f'; {none.hint}' if none.hint else ''}")
    except PlannerError as wrong:
        return _filled(row, "error", str(wrong))
    except Exception as bug:  # one bad point must not end a study of thousands
        return _filled(row, "bug", f"{type(bug).__name__}: {bug}"[:300])
    return {**_filled(row, "ok", ""), **_best(found)}


def columns(all_points: Sequence[Point]) -> list[str]:
    """Columns of the table: the options that the study sets, then the results."""
    named = dict.fromkeys(name for point in all_points for name in point.options)
    return ["id", *named, *_RESULTS]


def _options(point: Point) -> dict[str, Any]:
    """Options as the command line would give them: text, but for those that are numbers there."""
    given = {
        name: value if name in _NUMBERS or isinstance(value, bool) else str(value)
        for name, value in point.options.items()
        if value is not None
    }
    return {"top": 1, "simulate_top": 0, "rate": None, **given}


def _filled(row: Row, status: str, reason: str) -> Row:
    return {**row, **dict.fromkeys(_RESULTS), "status": status, "reason": reason}


def _best(found: PlanFile) -> Row:
    plan = found.plans[0]
    percentile = str(found.job["slo"]["percentile"])
    seen = plan.predicted
    latencies = {name: getattr(getattr(seen, name), percentile) for name in ("ttft_ms", "tpot_ms", "e2e_ms")}
    return {
        "mode": plan.mode, "gpus": " + ".join(f"{n} {gpu}" for gpu, n in plan.gpus.items()),
        "gpus_total": plan.gpus_total, "pools": _pools(plan), "output_tok_s": seen.output_tok_s,
        "output_tok_s_per_gpu": seen.output_tok_s_per_gpu, "request_rate": seen.request_rate, **latencies,
        "cost_usd_per_hour": plan.cost_usd_per_hour, "basis": plan.basis,
        "calibrated_by": " + ".join(sorted({by or "nothing" for by in plan.calibrated_by.values()})),
        "usd_per_million_output_tokens": plan.usd_per_million_output_tokens,
    }  # fmt: skip


def _pools(plan: Plan) -> str:
    return "; ".join(
        f"{p.role} {p.replicas} x tp{p.layout.tp} dp{p.layout.attention_dp} pp{p.layout.pp} ep{p.layout.ep} {p.gpu} "
        f"{p.weights}" + (f" {p.speculation.method}{p.speculation.tokens}" if p.speculation else "") for p in plan.pools
    )  # fmt: skip
