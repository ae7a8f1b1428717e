"""Fit the engine overheads on whole-engine measurements, and score them on groups that were left out.

Every constant is a physical prior times exp(x), x ~ N(0, sd); most are shared by all engines. Residuals are log ratios
of TPOT, throughput, TTFT and static duration. Left-out scores solve the linearised problem without each group and
predict that group exactly. ``--write`` saves the constants to hardware_catalog/engines, those without each group to
validation/left_out.json, and the error bands of left-out points to validation/bands.toml.

    python benchmarks/fit_engines.py [--write] [--rounds 4]
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from planner.accuracy.knobs import Knob, turned  # noqa: E402
from planner.accuracy.left_out import GROUPINGS, group_name  # noqa: E402
from planner.accuracy.measured import Measured, groups, shipped_points  # noqa: E402
from planner.accuracy.predict import Predictor  # noqa: E402
from planner.accuracy.score import decisions, error, pairs_of  # noqa: E402
from planner.catalog.load import load_hardware  # noqa: E402
from planner.serving.estimated import Estimate  # noqa: E402

Theta = np.ndarray
ROOT = HERE.parent
TRT = ("trtllm", "nim")
CPP = ("trtllm", "lmdeploy-turbomind")
KNOBS = [
    Knob("dense_slowdown", 1.0, 0.15),
    Knob("attention_slowdown", 1.0, 0.15),
    Knob("expert_slowdown", 1.0, 0.15),
    Knob("collective_slowdown", 1.0, 0.15),
    Knob("chunk_slowdown", 1.1, 0.1),
    Knob("chunk_slowdown", 1.1, 0.1, TRT, old=False),
    Knob("collective_wait", 1.5e-6, 0.5, old=False),
    Knob("collective_wait", 3e-6, 0.5, old=True),
    Knob("evenness", 3.0, 0.5),
    Knob("step", 1e-3, 0.5, old=False),
    Knob("sequence", 10e-6, 0.5, old=False),
    Knob("layer_gap", 20e-6, 0.4, old=False),
    Knob("layer_gap", 20e-6, 0.4, old=False, vendor="AMD"),
    Knob("latent_gap", 15e-6, 0.5, old=False),
    Knob("recurrent_gap", 30e-6, 0.5, old=False),
    Knob("sparse_gap", 10e-6, 0.5, old=False),
    Knob("moe_gap", 20e-6, 0.5, old=False),
    Knob("quantise_gap", 2e-6, 0.5, old=False),
    Knob("layer_gap", 40e-6, 0.5, old=True),
    Knob("moe_gap", 20e-6, 0.5, old=True),
    Knob("offset", 20e-3, 0.7, ("vllm",), old=False),
    Knob("offset", 60e-3, 0.7, ("sglang",), old=False),
    Knob("offset", 60e-3, 0.7, TRT, old=False),
    Knob("offset", 20e-3, 0.7, ("atom",), old=False),
    Knob("decode_steps", 2.0, 0.6, ("vllm",), old=False),
    Knob("decode_steps", 8.0, 0.6, ("sglang",), old=False),
    Knob("decode_steps", 2.0, 0.6, ("sglang",), old=False, vendor="AMD"),
    Knob("decode_steps", 2.0, 0.6, TRT, old=False),
    Knob("decode_steps", 2.0, 0.6, ("atom",), old=False),
    Knob("burst_rounds", 8.0, 0.5, old=False),
    Knob("step", 2e-3, 0.6, ("vllm",), old=True),
    Knob("sequence", 40e-6, 0.6, ("vllm",), old=True),
    Knob("step", 0.7e-3, 0.6, CPP, old=True),
    Knob("sequence", 10e-6, 0.5, CPP, old=True),
    Knob("step", 3e-3, 0.6, ("deepspeed-mii",), old=True),
    Knob("sequence", 10e-6, 0.5, ("deepspeed-mii",), old=True),
]
WEIGHT = {"tpot": 1.0, "output_rate_per_gpu": 0.7, "ttft": 0.25, "e2e": 0.7}
SIGMA = 0.12
# Rows of one group err together, so they count as fewer: the data are thinned by a factor against the priors.
THIN = 0.1


def values_of(theta: Theta) -> list[float]:
    """Constants from log multipliers."""
    return [knob.prior * float(np.exp(x)) for knob, x in zip(KNOBS, theta, strict=True)]


def predict(points: Sequence[Measured], theta: Theta, predictor: Predictor) -> list[Estimate]:
    """Predictions of all points with the constants at ``theta``."""
    values = values_of(theta)
    return predictor([m.point for m in points], lambda point, engine: turned(engine, point, KNOBS, values))


def residuals(points: Sequence[Measured], found: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log ratios, their weights, and the row each belongs to; PD is predicted with these constants, never fitted."""
    values, weights, rows = [], [], []
    for index, (measured, guess) in enumerate(zip(points, found, strict=True)):
        if guess.status != "ok" or measured.point.mode not in ("aggregated", "static"):
            continue
        for name, (theirs, ours) in measured.pairs(guess).items():
            values.append(np.log(ours / theirs))
            weights.append(WEIGHT[name])
            rows.append(index)
    return np.array(values), np.array(weights), np.array(rows)


