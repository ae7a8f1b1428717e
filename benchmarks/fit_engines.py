"""Fit the engine overheads on whole-engine measurements, and score them on groups that were left out.

usage: python benchmarks/fit_engines.py [../shared/measured/e2e_points.csv] [--write]

Every constant is a multiplier exp(x) on a physical prior of the engine profiles, x ~ N(0, sd) with a small sd: shared ones first,
departures of an engine on top with a tighter prior. Residuals are log ratios of TPOT, throughput, TTFT and static duration.
Left-out scores solve the linearised problem without each (model family, GPU) group and predict that group exactly.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from planner.api import Catalogs, replica_of_point
from planner.job.points import Point, read_points, write_predictions
from planner.serving.engine import Engine
from planner.serving.estimate import Estimate, estimate_points
from planner.serving.replica import Replica

Theta = np.ndarray


@dataclass(frozen=True)
class Knob:
    """A constant to fit: field of Engine, which engines and eras it touches (None: all), prior sd of its log."""

    field: str
    sd: float
    engines: tuple[str, ...] | None = None
    old: bool | None = None

    def touches(self, point: Point) -> bool:
        """Whether the knob changes the engine of a point."""
        era = point.mode == "static"
        return (self.engines is None or point.engine in self.engines) and (self.old is None or self.old == era)

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.field} {'/'.join(self.engines or ('all',))}{'' if self.old is None else ' old' if self.old else ' new'}"


KNOBS = [
    Knob("step", 0.5, old=False),
    Knob("sequence", 0.5, old=False),
    Knob("layer_gap", 0.4, old=False),
    Knob("latent_gap", 0.5, old=False),
    Knob("recurrent_gap", 0.5, old=False),
    Knob("sparse_gap", 0.5, old=False),
    Knob("moe_gap", 0.5, old=False),
    Knob("layer_gap", 0.4, old=True),
    Knob("moe_gap", 0.5, old=True),
    Knob("offset", 0.7, ("vllm",), old=False),
    Knob("offset", 0.7, ("sglang",), old=False),
    Knob("offset", 0.7, ("trtllm", "nim"), old=False),
    Knob("offset", 0.7, ("atom",), old=False),
    Knob("decode_steps", 0.5, ("vllm",), old=False),
    Knob("decode_steps", 0.5, ("sglang",), old=False),
    Knob("decode_steps", 0.5, ("trtllm", "nim"), old=False),
    Knob("decode_steps", 0.5, ("atom",), old=False),
    Knob("burst_rounds", 0.5, old=False),
    Knob("step", 0.5, ("vllm",), old=True),
    Knob("sequence", 0.5, ("vllm",), old=True),
    Knob("step", 0.5, ("trtllm", "lmdeploy-turbomind"), old=True),
    Knob("sequence", 0.5, ("trtllm", "lmdeploy-turbomind"), old=True),
    Knob("step", 0.5, ("deepspeed-mii",), old=True),
    Knob("sequence", 0.5, ("deepspeed-mii",), old=True),
]
MODERN = ("inferencex", "aiconfigurator-silicon")
WEIGHT = {"tpot": 1.0, "rate": 0.7, "ttft": 0.25, "e2e": 0.7}
SIGMA = 0.12


def predictor(points: list[Point]) -> Callable[[Theta], list[Estimate]]:
    """Give a function from log multipliers to predictions of all points."""
    cache: dict[tuple[str, ...], Replica] = {}
    catalogs = Catalogs()

    def base(point: Point) -> Replica:
        key = (point.model, point.gpu, point.weights, point.kv, point.engine, point.engine_version, point.date, point.mode)
        if key not in cache:
            cache[key] = replica_of_point(point, catalogs)
        return cache[key]

    def predict(theta: Theta) -> list[Estimate]:
        def adjusted(point: Point) -> Replica:
            replica = base(point)
            engine: Engine = replica.engine
            for knob, x in zip(KNOBS, theta, strict=True):
                if knob.touches(point):
                    engine = replace(engine, **{knob.field: getattr(engine, knob.field) * float(np.exp(x))})
            return replace(replica, engine=engine)

        return estimate_points(points, adjusted)

    return predict


def residuals(points: list[Point], found: list[Estimate]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log ratios, their weights, and the row each belongs to."""
    values, weights, rows = [], [], []
    for index, (point, guess) in enumerate(zip(points, found, strict=True)):
        if guess.status != "ok":
            continue
        pairs = {
            "tpot": (guess.tpot, _ms(point, "tpot_ms")),
            "ttft": (guess.ttft, _ms(point, "ttft_ms")),
            "rate": (guess.output_rate_per_gpu, _number(point, "output_tok_s_per_gpu")),
            "e2e": (guess.e2e, _ms(point, "e2e_latency_ms") if point.mode == "static" else None),
        }
        for name, (ours, theirs) in pairs.items():
            if ours and theirs:
                values.append(np.log(ours / theirs))
                weights.append(WEIGHT[name])
                rows.append(index)
    return np.array(values), np.array(weights), np.array(rows)


