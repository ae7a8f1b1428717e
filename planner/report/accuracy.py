"""The accuracy of this build as a table, JSON or Markdown (the README's table is the latter)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from planner.accuracy.left_out import GROUPINGS
from planner.accuracy.score import Error
from planner.accuracy.validate import ErrorRow, Validation
from planner.catalog.bands import OTHER, SPLIT, band, band_families
from planner.report.formats import rows_text
from planner.version import __version__

FORMATS = ("table", "json", "md")
_QUANTITY = {"tpot": "TPOT", "output_rate_per_gpu": "tokens/s/GPU", "ttft": "TTFT", "e2e": "end-to-end"}
_MODE = {"aggregated": "serving", "pd": "prefill/decode split", "static": "static batch"}


def validation_text(found: Validation, form: str) -> str:
    """Write a validation in one of FORMATS."""
    if form == "json":
        return json.dumps(validation_data(found), indent=2) + "\n"
    rows = [_row(row) for row in found.rows]
    tables = (rows, [_decision_row(found)], _band_rows())
    return "\n".join([*(rows_text(table, form) for table in tables), _notes(found)])


def validation_data(found: Validation) -> dict[str, Any]:
    """What ``-o json`` prints: shares, not percent."""
    return {
        "planner_version": __version__,
        "fitted": found.fitted,
        "coverage": {mode: {"predicted": ok, "points": n} for mode, (ok, n) in found.coverage.items()},
        "errors": [_error_data(row) for row in found.rows],
        "decisions": {
            "count": found.decision_count,
            "in_sample": round(found.decisions[""], 6),
            "left_out": {name: round(found.decisions[name], 4) for name in GROUPINGS},
        },
        "bands": {name: {key: list(span) for key, span in band(name).items()} for name in _band_names()},
    }


def _error_data(row: ErrorRow) -> dict[str, Any]:
    return {
        "mode": row.mode,
        **row.group,
        "quantity": row.quantity,
        "in_sample": _share(row.in_sample),
        "left_out": {name: _share(value) for name, value in row.left_out.items()},
        "inside_band": None if row.inside_band is None else round(row.inside_band, 6),
    }


def _share(value: Error) -> dict[str, float]:
    return {
        "n": value.count,
        "mape": round(value.mean, 6),
        "median_ape": round(value.median, 6),
        "bias_median": round(value.bias, 6),
        "within_20": round(value.within_20, 6),
    }


def _row(row: ErrorRow) -> dict[str, Any]:
    """One line: mean / median error in percent."""
    cells = {
        "mode": _MODE.get(row.mode, row.mode),
        **row.group,
        "quantity": _QUANTITY[row.quantity],
        "n": row.in_sample.count,
        "in sample %": _both(row.in_sample),
    }
    return cells | _columns({name: _both(row.left_out[name]) for name in row.left_out}) | {
        "in 80 % band": "-" if row.inside_band is None else f"{100 * row.inside_band:.0f} %"
    }  # fmt: skip


def _columns(values: Mapping[str, str]) -> dict[str, str]:
    return {f"{name} left out %": values[name] for name in GROUPINGS}


def _both(value: Error) -> str:
    return f"{100 * value.mean:.1f} / {100 * value.median:.1f}"


def _decision_row(found: Validation) -> dict[str, Any]:
    percent = {name: f"{100 * value:.1f}" for name, value in found.decisions.items()}
    start = {"decision": "best measured throughput kept", "n": found.decision_count, "in sample %": percent.pop("")}
    return start | _columns(percent)


def _band_names() -> tuple[str, ...]:
    return (*band_families(), SPLIT, OTHER)


def _band_rows() -> list[dict[str, str]]:
    """The bands that plans carry, as measured/predicted."""
    rows = []
    for name in _band_names():
        spans = {_BAND[key]: f"{low:.2f} to {high:.2f}" for key, (low, high) in band(name).items()}
        rows.append({"80 % band, measured / predicted": _POOLS.get(name, name)} | spans)
    return rows


_BAND = {"output_tok_s": "tokens/s", "tpot_ms": "TPOT", "ttft_ms": "TTFT"}
_POOLS = {SPLIT: "prefill/decode split", OTHER: "families never measured"}


def _notes(found: Validation) -> str:
    covered = ", ".join(f"{_MODE.get(m, m)} {ok:,} of {n:,}" for m, (ok, n) in found.coverage.items())
    return (
        f"Mean / median absolute error. Points predicted: {covered}. Engine constants fitted {found.fitted}; "
        "left out: no row of the group was used to fit them.\n"
    )
