"""How much a few measurements of a group help: error on its other points, before and after calibrating with k of them.

The starting point never saw the group: engine constants fitted without its (model family, GPU).

    python benchmarks/score_calibration.py [--draws 4]
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from planner.accuracy.calibrate import fit_factors, scaled
from planner.accuracy.knobs import turned
from planner.accuracy.left_out import group_name, load_left_out
from planner.accuracy.measured import Measured, shipped_points
from planner.accuracy.predict import EngineOf, Predictor

FEWEST = 8  # points of a group that takes part


def errors(points: list[Measured], predictor: Predictor, engine_of: EngineOf) -> list[float]:
    """|predicted/measured - 1| of TPOT."""
    found = predictor([m.point for m in points], engine_of)
    pairs = [m.pairs(e).get("tpot") for m, e in zip(points, found, strict=True)]
    return [abs(ours / theirs - 1) for theirs, ours in filter(None, pairs)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=4)
    draws = parser.parse_args().draws
    left_out, predictor = load_left_out(), Predictor()
    groups: dict[tuple[str, ...], list[Measured]] = defaultdict(list)
    for measured in shipped_points():
        p = measured.point
        if p.mode == "aggregated":
            groups[measured.family, p.gpu, p.model, p.weights, p.engine].append(measured)
    groups = {key: members for key, members in groups.items() if len(members) >= FEWEST}
    rng = np.random.default_rng(0)
    for k in (1, 3, 5):
        before, after = [], []
        for key, members in groups.items():
            values = left_out.values["model family and GPU"][group_name(key[:2])]
            base: EngineOf = lambda point, engine, v=values: turned(engine, point, left_out.knobs, v)  # noqa: E731
            for _ in range(draws):
                chosen = set(rng.choice(len(members), k, replace=False).tolist())
                others = [m for i, m in enumerate(members) if i not in chosen]
                x = fit_factors([members[i] for i in chosen], predictor, base)
                before.append(np.mean(errors(others, predictor, base)))
                after.append(np.mean(errors(others, predictor, scaled(base, x))))
        was, now = 100 * np.array(before), 100 * np.array(after)
        print(
            f"k {k}: TPOT error of the other points, {len(groups)} groups x {draws} draws: mean {was.mean():.1f} ->"
            f" {now.mean():.1f} %; median {np.median(was):.1f} -> {np.median(now):.1f} %;"
            f" worse by more than 1 point in {100 * np.mean(now > was + 1):.0f} %"
        )


if __name__ == "__main__":
    main()
