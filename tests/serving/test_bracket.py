"""The last load that keeps the limits, against bisection; rows that ask the same, against a plain comparison."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.serving.bracket import last_kept
from planner.serving.layout import distinct

crossings = st.lists(st.floats(1e-3, 0.999), min_size=1, max_size=8)


@given(crossings, st.floats(0.2, 9.0))
def test_a_smooth_margin_is_met_from_the_side_that_keeps_it(where: list[float], power: float) -> None:
    edge = np.array(where)

    def margin(x: np.ndarray) -> np.ndarray:
        return edge**power - x**power

    found = last_kept(margin, np.full_like(edge, 1e-4), np.ones_like(edge))
    assert np.all(margin(found) >= 0)
    assert found == pytest.approx(edge, rel=1e-9)


@given(crossings)
def test_a_jump_is_found_as_well(where: list[float]) -> None:
    edge = np.array(where)
    found = last_kept(lambda x: np.where(x <= edge, 0.3, -10.0), np.full_like(edge, 1e-4), np.ones_like(edge))
    assert np.all(found <= edge)
    assert found == pytest.approx(edge, rel=1e-9)


def test_rows_without_a_limit_stay_at_the_top_and_rows_without_a_load_at_the_bottom() -> None:
    found = last_kept(lambda x: np.array([1.0, -1.0]) + 0.0 * x, np.array([0.1, 0.1]), np.array([5.0, 7.0]))
    assert list(found) == [5.0, 0.1]


def test_it_takes_a_fraction_of_the_evaluations_of_bisection() -> None:
    calls = []

    def margin(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        return 1.0 - 0.02 / (1.0 - x) - x

    last_kept(margin, np.full(5, 1e-4), np.full(5, 0.999))
    assert len(calls) <= 20


def test_rows_that_differ_only_by_rounding_are_evaluated_once() -> None:
    wide = np.array([[0.1, 0.7], [0.3, 0.7], [0.1 * 3 / 3, 0.7 * (1 + 1e-15)]])
    kept, like = distinct(np.array([[8.0], [8.0], [8.0]]), wide)
    assert len(kept) == 2
    assert wide[kept][like] == pytest.approx(wide)
    kept, _ = distinct(np.array([[8.0], [4.0], [2.0]]), wide)
    assert len(kept) == 3
