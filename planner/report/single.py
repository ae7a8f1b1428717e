"""One fixed configuration: what it does, what it holds, and where its time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.api import CURRENT, Catalogs, best_length, estimate, replica_of_point
from planner.errors import InputError, NoPlanError
from planner.job.parse import parse_length
from planner.job.points import Point, PoolPoint
from planner.job.speculating import Speculating
from planner.job.tuning import Tuning
from planner.planned import pool_speculation
from planner.report.calibration import warn_unused
from planner.report.drafts import speculation_text
from planner.report.emit import emit
from planner.report.formats import record_text, rows_text
from planner.serving.iteration import Work, iteration_ledger
from planner.serving.layout import Layout, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.replica import Replica
from planner.units import GIB

_BY_OPERATOR = ("decode_iteration_ms", "prefill_of_one_prompt_ms")


@dataclass(frozen=True, slots=True)
class SingleRequest:
    """A checked request for one configuration."""

    point: Point
    layout: Layout

    @classmethod
    def checked(
        cls, *, model: str | None, gpu: str | None, weights: str, kv: str, engine: str, isl: str | None, osl:
        str | None,
        concurrency: float | None, static: bool, layout: tuple[int, int, int, int, int], replicas: int,
        engine_version: str,
        speculate: Speculating | None = None, tuning: Tuning | None = None,
    ) -> SingleRequest:  # fmt: skip
        """Check what the command line gave. Raises InputError naming the option."""
        example = "planner estimate meta-llama/Llama-3.1-8B --gpu h100-sxm --isl 1000 --osl 200 --concurrency 16"
        if not model or not gpu:
            raise InputError(f"{'MODEL' if not model else '--gpu'} is missing", hint=f"{example}, or --from points.csv")
        if concurrency is None or not 0 < concurrency < 1e9:
            raise InputError("--concurrency is missing or not above zero", hint=example)
        pool = PoolPoint(replicas, layout[0], layout[2], layout[1], layout[3], layout[4])
        point = Point(
            id="1", model=model, gpu=gpu, weights=weights, kv=kv, engine=engine,
            mode="static" if static else "aggregated", concurrency=concurrency, engine_version=engine_version,
            date="" if engine_version else CURRENT,
            isl=parse_length(isl, "--isl"), osl=parse_length(osl, "--osl"), pool=pool,
            speculate=speculate, tuning=tuning or Tuning(),
        )  # fmt: skip
        return cls(point, Layout(*layout))


def time_by_operator(replica: Replica, layout: Layout, batch: float, lengths: Lengths) -> dict[str, dict[str, float]]:
    """Milliseconds by operator of one decode iteration at ``batch`` per rank, and of the prefill of one prompt on each
    attention rank."""
    columns = Layouts.of([layout], column=False)
    decode = iteration_ledger(replica, columns, Work(sequences=batch / layout.pp, context=lengths.decode_context))
    chunks = np.ceil(lengths.new / replica.engine.chunk_tokens)
    chunk = lengths.new / chunks
    prefix = floats(lengths.cached) + (lengths.new - chunk) / 2
    prefill = iteration_ledger(replica, columns, Work(chunk=chunk, prefix=prefix))
    tables = {"decode_iteration_ms": (decode, 1.0), "prefill_of_one_prompt_ms": (prefill, float(np.ravel(chunks)[0]))}
    return {
        name: {op: round(float(np.asarray(s).ravel()[0]) * 1e3 * n, 4) for op, s in ledger.seconds.items()}
        for name, (ledger, n) in tables.items()
    }


def describe(request: SingleRequest, catalogs: Catalogs) -> dict[str, Any]:
    """Everything that is printed. Raises NoPlanError when it does not fit, InputError when it cannot be predicted."""
    p = request.point
    if p.speculate is not None and p.speculate.tokens is None:
        chosen, _ = best_length(p, catalogs)
        p = replace(p, speculate=p.speculate.model_copy(update={"tokens": chosen}))
    replica = replica_of_point(p, catalogs)
    (found,) = estimate([p], catalogs=catalogs)
    if found.status == "infeasible":
        raise NoPlanError(f"{p.gpu} {request.layout} {replica.weights} does not fit: {found.reason}")
    if found.status != "ok":
        raise InputError(found.reason)
    lengths = Lengths(p.isl, p.osl)
    budget = memory(replica, Layouts.of([request.layout], column=False), lengths)
    share = p.concurrency / p.pool.workers / request.layout.attention_dp
    batch = min(share, float(budget.slots[0]))
    held = {
        "weights_gib": float(budget.weights[0]) / GIB,
        "kv_gib": float(np.asarray(budget.request).ravel()[0]) * batch / GIB,
        "activations_gib": float(np.asarray(budget.activations).ravel()[0]) / GIB,
        "capacity_gib": budget.capacity / GIB,
    }
    row = {key: value for key, value in found.row().items() if key not in ("id", "reason")}
    return {
        "model": replica.model.id, "gpu": replica.accelerator.id, "layout": str(request.layout),
        "weights": replica.weights, "kv": replica.kv, "engine": replica.engine.id, **_drafts(p, replica), **row,
        "max_batch": int(budget.slots[0]),
        "memory": {key: round(value, 3) for key, value in held.items()},
        "basis": replica.efficiency.basis,
        "calibrated_by": {replica.accelerator.id: replica.efficiency.calibrated_by},
        **time_by_operator(replica, request.layout, batch, lengths),
    }  # fmt: skip


def _drafts(point: Point, replica: Replica) -> dict[str, Any]:
    """How the configuration drafts, where it was asked to."""
    if point.speculate is None:
        return {}
    how = pool_speculation(replica.speculation)
    return {"speculation": None if how is None else how.model_dump()}


def emit_single(request: SingleRequest, catalogs: Catalogs, output: str, out: Sequence[Path] | None) -> None:
    """Print and save one estimate."""
    found = describe(request, catalogs)

    def render(form: str) -> str:
        if form in ("json", "yaml"):
            return record_text(found, form)
        if form == "csv":
            return rows_text([{k: v for k, v in found.items() if k not in _BY_OPERATOR}], form)
        return _text(found, form)

    emit(render, output, out)
    warn_unused(catalogs.profile, found["model"], [found["gpu"]], found["engine"])


def _text(found: dict[str, Any], form: str) -> str:
    heads = ("model", "gpu", "layout", "weights", "kv", "engine", "basis", "max_batch")
    tails = ("ttft_ms", "tpot_ms", "output_tok_s_per_gpu", "e2e_latency_ms", "memory_gib_per_gpu")
    by = {"family": " (GPU family)", "profile": " (your profile)", None: ""}[found["calibrated_by"][found["gpu"]]]
    shown = {**found, "basis": found["basis"] + by}
    lines = ["  ".join(f"{key} {shown[key]}" for key in heads), ""]
    if "speculation" in found:
        lines[1:1] = [speculation_text(found["speculation"])]
    lines += [rows_text([{key: found[key] for key in tails}], form).strip("\n"), *([""] if form == "md" else [])]
    return "\n".join(lines) + "\n" + operator_text(found, form)


def operator_text(found: dict[str, Any], form: str = "table") -> str:
    """Time by operator with bars, decode beside prefill."""
    decode, prefill = found["decode_iteration_ms"], found["prefill_of_one_prompt_ms"]
    total, all_prefill = sum(decode.values()), sum(prefill.values())
    names = sorted({*decode, *prefill}, key=lambda name: (-decode.get(name, 0.0), -prefill.get(name, 0.0), name))
    rows = [
        {
            "operator": name,
            "decode ms": round(decode.get(name, 0.0), 3),
            "share": f"{decode.get(name, 0.0) / total:4.0%} " + "█" * round(decode.get(name, 0.0) / total * 24),
            "prefill ms": round(prefill.get(name, 0.0), 3),
            "of prefill": f"{prefill.get(name, 0.0) / all_prefill:4.0%} "
            + "█" * round(prefill.get(name, 0.0) / all_prefill * 24),
        }
        for name in names
        if decode.get(name, 0.0) + prefill.get(name, 0.0) > 0
    ]
    rows.append(
        {
            "operator": "total",
            "decode ms": round(total, 3),
            "share": "",
            "prefill ms": round(all_prefill, 3),
            "of prefill": "",
        }
    )
    return rows_text(rows, form)
