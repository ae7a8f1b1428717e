"""The accuracy of this build: every shipped measurement against what is predicted of it, in sample and left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from planner.accuracy.left_out import GROUPINGS, load_left_out
from planner.accuracy.measured import QUANTITIES, Measured, groups, shipped_points
from planner.accuracy.predict import Predictor
from planner.accuracy.score import Error, decisions, error, pairs_of
from planner.api import Catalogs
from planner.catalog.bands import plan_band
from planner.errors import UnknownNameError
from planner.serving.estimated import Estimate

BY = ("mode", "gpu", "model", "family", "engine", "weights")
MAIN = "model family and GPU"
BAND_OF = {"output_rate_per_gpu": "output_tok_s", "tpot": "tpot_ms", "ttft": "ttft_ms"}


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Errors of one quantity in one group. ``left_out`` by what was left out of the fit; ``inside_band`` the share of
    left-out points inside the 80 % band, None where no band is shown.
    """

    mode: str
    group: Mapping[str, str]
    quantity: str
    in_sample: Error
    left_out: Mapping[str, Error]
    inside_band: float | None


@dataclass(frozen=True, slots=True)
class Validation:
    """What ``planner validate`` prints. ``coverage`` is (predicted, points) by mode; ``decisions`` the count of
    decisions and their mean quality in sample and by what was left out.
    """

    fitted: str
    coverage: Mapping[str, tuple[int, int]]
    rows: Sequence[ErrorRow]
    decision_count: int
    decisions: Mapping[str, float]


def validate(by: Sequence[str] = ()) -> Validation:
    """Score this build on the points it ships. Raises UnknownNameError for a column it cannot group by."""
    for name in by:
        if name not in BY:
            raise UnknownNameError("column", name, BY)
    points, predictor, left_out = shipped_points(), Predictor(Catalogs()), load_left_out()
    found = {"": predictor([m.point for m in points])}
    found |= {grouping: left_out.predict(points, grouping, predictor) for grouping in GROUPINGS}
    quality = {name: decisions(points, estimates) for name, estimates in found.items()}
    return Validation(
        fitted=left_out.fitted,
        coverage=_coverage(points, found[""]),
        rows=_rows(points, found, [name for name in by if name != "mode"]),
        decision_count=len(quality[""]),
        decisions={name: fmean(values) for name, values in quality.items()},
    )


def _coverage(points: Sequence[Measured], found: Sequence[Estimate]) -> dict[str, tuple[int, int]]:
    result: dict[str, tuple[int, int]] = {}
    for measured, estimate in zip(points, found, strict=True):
        good, total = result.get(measured.point.mode, (0, 0))
        result[measured.point.mode] = (good + (estimate.status == "ok"), total + 1)
    return result


def _rows(points: Sequence[Measured], found: Mapping[str, Sequence[Estimate]], by: Sequence[str]) -> list[ErrorRow]:
    labels = [(m.point.mode, *group) for m, group in zip(points, groups(points, by), strict=True)]
    families = {gpu: entry.family for gpu, entry in Catalogs().hardware.accelerators.items()}
    rows = []
    for label in sorted(set(labels)):
        chosen = [index for index, other in enumerate(labels) if other == label]
        members = [points[index] for index in chosen]
        pairs = {name: pairs_of(members, [e[index] for index in chosen]) for name, e in found.items()}
        group = dict(zip(by, label[1:], strict=True))
        for quantity in QUANTITIES:
            errors = {name: error(table.get(quantity, [])) for name, table in pairs.items()}
            known = {name: value for name, value in errors.items() if value is not None}
            if "" in known:
                inside = _inside(members, [found[MAIN][index] for index in chosen], quantity, families)
                rows.append(ErrorRow(label[0], group, quantity, known.pop(""), known, inside))
    return rows


def _inside(
    points: Sequence[Measured], found: Sequence[Estimate], quantity: str, families: Mapping[str, str]
) -> float | None:
    """Share of points whose measurement lies in the band around the prediction."""
    hits = []
    for measured, estimate in zip(points, found, strict=True):
        pairs = measured.pairs(estimate) if estimate.status == "ok" and measured.modern else {}
        if quantity in pairs and quantity in BAND_OF:
            low, high = plan_band(measured.point.mode, [families[measured.point.gpu]])[BAND_OF[quantity]]
            theirs, ours = pairs[quantity]
            hits.append(low <= theirs / ours <= high)
    return sum(hits) / len(hits) if hits else None
