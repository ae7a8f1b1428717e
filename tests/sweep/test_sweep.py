from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.api import Catalogs
from planner.errors import InputError, UnknownNameError
from planner.serving.profile import Calibration, Profile
from planner.sweep import run
from planner.sweep.journal import journal_path, write_table
from planner.sweep.study import Point, Row, read_study, run_point

STUDY = """
model: llama-3.1-8b
fleet: [l4:2, "h100-sxm:2"]
isl: [500, 1k]
osl: 100
tpot: 60ms
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def here(points: Any, workers: int, catalogs: Catalogs) -> Any:
    """Run points inside this process, which is quick."""
    return (run_point(point, catalogs.folders, None, catalogs.profile) for point in points)


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_a_study_is_all_combinations_the_last_option_fastest(study: Path) -> None:
    found = [(point.options["fleet"], point.options["isl"]) for point in read_study(study)]
    assert found == [("l4:2", 500), ("l4:2", "1k"), ("h100-sxm:2", 500), ("h100-sxm:2", "1k")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [", "not YAML"),
        ("- 1", "mapping"),
        ("model: x", "no fleet"),
        (STUDY + "flet: 1\n", "did you mean"),
        (STUDY + "rate: []\n", "empty list"),
        (STUDY + "rate: [{a: 1}]\n", "neither text nor a number"),
        (STUDY + "draft_tokens: two\n", "draft_tokens: 'two' is no number"),
        (STUDY + "two_batch_overlap: 1\n", "neither true nor false"),
        (STUDY + f"seed: {list(range(2000))}\nconcurrency: {list(range(1, 2000))}\n", "combinations"),
    ],
)
def test_a_study_that_cannot_be_read_is_told_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_study(path)
    assert said in f"{refused.value} {refused.value.hint}"


def test_drafts_and_overlap_are_dimensions_of_a_study(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "model: llama-3.1-8b\nfleet: h100-sxm:2\nisl: 500\nosl: 100\nconcurrency: 2\nspeculate: [null, ngram]\n"
        'acceptance: [null, 60%]\ndraft_tokens: 2\ntp_overlap: [null, 0.8]\ntwo_batch_overlap: [false, true]\n'
    )
    rows = [run_point(point, (), None) for point in read_study(path)]
    said = {(row["speculate"], row["acceptance"]): row for row in rows if not row["tp_overlap"]}
    assert said[None, None]["status"] == "error" and "without --speculate" in said[None, None]["reason"]
    assert said["ngram", "60%"]["pools"].endswith("ngram2")
    assert said["ngram", "60%"]["output_tok_s"] > said["ngram", None]["output_tok_s"]  # 0.25 is assumed
    hidden = next(row for row in rows if row["tp_overlap"] and row["acceptance"] and row["speculate"])
    assert hidden["output_tok_s"] > said["ngram", "60%"]["output_tok_s"]


def test_processes_give_the_rows_of_one_process_in_the_order_of_the_study(
    study: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = command("sweep", study, "--out", tmp_path / "a.csv", "--workers", 2)
    assert ran.code == 0 and "4 points" in ran.err, ran.err
    monkeypatch.setattr(run, "local_rows", here)
    run.run_study(study, tmp_path / "b.csv", "local", 1, False, Catalogs(), lambda *_: None)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    rows = read(tmp_path / "a.csv")
    assert [row["fleet"] for row in rows] == ["l4:2", "l4:2", "h100-sxm:2", "h100-sxm:2"]
    assert rows[3]["status"] == "ok" and float(rows[3]["output_tok_s"]) > 0


def test_a_stopped_run_goes_on_and_loses_no_finished_row(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, asked = tmp_path / "t.csv", []

    def stopped(points: Any, workers: int, catalogs: Catalogs) -> Any:
        for number, point in enumerate(points):
            if number == 2:
                raise KeyboardInterrupt
            yield run_point(point, (), None)

    def counted(points: Any, workers: int, catalogs: Catalogs) -> Any:
        asked.extend(points)
        return here(points, workers, catalogs)

    monkeypatch.setattr(run, "local_rows", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.run_study(study, table, "local", 1, False, Catalogs(), lambda *_: None)
    assert not table.exists()
    with journal_path(table).open("a") as journal:
        journal.write('{"id": "torn')
    monkeypatch.setattr(run, "local_rows", counted)
    said = run.run_study(study, table, "local", 1, False, Catalogs(), lambda *_: None)
    assert len(asked) == 2 and "2 of them from an earlier run" in said and len(read(table)) == 4
    asked.clear()
    run.run_study(study, table, "local", 1, True, Catalogs(), lambda *_: None)
    assert len(asked) == 4  # --fresh
    asked.clear()
    monkeypatch.setattr(run, "__version__", "another")
    run.run_study(study, table, "local", 1, False, Catalogs(), lambda *_: None)
    assert len(asked) == 4  # rows of another build are no answers of this one


def dies_on_l4(point: Point, folders: Any, assume: Any, profile: Any) -> Row:
    """Stand in for a point that takes its process with it."""
    if point.options["fleet"] == "l4:2" and point.options["isl"] == 500:
        os._exit(9)
    return run_point(point, folders, assume)


def test_a_point_that_kills_its_process_is_reported_and_the_others_finish(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run_point", dies_on_l4)
    rows = {row["id"]: row for row in run.local_rows(read_study(study), 2, Catalogs())}
    assert sorted(row["status"] for row in rows.values())[0] == "crashed"
    assert sum(row["status"] == "crashed" for row in rows.values()) == 1 and len(rows) == 4


def test_a_point_without_plan_or_with_a_mistake_is_a_row_too(tmp_path: Path) -> None:
    base = {"model": "llama-3.1-8b", "fleet": "l4:2", "isl": 500, "osl": 100}
    for options, status in (
        ({**base, "tpot": "1ms"}, "no plan"),
        ({**base, "model": "nosuch"}, "error"),
        ({**base, "tpot": 3}, "error"),
        (base, "ok"),
    ):
        row = run_point(Point("x", options), (), None)
        assert row["status"] == status and bool(row["reason"]) == (status != "ok")


def test_a_profile_tunes_every_point_and_starts_a_journal_of_its_own(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Calibration("*", "l4", "vllm", kernels=1.5, overhead=1.5)
    monkeypatch.setattr(run, "local_rows", here)
    rows = []
    for profile in (Profile(), Profile((entry,))):
        run.run_study(study, tmp_path / "t.csv", "local", 1, False, Catalogs(profile=profile), lambda *_: None)
        rows.append([r for r in read(tmp_path / "t.csv") if r["status"] == "ok"])
    for plain, slow in zip(*rows, strict=True):
        factor = float(slow["output_tok_s"]) / float(plain["output_tok_s"])
        assert factor < 0.9 if plain["fleet"] == "l4:2" else factor == 1.0


def test_tables_and_places_that_cannot_be_used_are_told_first(study: Path, tmp_path: Path) -> None:
    for table in (tmp_path / "t.xlsx", tmp_path / "no" / "t.csv"):
        with pytest.raises(InputError, match="--out"):
            run.run_study(study, table, "local", 1, False, Catalogs(), lambda *_: None)
    with pytest.raises(UnknownNameError):
        run.run_study(study, tmp_path / "t.csv", "moon", 1, False, Catalogs(), lambda *_: None)


def test_a_parquet_table_holds_numbers_as_numbers(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"id": "a", "isl": 500, "n": 1.5, "gpus": 8}, {"id": "b", "isl": "1k", "n": None, "gpus": 4}]
    write_table(tmp_path / "t.parquet", ["id", "isl", "n", "gpus"], rows)
    assert parquet.read_table(tmp_path / "t.parquet").to_pylist() == [
        {"id": "a", "isl": "500", "n": 1.5, "gpus": 8},
        {"id": "b", "isl": "1k", "n": None, "gpus": 4},
    ]