Fitted = tuple[Theta, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def solve(points: Sequence[Measured], predictor: Predictor, rounds: int) -> Fitted:
    """Gauss-Newton with Cauchy weights: theta, residuals, robust weights, Jacobian, rows."""
    theta = np.zeros(len(KNOBS))
    for _ in range(rounds):
        r, w, rows = residuals(points, predict(points, theta, predictor))
        jacobian = np.empty((len(r), len(theta)))
        for k in range(len(theta)):
            shifted = theta.copy()
            shifted[k] += 0.05
            jacobian[:, k] = (residuals(points, predict(points, shifted, predictor))[0] - r) / 0.05
        robust = w**2 / (1 + (r / (2.5 * SIGMA)) ** 2) / SIGMA**2
        theta = theta + step(theta, r, robust, jacobian)
        print(f"  weighted rms {np.sqrt(np.average(r**2, weights=w)):.4f}", file=sys.stderr)
    return theta, r, robust, jacobian, rows


def step(theta: Theta, r: np.ndarray, robust: np.ndarray, jacobian: np.ndarray) -> Theta:
    """One damped Newton step of weighted least squares with Gaussian priors."""
    precision = np.diag([1 / knob.sd**2 for knob in KNOBS])
    hessian = THIN * jacobian.T @ (robust[:, None] * jacobian) + precision
    gradient = THIN * jacobian.T @ (robust * r) + precision @ theta
    return -np.linalg.solve(hessian, gradient)


LeftOutThetas = Mapping[tuple[str, ...], Theta]


def thetas_without(points: Sequence[Measured], fitted: Fitted, columns: tuple[str, ...]) -> LeftOutThetas:
    """Constants from which the rows of each group were removed."""
    theta, r, robust, jacobian, rows = fitted
    labels = groups(points, columns)
    found = {}
    for label in dict.fromkeys(labels):
        keep = np.array([labels[row] != label for row in rows])
        found[label] = theta + step(theta, r[keep], robust[keep], jacobian[keep])
    return found


def predict_left_out(
    points: Sequence[Measured], thetas: LeftOutThetas, columns: tuple[str, ...], predictor: Predictor
) -> list[Estimate]:
    """Predict every group with the constants that never saw it."""
    labels, result = groups(points, columns), {}
    for label, theta in thetas.items():
        indices = [index for index, other in enumerate(labels) if other == label]
        result.update(zip(indices, predict([points[i] for i in indices], theta, predictor), strict=True))
    return [result[i] for i in range(len(points))]


def score(points: Sequence[Measured], found: Sequence[Estimate]) -> str:
    """One line of errors by mode, and the decision quality."""
    parts = []
    for mode in sorted({m.point.mode for m in points}):
        chosen = [i for i, m in enumerate(points) if m.point.mode == mode]
        pairs = pairs_of([points[i] for i in chosen], [found[i] for i in chosen])
        for name in WEIGHT:
            e = error(pairs.get(name, []))
            if e is not None:
                parts.append(f"{mode} {name} {100 * e.mean:.1f}/{100 * e.median:.1f} ({e.count})")
    quality = decisions(points, found)
    return "  " + ", ".join(parts) + f"; decision quality {np.mean(quality):.4f}"


# --- what is written -------------------------------------------------------------------------------------------------

IN_BANDS = 0.8  # share of points
BAND_NAMES = {"output_tok_s": "output_rate_per_gpu", "tpot_ms": "tpot", "ttft_ms": "ttft"}


def bands_text(points: Sequence[Measured], found: Sequence[Estimate], day: str) -> str:
    """Quantiles of measured/predicted of left-out serving points by GPU family; ``other`` spans those of all."""
    families = {gpu: entry.family for gpu, entry in load_hardware().accelerators.items()}
    ratios: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for measured, guess in zip(points, found, strict=True):
        if measured.modern and guess.status == "ok":
            pairs, split = measured.pairs(guess), measured.point.mode != "aggregated"
            key = measured.point.mode if split else families[measured.point.gpu]
            for name, member in BAND_NAMES.items():
                if member in pairs:
                    ratios[key][name].append(pairs[member][0] / pairs[member][1])
    lines = [
        "# Lowest and highest measured/predicted that hold 80 % of serving points, their (model family, GPU) left out",
        "# of the fit, by GPU family; `other`, for families never measured, spans the widest of them;",
        "# deployments of several pools (pd) have a band of their own, whatever the family.",
        f'source = "benchmarks/fit_engines.py on validation/points.csv"\nfitted = "{day}"',
    ]
    spans = {family: {name: span_of(r) for name, r in table.items()} for family, table in sorted(ratios.items())}
    single = [span for key, span in spans.items() if key not in ("pd", "af")]
    other = {name: (min(s[name][0] for s in single), max(s[name][1] for s in single)) for name in BAND_NAMES}
    for family, span in [*spans.items(), ("other", other)]:
        lines.append(f"\n[{family}]")
        if family in ratios:
            lines.append(f"points = {len(ratios[family]['tpot_ms'])}")
        lines += [f"{name} = [{low:.3f}, {high:.3f}]" for name, (low, high) in span.items()]
    return "\n".join(lines) + "\n"


def span_of(ratios: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest of the points that a band holds; as many lie below as above, and an odd one where that makes
    the band shorter.
    """
    ordered = sorted(ratios)
    out = len(ordered) - round(IN_BANDS * len(ordered))
    few = out // 2
    spans = [(ordered[below], ordered[below - out - 1]) for below in {few, out - few}]
    return min(spans, key=lambda span: span[1] / span[0])


def left_out_text(points: Sequence[Measured], thetas: Mapping[str, LeftOutThetas], day: str) -> str:
    """What validation/left_out.json holds."""
    knobs = [
        {"field": k.field, "prior": k.prior, "sd": k.sd, "engines": list(k.engines), "old": k.old, "vendor": k.vendor}
        for k in KNOBS
    ]
    values = {
        name: {group_name(label): [float(f"{v:.4g}") for v in values_of(theta)] for label, theta in table.items()}
        for name, table in thetas.items()
    }
    lines = [f'{{"fitted": "{day}", "source": "benchmarks/fit_engines.py", "rows": {len(points)},', '"knobs": [']
    lines += [",\n".join(json.dumps(knob) for knob in knobs), "],", '"left_out": {']
    tables = [f"{json.dumps(name)}: {{\n{_entries(table)}\n}}" for name, table in values.items()]
    return "\n".join([*lines, ",\n".join(tables), "}}"]) + "\n"


def _entries(table: Mapping[str, list[float]]) -> str:
    return ",\n".join(f"{json.dumps(group)}: {json.dumps(row)}" for group, row in table.items())


SECTIONS = {
    "overhead": (
        "step", "sequence", "layer_gap", "latent_gap", "recurrent_gap", "sparse_gap", "moe_gap", "quantise_gap",
    ),
    "kernels": (
        "dense_slowdown", "attention_slowdown", "expert_slowdown", "collective_slowdown", "chunk_slowdown",
        "collective_wait", "evenness",
    ),
    "first_token": ("offset", "decode_steps", "burst_rounds"),
}  # fmt: skip
KEYS = {"offset": ("offset_ms", 1e3), "evenness": ("expert_evenness", 1.0)}
MICROSECONDS = (*SECTIONS["overhead"], "collective_wait")


def write_constants(theta: Theta) -> None:
    """Put the constants into the engine profiles; the keys must be there."""
    folder = ROOT / "hardware_catalog" / "engines"
    for knob, value in zip(KNOBS, values_of(theta), strict=True):
        section = next(name for name, fields in SECTIONS.items() if knob.field in fields)
        key, scale = KEYS.get(knob.field, (knob.field, 1.0))
        if knob.field in MICROSECONDS:
            key, scale = f"{knob.field}_us", 1e6
        for engine in knob.engines or ("default",):
            path = folder / f"{engine}.toml"
            text = path.read_text(encoding="utf-8")
            header = f"era.{section}" if knob.old and "[[era]]" in text else section
            header = f"vendor.{knob.vendor}.{header}" if knob.vendor else header
            path.write_text(with_value(text, header, key, float(f"{value * scale:.3g}")), encoding="utf-8")


def write_record(record: str) -> None:
    """Put the record of the fit, its last table, into the shared profile."""
    path = ROOT / "hardware_catalog" / "engines" / "default.toml"
    before = path.read_text(encoding="utf-8").split("\n[fit]\n")[0].rstrip("\n")
    path.write_text(f"{before}\n\n{record}", encoding="utf-8")


def record_of(points: Sequence[Measured], found: Sequence[Estimate], used: int, day: str) -> str:
    """When the constants were fitted, on how many points, and their mean error with (model family, GPU) left out."""
    lines = ["[fit]", f'date = "{day}"', f"rows = {used}", 'left_out = "model family and GPU; mean error, %"']
    for mode, names in (("aggregated", ("tpot", "output_rate_per_gpu", "ttft")), ("static", ("e2e",))):
        chosen = [i for i, m in enumerate(points) if m.point.mode == mode]
        pairs = pairs_of([points[i] for i in chosen], [found[i] for i in chosen])
        for name in names:
            e = error(pairs[name])
            if e is not None:
                lines.append(f"{mode}_{name} = {100 * e.mean:.1f}")
    return "\n".join(lines) + "\n"


def with_value(text: str, header: str, key: str, value: float) -> str:
    """TOML text with ``key`` of table ``header`` set; comments and order stay."""
    lines = text.splitlines()
    if f"[{header}]" not in lines:
        return text.rstrip("\n") + f"\n\n[{header}]\n{key} = {value}\n"
    start = lines.index(f"[{header}]") + 1
    end = next((i for i in range(start, len(lines)) if lines[i].startswith("[")), len(lines))
    for i in range(start, end):
        if lines[i].startswith(f"{key} = "):
            lines[i] = re.sub(r"= [0-9.e+-]+", f"= {value}", lines[i], count=1)
            return "\n".join(lines) + "\n"
    lines.insert(start, f"{key} = {value}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="save constants, left-out constants and bands")
    arguments = parser.parse_args()
    points, predictor = shipped_points(), Predictor()
    print("priors alone\n" + score(points, predict(points, np.zeros(len(KNOBS)), predictor)))
    fitted = solve(points, predictor, arguments.rounds)
    for knob, value in zip(KNOBS, values_of(fitted[0]), strict=True):
        print(f"{knob.name:42s} {value:10.3g}   prior {knob.prior:.3g}")
    print("in sample\n" + score(points, predict(points, fitted[0], predictor)))
    thetas = {name: thetas_without(points, fitted, columns) for name, columns in GROUPINGS.items()}
    found = {n: predict_left_out(points, thetas[n], columns, predictor) for n, columns in GROUPINGS.items()}
    for name, estimates in found.items():
        print(f"left out: {name}\n" + score(points, estimates))
    if arguments.write:
        day = datetime.date.today().isoformat()
        write_constants(fitted[0])
        write_record(record_of(points, found["model family and GPU"], len(np.unique(fitted[4])), day))
        (ROOT / "validation" / "left_out.json").write_text(left_out_text(points, thetas, day), encoding="utf-8")
        bands = bands_text(points, found["model family and GPU"], day)
        (ROOT / "validation" / "bands.toml").write_text(bands, encoding="utf-8")


if __name__ == "__main__":
    main()
