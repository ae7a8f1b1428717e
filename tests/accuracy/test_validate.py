"""What planner validate says of this build: accurate as recorded, honest about it, and what the README repeats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.accuracy.left_out import GROUPINGS
from planner.accuracy.measured import shipped_points, sources
from planner.accuracy.predict import Predictor
from planner.accuracy.score import decisions, error
from planner.accuracy.validate import MAIN, Validation, validate
from planner.api import Catalogs
from planner.catalog.bands import band, band_families
from planner.errors import UnknownNameError
from planner.report.accuracy import validation_text

README = Path(__file__).resolve().parents[2] / "README.md"

# Mean errors of this build in %, in sample and left out; a change that makes one worse by more than a point has to say
# why. A change that makes one better lowers it here.
RECORDED = {
    ("aggregated", "tpot"): (7.4, 8.5),
    ("aggregated", "output_rate_per_gpu"): (7.4, 8.4),
    ("aggregated", "ttft"): (24.5, 26.2),
    ("pd", "tpot"): (13.2, 13.9),
    ("pd", "output_rate_per_gpu"): (22.7, 23.0),
    ("pd", "ttft"): (42.8, 42.5),
    ("static", "tpot"): (25.3, 27.2),
    ("static", "output_rate_per_gpu"): (14.9, 15.4),
    ("static", "ttft"): (18.9, 19.6),
    ("static", "e2e"): (11.3, 11.6),
}
DECISIONS = (0.945, 0.944)


@pytest.fixture(scope="module")
def found() -> Validation:
    return validate()


def test_no_error_is_a_point_above_what_was_recorded(found: Validation) -> None:
    rows = {(row.mode, row.quantity): row for row in found.rows}
    for key, (in_sample, left_out) in RECORDED.items():
        assert 100 * rows[key].in_sample.mean <= in_sample + 1, key
        assert 100 * rows[key].left_out[MAIN].mean <= left_out + 1, key
    assert found.decisions[""] >= DECISIONS[0] - 0.01 and found.decisions[MAIN] >= DECISIONS[1] - 0.01


def test_the_record_is_that_of_this_build(found: Validation) -> None:
    # A record that lags behind improvements lets accuracy fall by more than a point unseen.
    rows = {(row.mode, row.quantity): row for row in found.rows}
    assert rows.keys() == RECORDED.keys()
    for key, (in_sample, left_out) in RECORDED.items():
        assert 100 * rows[key].in_sample.mean >= in_sample - 0.5, key
        assert 100 * rows[key].left_out[MAIN].mean >= left_out - 0.5, key


def test_the_left_out_constants_belong_to_the_constants_that_ship(found: Validation) -> None:
    # A stale left_out.json would make left-out groups look better than the fit. Splits go into no fit.
    for row in found.rows:
        if (row.mode, row.quantity) in RECORDED and row.mode != "pd":
            assert row.in_sample.mean <= row.left_out[MAIN].mean + 0.005


def test_the_band_holds_four_points_of_five_in_every_gpu_family() -> None:
    families = {gpu: entry.family for gpu, entry in Catalogs().hardware.accelerators.items()}
    inside: dict[tuple[str, str], list[float]] = {}
    for row in validate(["gpu"]).rows:
        if row.inside_band is not None and row.mode == "aggregated":
            key = (families[row.group["gpu"]], row.quantity)
            inside.setdefault(key, []).extend([row.inside_band] * row.in_sample.count)
    assert {family for family, _ in inside} == set(band_families())
    for key, shares in inside.items():
        few = len(shares) < 20  # 15 points cannot be cut closer
        assert 0.75 - 0.05 * few <= sum(shares) / len(shares) <= 0.85, key


def test_a_family_never_measured_gets_the_widest_band() -> None:
    for name, (low, high) in band("never-heard-of").items():
        assert all(low <= band(f)[name][0] and band(f)[name][1] <= high for f in band_families())


def test_every_point_names_a_known_source_and_every_grouping_covers_it() -> None:
    known = sources()
    points = shipped_points()
    assert len(points) > 2000 and all(m.point.extra["source"] in known for m in points)
    assert all(m.family and not m.point.problem for m in points)


def test_perfect_predictions_make_no_error_and_only_best_decisions() -> None:
    points = [m for m in shipped_points() if m.point.mode == "aggregated"][:200]
    exact = [
        type(guess)(guess.id, "ok", "", m.ttft, m.tpot, m.output_rate_per_gpu)
        for m, guess in zip(points, Predictor()([m.point for m in points]), strict=True)
    ]
    assert min(decisions(points, exact)) == 1.0
    flawless = error([m.pairs(e)["tpot"] for m, e in zip(points, exact, strict=True)])
    assert flawless is not None and flawless.mean == 0.0 and flawless.within_20 == 1.0


def test_an_error_is_relative_to_the_measurement() -> None:
    e = error([(100.0, 110.0), (100.0, 70.0), (200.0, 200.0)])
    assert e is not None
    assert (e.count, e.mean, e.median, e.bias) == (3, pytest.approx(0.4 / 3), pytest.approx(0.1), 0.0)


def test_columns_to_split_by_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="gpuu"):
        validate(["gpuu"])


def test_json_and_markdown_carry_the_same_figures(found: Validation) -> None:
    data = json.loads(validation_text(found, "json"))
    assert set(data["decisions"]["left_out"]) == set(GROUPINGS)
    tpot = next(row for row in data["errors"] if row["mode"] == "aggregated" and row["quantity"] == "tpot")
    both = f"{100 * tpot['in_sample']['mape']:.1f} / {100 * tpot['in_sample']['median_ape']:.1f}"
    assert f"| serving | TPOT | {tpot['in_sample']['n']} | {both} |" in validation_text(found, "md")


def test_the_readme_repeats_what_validate_prints(found: Validation) -> None:
    text = README.read_text(encoding="utf-8")
    begin, end = "<!-- planner validate -o md -->\n", "<!-- end -->"
    assert text.count(begin) == 1, "run: make accuracy"
    shown = text.split(begin)[1].split(end)[0]
    assert shown.strip() == validation_text(found, "md").strip(), "the README is out of step; run: make accuracy"
