"""The bubbles that prompts make in a pipeline, against a chain of stages run one micro-batch at a time."""

from __future__ import annotations

import numpy as np
import pytest

from planner.serving.aggregated import pipeline_pace


def round_seconds(stages: int, riding: float, prompt: float, rounds: int = 4000) -> float:
    """Mean seconds of one round of all micro-batches; a decode takes 1 s and each prompt ``prompt`` more."""
    drawn = np.random.default_rng(0).poisson(riding, (rounds, stages))
    free, lane = [0.0] * stages, [0.0] * stages
    for row in (1 + prompt * drawn) / stages:
        for index, seconds in enumerate(row):
            now = lane[index]
            for stage in range(stages):
                now = free[stage] = max(now, free[stage]) + seconds
            lane[index] = now
    return lane[-1] / rounds


@pytest.mark.parametrize(("stages", "error"), [(2, 0.05), (4, 0.1)])
@pytest.mark.parametrize("riding", [0.02, 0.3, 1.0, 4.0])
def test_a_round_lasts_as_long_as_the_micro_batch_with_most_prompts(stages: int, error: float, riding: float) -> None:
    pace = float(pipeline_pace(np.array([riding]), np.array([float(stages)]))[0])
    predicted = 1 + 10.0 * stages * riding * pace
    assert predicted == pytest.approx(round_seconds(stages, riding, 10.0), rel=error)


def test_a_single_stage_is_delayed_by_every_prompt_and_a_full_pipeline_shares_them() -> None:
    riding, stages = np.array([0.01, 5.0, 1e-5, 500.0]), np.array([1.0, 1.0, 4.0, 4.0])
    pace = pipeline_pace(riding, stages)
    assert pace[:3] == pytest.approx(1.0, abs=1e-3)
    assert 0.25 <= pace[3] < 0.45