def _number(point: Point, column: str) -> float | None:
    text = point.extra.get(column)
    return float(text) if text else None


def _ms(point: Point, column: str) -> float | None:
    value = _number(point, column)
    return None if value is None else value / 1e3


def solve(points: list[Point], predict: Callable[[Theta], list[Estimate]], rounds: int) -> tuple[Theta, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gauss-Newton with Cauchy weights: theta, residuals, robust weights, Jacobian, rows."""
    theta = np.zeros(len(KNOBS))
    for _ in range(rounds):
        r, w, rows = residuals(points, predict(theta))
        jacobian = np.empty((len(r), len(theta)))
        for k in range(len(theta)):
            shifted = theta.copy()
            shifted[k] += 0.05
            jacobian[:, k] = (residuals(points, predict(shifted))[0] - r) / 0.05
        robust = w**2 / (1 + (r / (2.5 * SIGMA)) ** 2) / SIGMA**2
        theta = theta + step(theta, r, robust, jacobian)
        print(f"  weighted rms {np.sqrt(np.average(r**2, weights=w)):.4f}", file=sys.stderr)
    return theta, r, robust, jacobian, rows


def step(theta: Theta, r: np.ndarray, robust: np.ndarray, jacobian: np.ndarray) -> Theta:
    """One damped Newton step of weighted least squares with Gaussian priors."""
    # Rows of one group err together, so they count as fewer: the data are thinned by a factor against the priors.
    thin = 0.1
    precision = np.diag([1 / knob.sd**2 for knob in KNOBS])
    hessian = thin * jacobian.T @ (robust[:, None] * jacobian) + precision
    gradient = thin * jacobian.T @ (robust * r) + precision @ theta
    return -np.linalg.solve(hessian, gradient)


def score(path: Path, points: list[Point], found: list[Estimate], by: str = "") -> str:
    """Run the shared scorer."""
    tool = path.parents[1] / "tools" / "score_estimates.py"
    with TemporaryDirectory() as folder:
        out = Path(folder) / "predictions.csv"
        with out.open("w", newline="") as stream:
            write_predictions([f.row() for f in found], stream)
        command = [sys.executable, str(tool), str(path), str(out), *(["--by", by] if by else [])]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def left_out(points: list[Point], predict: Callable[[Theta], list[Estimate]], fitted: tuple, key: Callable[[Point], object]) -> list[Estimate]:
    """Predict every group with constants from which its rows were removed."""
    theta, r, robust, jacobian, rows = fitted
    members = defaultdict(list)
    for index, point in enumerate(points):
        members[key(point)].append(index)
    result: dict[int, Estimate] = {}
    for indices in members.values():
        keep = ~np.isin(rows, indices)
        other = theta + step(theta, r[keep], robust[keep], jacobian[keep])
        found = predictor([points[i] for i in indices])(other)
        result.update(zip(indices, found, strict=True))
    return [result[i] for i in range(len(points))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("points", nargs="?", default="../shared/measured/e2e_points.csv", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    path = arguments.points.resolve()
    points = read_points(path)
    with path.open(newline="") as stream:
        family = {row["id"]: row["family"] for row in csv.DictReader(stream)}
    predict = predictor(points)
    print("== before\n", score(path, points, predict(np.zeros(len(KNOBS)))))
    fitted = solve(points, predict, arguments.rounds)
    engine = Catalogs().replica("meta-llama/Llama-3.1-8B", "h100-sxm", "bf16", "", "vllm").engine
    for knob, x in zip(KNOBS, fitted[0], strict=True):
        print(f"{knob.name:42s} x {np.exp(x):6.3f}   (prior of vllm {getattr(engine, knob.field):.3g})")
    print("== in sample\n", score(path, points, predict(fitted[0])))
    print("== left out (family, gpu)\n", score(path, points, left_out(points, predict, fitted, lambda p: (family[p.id], p.gpu))))


if __name__ == "__main__":
    main()
