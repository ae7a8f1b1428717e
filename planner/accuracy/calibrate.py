"""Fit a user's own measurements: three factors per (model, GPU, engine) by least squares toward the built-in prior.

Minimise sum_i w_i (ln(predicted_i/measured_i)/sigma_i)^2 + sum_j (x_j/(width*sd_j))^2 over x_j = ln(factor_j), with
``sd`` what left-out groups differ from the shared constants by and sigma what remains inside a group. Both are about
10 % in TPOT, so that one result says little about the others of its group: with fewer than three the prior is a quarter
as wide, with three or more as wide as predicts them best when each is left out in turn. A common offset instead of
three factors gains half as much at five results, and hurts as often (benchmarks/score_calibration.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.measured import Measured, measured_point
from planner.accuracy.predict import EngineOf, Predictor, as_shipped
from planner.accuracy.usable import refuse_unusable
from planner.api import Catalogs
from planner.errors import InputError
from planner.job.points import Point
from planner.job.results import Deployment, read_results
from planner.serving.engine import Engine
from planner.serving.profile import ANY, FACTORS, FEW, Calibration, Profile

Vector = NDArray[np.float64]
PRIOR_SD = np.array([0.12, 0.25, 0.5])
"""Standard deviation of ln(kernels), ln(overhead), ln(first_token) over left-out groups."""
WIDTHS = (0.25, 0.6, 1.0)
"""Widths of the prior to choose from, in units of ``PRIOR_SD``; fewer than `FEW` results keep the narrowest."""
SIGMA = {"tpot": 0.10, "output_rate_per_gpu": 0.14, "ttft": 0.40, "e2e": 0.12}
"""Scatter of ln(predicted/measured) inside a group."""
_ROUNDS = 4
_SHIFT = 0.02
_OUTLIER = 2.5  # sigmas from which a point loses weight (Cauchy)
_SHOWN = ("tpot", "output_rate_per_gpu", "e2e")


@dataclass(frozen=True, slots=True)
class _System:
    """Log ratios at the current factors, their scatter, point and derivatives; ``shown`` count in reported errors."""

    residual: Vector
    sigma: Vector
    row: NDArray[np.int64]
    jacobian: Vector
    shown: NDArray[np.bool_]


def calibrate_results(paths: Sequence[Path], deployment: Deployment, catalogs: Catalogs) -> Profile:
    """Read load-test results and fit them. Raises InputError for results that cannot be used."""
    points = [measured_point(point) for path in paths for point in read_results(path, deployment)]
    predictor = Predictor(catalogs)
    for measured, estimate in zip(points, predictor([m.point for m in points]), strict=True):
        refuse_unusable(measured, estimate)
    return calibrate(points, predictor)


def calibrate(points: Sequence[Measured], predictor: Predictor, base: EngineOf = as_shipped) -> Profile:
    """Fit every (model, GPU, engine) of the points, and a common entry for GPUs with several models.

    ``base`` gives the engine profile to start from. Raises InputError for points that cannot be predicted.
    """
    groups: dict[tuple[str, str, str], list[Measured]] = defaultdict(list)
    for measured in points:
        model, gpu = predictor.names(measured.point)
        groups[model, gpu, measured.point.engine or "vllm"].append(measured)
    together: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for (_, gpu, engine), members in groups.items():
        together[gpu, engine] += members
    found = [_fit_group(key, members, predictor, base) for key, members in sorted(groups.items())]
    for (gpu, engine), members in sorted(together.items()):
        if sum(key[1:] == (gpu, engine) for key in groups) > 1:
            found.append(_fit_group((ANY, gpu, engine), members, predictor, base))
    return Profile(tuple(found))


def fit_factors(points: Sequence[Measured], predictor: Predictor, base: EngineOf = as_shipped) -> Vector:
    """ln of the factors (kernels, overhead, first_token) that fit the points best."""
    return _fit(points, predictor, base)[0]


def _fit_group(
    key: tuple[str, str, str], points: Sequence[Measured], predictor: Predictor, base: EngineOf
) -> Calibration:
    x, system, width = _fit(points, predictor, base)
    kernels, overhead, first_token = (float(f"{value:.4g}") for value in np.exp(x))
    before = _mean_error(points, predictor, base)
    after = [
        _mean_error([points[i]], predictor, scaled(base, x + _step(x, system, system.row != i, width)))
        for i in range(len(points))
    ]
    return Calibration(
        *key,
        kernels,
        overhead,
        first_token,
        len(points),
        error_before=round(before, 4),
        error_after=round(fmean(after), 4),
    )


def scaled(base: EngineOf, x: Vector) -> EngineOf:
    """Engine profiles of ``base`` times exp(x)."""
    kernels, overhead, first_token = (float(value) for value in np.exp(x))
    entry = Calibration("", "", "", kernels, overhead, first_token)

    def engine_of(point: Point, engine: Engine) -> Engine:
        return entry.apply(base(point, engine))

    return engine_of


def _fit(points: Sequence[Measured], predictor: Predictor, base: EngineOf) -> tuple[Vector, _System, float]:
    """Factors, the system at them and the width of the prior; the narrowest of widths that do equally well."""
    widths = WIDTHS if len(points) >= FEW else WIDTHS[:1]
    tried = [(*_solve(points, predictor, base, width), width) for width in widths]
    return min(tried, key=lambda found: _left_out_error(*found)) if len(tried) > 1 else tried[0]


def _left_out_error(x: Vector, system: _System, width: float) -> float:
    """Mean error of results that the factors did not see, each left out in turn, to first order."""
    errors = []
    for result in np.unique(system.row):
        own = system.row == result
        moved = _step(x, system, ~own, width)
        log_ratio = (system.residual + system.jacobian @ moved)[own & system.shown]
        errors += np.abs(np.expm1(log_ratio)).tolist()
    return fmean(errors) if errors else 0.0


def _solve(points: Sequence[Measured], predictor: Predictor, base: EngineOf, width: float) -> tuple[Vector, _System]:
    x = np.zeros(len(FACTORS))
    for _ in range(_ROUNDS):
        system = _linearise(points, predictor, base, x)
        x = x + _step(x, system, np.ones(len(system.row), dtype=bool), width)
    return x, system


def _linearise(points: Sequence[Measured], predictor: Predictor, base: EngineOf, x: Vector) -> _System:
    def residuals(at: Vector) -> tuple[Vector, Vector, NDArray[np.int64], NDArray[np.bool_]]:
        found = predictor([m.point for m in points], scaled(base, at))
        values, sigmas, rows, shown = [], [], [], []
        for index, (measured, estimate) in enumerate(zip(points, found, strict=True)):
            if estimate.status != "ok":
                raise InputError(f"result {measured.point.id}: {estimate.reason}")
            for name, (theirs, ours) in measured.pairs(estimate).items():
                values.append(np.log(ours / theirs))
                sigmas.append(SIGMA[name])
                rows.append(index)
                shown.append(name in _SHOWN)
        return np.array(values), np.array(sigmas), np.array(rows, dtype=np.int64), np.array(shown, dtype=bool)

    residual, sigma, row, shown = residuals(x)
    columns = [(residuals(x + _SHIFT * unit)[0] - residual) / _SHIFT for unit in np.eye(len(x))]
    return _System(residual, sigma, row, np.stack(columns, axis=1), shown)


def _step(x: Vector, system: _System, keep: NDArray[np.bool_], width: float) -> Vector:
    """A Newton step of the robust, regularised problem on the kept observations.

    All observations of one result share the weight of about one: they err together.
    """
    r, s, jacobian = system.residual[keep], system.sigma[keep], system.jacobian[keep]
    weight = 1.0 / s**2 / (1.0 + (r / (_OUTLIER * s)) ** 2) / 2.0
    precision = np.diag((width * PRIOR_SD) ** -2.0)
    hessian = jacobian.T @ (weight[:, None] * jacobian) + precision
    return np.asarray(-np.linalg.solve(hessian, jacobian.T @ (weight * r) + precision @ x))


def _mean_error(points: Sequence[Measured], predictor: Predictor, engine_of: EngineOf) -> float:
    """Mean |predicted/measured - 1| of TPOT, throughput and static duration."""
    found = predictor([m.point for m in points], engine_of)
    errors = [
        abs(ours / theirs - 1)
        for measured, estimate in zip(points, found, strict=True)
        if estimate.status == "ok"
        for name, (theirs, ours) in measured.pairs(estimate).items()
        if name in _SHOWN
    ]
    return fmean(errors) if errors else 0.0
