"""Engine constants that were fitted without one group of measurements, and what they predict for that group."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.accuracy.knobs import Knob, turned
from planner.accuracy.measured import Measured, groups
from planner.accuracy.predict import Predictor
from planner.catalog.files import catalog_root
from planner.serving.estimated import Estimate

GROUPINGS: Mapping[str, tuple[str, ...]] = {
    "model family and GPU": ("family", "gpu"),
    "GPU": ("gpu",),
    "model family": ("family",),
}
"""What is left out at a time."""

FILE = "left_out.json"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Constants by grouping and group, as benchmarks/fit_engines.py wrote them."""

    fitted: str
    rows: int
    knobs: tuple[Knob, ...]
    values: Mapping[str, Mapping[str, Sequence[float]]]

    def predict(self, points: Sequence[Measured], grouping: str, predictor: Predictor) -> list[Estimate]:
        """Predict every point with the constants that never saw its group; in order."""
        members: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, group in enumerate(groups(points, GROUPINGS[grouping])):
            members[group].append(index)
        result: dict[int, Estimate] = {}
        for group, indices in members.items():
            values = self.values[grouping][group_name(group)]
            found = predictor(
                [points[index].point for index in indices],
                lambda point, engine, values=values: turned(engine, point, self.knobs, values),  # type: ignore[misc]
            )
            result.update(zip(indices, found, strict=True))
        return [result[index] for index in range(len(points))]


def group_name(group: tuple[str, ...]) -> str:
    """How the file calls a group."""
    return " on ".join(group)


def load_left_out() -> LeftOut:
    """Read the constants that ship with planner."""
    data = json.loads((catalog_root("validation") / FILE).read_text(encoding="utf-8"))
    knobs = tuple(
        Knob(row["field"], row["prior"], row["sd"], tuple(row["engines"]), row["old"], row["vendor"])
        for row in data["knobs"]
    )
    return LeftOut(data["fitted"], data["rows"], knobs, data["left_out"])
