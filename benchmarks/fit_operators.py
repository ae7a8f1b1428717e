"""Fit the operator constants on ../shared/measured/ops, leaving one GPU out at a time; --write saves them.

Per operator, some constants are shared by all families (weak priors) and a few may differ by family
(`Operator.departures`). The pool that an unseen family gets is, constant by constant, the median over the
fitted families and the prior. A GPU left out is scored with its own family's constants if another GPU of
that family was fitted (B200 for GB200), else with the pool.

    python benchmarks/fit_operators.py [--write] [--operators gemm.bf16 decode ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
from scipy.optimize import least_squares

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from operator_rows import OPS, Rows, family, load_rows, predict  # noqa: E402

from planner.cost.efficiency import Efficiency, parse_efficiency  # noqa: E402

PRIORS = HERE / "operator_priors.toml"
FOLDER = HERE.parent / "hardware_catalog" / "efficiencies"
BOUNDED = {"compute": 0.95, "memory": 0.95, "memory_fp8": 0.95, "wave": 0.95, "overlap": 0.9,
           "bandwidth": 0.95, "custom_direct": 0.95, "quantise_memory": 0.95, "own": 1.0}  # fmt: skip
BOUNDED_BELOW = {"in_network": 1.0, "dequantise": 1.0}
WIDTH = {"compute": 0.3, "memory": 0.15, "memory_fp8": 0.15, "exponential": 0.2, "power": 0.15,
         "bandwidth": 0.1, "launch": 0.6, "start": 0.3, "hop": 0.3, "custom_start": 0.6}  # fmt: skip
GEMM = ("compute", "memory", "grain", "depth", "wave", "overlap", "fill", "launch", "power")
MOE = ("compute", "memory", "padding", "grain", "passes", "spread", "overlap", "fill", "launch")
PREFILL = ("compute", "memory", "exponential", "depth", "tail", "overlap", "fill", "launch")
DECODE = ("memory", "memory_fp8", "chunk", "splits", "compute", "overlap", "fill", "launch")
USUAL = ("compute", "memory", "launch")


@dataclasses.dataclass(frozen=True)
class Operator:
    """One block of constants: where it lies, which constants are fitted, which may depart by family."""

    name: str
    path: tuple[str, ...]
    shared: tuple[str, ...]
    departures: tuple[str, ...]
    target: float
    gpus: tuple[str, ...] = ()  # fitted and scored on these only

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.shared + self.departures))


HBM = ("A100-SXM-80GB", "H100-SXM", "B200", "GB200")
MLA = ("H100-SXM", "B200", "GB200")
NCCL = ("start", "hop", "bandwidth", "own", "in_network", "fill")
CUSTOM = ("custom_start", "custom_hop", "custom_direct", "custom_two_phase")
OPERATORS = (
    Operator("gemm.bf16", ("gemm", "bf16"), GEMM, USUAL, 11),
    Operator("gemm.fp8", ("gemm", "fp8"), (*GEMM, "quantise", "quantise_memory"), USUAL, 9),
    Operator("gemm.fp8_block", ("gemm", "fp8_block"), (*GEMM, "quantise", "quantise_memory"), USUAL, 13),
    Operator("gemm.fp4", ("gemm", "fp4"), (*GEMM, "quantise", "quantise_memory"), USUAL, 22),
    Operator("prefill", ("prefill",), PREFILL, (*USUAL, "exponential"), 17),
    Operator("decode", ("decode",), (*DECODE, "wide"), USUAL, 16),
    Operator("latent_prefill", ("latent_prefill",), PREFILL, USUAL, 13, MLA),
    Operator("latent_decode", ("latent_decode",), DECODE, USUAL, 14, MLA),
    Operator("moe.bf16", ("moe", "bf16"), MOE, USUAL, 18),
    Operator("moe.fp8", ("moe", "fp8"), MOE, USUAL, 18),
    Operator("moe.fp8_block", ("moe", "fp8_block"), MOE, USUAL, 18),
    Operator("moe.fp4", ("moe", "fp4"), MOE, USUAL, 18),
    Operator("moe.fp4_latency", ("moe", "fp4_latency"), MOE, USUAL, 18),
    Operator("moe.fp8_w4", ("moe", "fp8_w4"), MOE, USUAL, 18),
    Operator("collective", ("collective",), NCCL, ("start", "hop"), 12, HBM),
    Operator("custom", ("collective",), CUSTOM, ("custom_start",), 17, HBM),
)

Values = dict[str, float]


def constants_of(efficiency: Efficiency, path: Sequence[str]) -> Any:
    """The block of constants at ``path``."""
    block = getattr(efficiency, path[0])
    return block[path[1]] if len(path) == 2 else block


def with_constants(efficiency: Efficiency, path: Sequence[str], values: Values) -> Efficiency:
    """``efficiency`` with the constants at ``path`` replaced, clipped to their meaning."""
    clipped = {name: min(value, BOUNDED.get(name, np.inf)) for name, value in values.items()}
    clipped = {name: max(value, BOUNDED_BELOW.get(name, 0.0)) for name, value in clipped.items()}
    block = dataclasses.replace(constants_of(efficiency, path), **clipped)
    if len(path) == 2:
        block = {**getattr(efficiency, path[0]), path[1]: block}
    return dataclasses.replace(efficiency, **{path[0]: block})


@dataclasses.dataclass(frozen=True)
class Fit:
    """Result for one operator: pool values and departures by family."""

    operator: Operator
    pool: Values
    families: dict[str, Values]
    rows: int = 0  # measurements scored; at most 600 of each GPU are fitted

    def apply(self, base: Efficiency, name: str) -> Efficiency:
        """Constants for family ``name``; the pool for one that was not fitted."""
        return with_constants(base, self.operator.path, {**self.pool, **self.families.get(name, {})})


def fit(operator: Operator, rows: dict[str, Rows], base: Efficiency, sample: int = 600) -> Fit:
    """Robust regularised least squares on log(predicted/measured), every family weighing the same."""
    prior = constants_of(base, operator.path)
    shared = [name for name in operator.names if name not in operator.departures]
    families = sorted({family(gpu) for gpu in rows})
    keys = [("", name) for name in shared] + [(f, name) for f in families for name in operator.departures]
    start = np.log([getattr(prior, name) for _, name in keys])
    width = np.array([WIDTH.get(name, 0.5) for _, name in keys])
    small = {gpu: table.sample(sample) for gpu, table in rows.items()}
    crowd = {f: sum(family(gpu) == f for gpu in rows) for f in families}

    def values(x: np.ndarray, name: str) -> Values:
        return {n: float(np.exp(v)) for (f, n), v in zip(keys, x, strict=True) if f in ("", name)}

    def residual(x: np.ndarray) -> np.ndarray:
        parts = []
        for gpu, table in small.items():
            name = family(gpu)
            seconds = predict(table, gpu, with_constants(base, operator.path, values(x, name)))
            error = np.log(seconds / table.seconds)
            error *= np.sqrt(1000 / len(error) / len(families) / crowd[name])
            parts.append(np.sign(error) * np.sqrt(2 * (np.sqrt(1 + (error / 0.05) ** 2) - 1)))
        return np.concatenate([*parts, 1.5 * (x - start) / width])

    x = least_squares(residual, start, max_nfev=25, diff_step=1e-3).x
    solved = {f: values(x, f) for f in families}
    pool = {n: solved[families[0]][n] for n in shared}
    for name in operator.departures:
        candidates = [solved[f][name] for f in families] + [getattr(prior, name)]
        pool[name] = float(np.exp(np.median(np.log(candidates))))
    return Fit(operator, pool, {f: {n: solved[f][n] for n in operator.departures} for f in families})


def error(table: Rows, gpu: str, efficiency: Efficiency) -> float:
    """Mean absolute percentage error on one GPU."""
    return float(np.mean(np.abs(predict(table, gpu, efficiency) / table.seconds - 1)) * 100)


def leave_one_out(operator: Operator, rows: dict[str, Rows], base: Efficiency) -> dict[str, float]:
    """Error on each GPU with constants fitted without it."""
    result = {}
    for gpu, table in rows.items():
        others = {other: t for other, t in rows.items() if other != gpu}
        fitted = fit(operator, others, base).apply(base, family(gpu)) if others else base
        result[gpu] = error(table, gpu, fitted)
    return result


def show(operator: Operator, out: dict[str, float], inside: dict[str, float]) -> str:
    """One line of the table."""
    values = list(out.values())
    middle = float(np.median(values))
    worst = max(out, key=lambda gpu: out[gpu])
    mark = "ok " if middle <= operator.target else "MISS"
    detail = " ".join(f"{gpu.split('-')[0]} {out[gpu]:.1f}" for gpu in sorted(out))
    return (
        f"{operator.name:15s} {middle:6.1f} {np.mean(values):6.1f} {out[worst]:6.1f} {worst.split('-')[0]:6s}"
        f" {np.median(list(inside.values())):6.1f} {operator.target:4.0f} {mark:4s}  {detail}"
    )


def run(names: Sequence[str], base: Efficiency, echo: Callable[[str], None] = print) -> list[tuple[Fit, float]]:
    """Fit every operator, print the table, return the fits with their error left out."""
    echo(f"{'operator':15s} {'median':>6s} {'mean':>6s} {'worst':>6s} {'':6s} {'in':>6s} goal       by GPU, left out")
    fits = []
    current = base
    for operator in OPERATORS:
        if names and operator.name not in names:
            continue
        rows = load_rows(operator.name)
        rows = {gpu: table for gpu, table in rows.items() if not operator.gpus or gpu in operator.gpus}
        out = leave_one_out(operator, rows, current)
        fitted = fit(operator, rows, current)
        inside = {gpu: error(t, gpu, fitted.apply(current, family(gpu))) for gpu, t in rows.items()}
        echo(show(operator, out, inside))
        fitted = dataclasses.replace(fitted, rows=sum(len(table.seconds) for table in rows.values()))
        fits.append((fitted, float(np.median(list(out.values())))))
        current = fitted.apply(current, "")
    return fits


def render(tables: dict[tuple[str, ...], Values], head: Sequence[str]) -> str:
    """TOML text of a profile: four significant digits, deterministic order."""
    lines = list(head)
    for path in sorted(tables):
        lines += ["", f"[{'.'.join(path)}]"]
        lines += [f"{name} = {float(f'{value:.4g}')!r}" for name, value in tables[path].items()]
    return "\n".join(lines) + "\n"


def write(fits: Sequence[tuple[Fit, float]], base: Efficiency) -> None:
    """Save the pool and the departures of each family."""
    pool = base
    for fitted, _ in fits:
        pool = fitted.apply(pool, "")
    tables: dict[tuple[str, ...], Values] = {}
    for field in dataclasses.fields(pool):
        block = getattr(pool, field.name)
        if isinstance(block, dict):
            tables |= {(field.name, math): dataclasses.asdict(c) for math, c in block.items()}
        elif dataclasses.is_dataclass(block):
            tables[(field.name,)] = dataclasses.asdict(block)  # type: ignore[arg-type]
    day = datetime.date.today().isoformat()
    source = 'source = "benchmarks/fit_operators.py on measured/ops (aiconfigurator-core 0.12.0, Vidur, apex_plus)"'
    errors = ", ".join(f"{f.operator.name} {e:.1f}" for f, e in fits)
    rows = ", ".join(f"{f.operator.name} {f.rows}" for f, _ in fits)
    head = ["# Shared by all accelerator families. Meaning and unit of each constant: planner/cost/efficiency.py.",
            "# Constants by family: the median over fitted families and the prior.",
            f"# Left-out error, % (median over GPUs): {errors}.",
            f"# Rows, of which at most 600 of a GPU are fitted: {rows}.",
            'basis = "modelled"', source, f'fitted = "{day}"']  # fmt: skip
    (FOLDER / "pool.toml").write_text(render(tables, head), encoding="utf-8")
    for name in sorted({f for fitted, _ in fits for f in fitted.families}):
        parts: dict[tuple[str, ...], Values] = {}
        for fitted, _ in fits:
            block = constants_of(fitted.apply(base, name), fitted.operator.path)
            for key in fitted.families.get(name, ()):
                parts.setdefault(fitted.operator.path, {})[key] = getattr(block, key)
        gpus = sorted(gpu for gpu in ("A100-SXM-80GB", "B200", "GB200", "H100-SXM", "L40S") if family(gpu) == name)
        head = [f"# Departures of {name} from pool.toml, fitted on {', '.join(gpus)}.",
                'basis = "calibrated"', source, f'fitted = "{day}"']  # fmt: skip
        (FOLDER / f"{name}.toml").write_text(render(parts, head), encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="save the constants to hardware_catalog/efficiencies")
    parser.add_argument("--operators", nargs="*", default=[], choices=[o.name for o in OPERATORS])
    arguments = parser.parse_args()
    if not OPS.is_dir():
        sys.exit(f"no measurements in {OPS}")
    base = parse_efficiency("prior", tomllib.loads(PRIORS.read_text(encoding="utf-8")))
    fits = run(arguments.operators, base)
    if arguments.write:
        write(fits, base)


if __name__ == "__main__":
    main()
