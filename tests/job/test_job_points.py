from __future__ import annotations

from pathlib import Path

import pytest

from planner.errors import InputError
from planner.job.points import OUTPUT, parse_points, read_points, write_predictions

HEADER = "id,model,gpu,weights,mode,tp,pp,attention_dp,ep,replicas,concurrency,isl,osl,statistic,measured_thing"


def points(*rows: str) -> list:
    return list(parse_points([HEADER, *rows], "points.csv"))


def test_a_row_becomes_a_point_and_unknown_columns_are_ignored() -> None:
    (point,) = points("a,m,h100-sxm,FP8,aggregated,4,2,1,1,3,96,921.6,100,median,999")
    assert point.problem is None
    assert (point.pool.tp, point.pool.pp, point.pool.workers, point.pool.gpus) == (4, 2, 3, 24)  # 4 * 2 * 3
    assert (point.weights, point.isl, point.statistic) == ("fp8", 921.6, "p50")


def test_empty_layout_columns_mean_one() -> None:
    (point,) = points("a,m,g,,static,,,,,,8,10,10,,")
    assert (point.pool.tp, point.pool.gpus, point.statistic, point.problem) == (1, 1, "mean", None)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,m,g,,aggregated,x,,,,,8,10,10,,", "tp 'x' is not a number"),
        ("a,m,g,,aggregated,1.5,,,,,8,10,10,,", "tp '1.5' is not a whole number"),
        ("a,m,g,,aggregated,,,,,,0,10,10,,", "concurrency is '0'"),
        ("a,m,g,,aggregated,,,,,,8,nan,10,,", "isl is 'nan'"),
        ("a,m,g,,aggregated,,,,,,8,inf,10,,", "isl is 'inf'"),
        ("a,m,g,,aggregated,,,,,,8,10,-1,,", "osl is '-1'"),
        ("a,m,g,,aggregated,,,,,,,10,10,,", "concurrency '' is not a number"),
        ("a,m", "is not a number"),
    ],
)
def test_a_malformed_row_keeps_its_place_and_says_what_is_wrong(row: str, said: str) -> None:
    found = points("first,m,g,,aggregated,,,,,,8,10,10,,", row, "last,m,g,,aggregated,,,,,,8,10,10,,")
    assert [p.id for p in found] == ["first", "a", "last"]
    assert said in str(found[1].problem)
    assert found[0].problem is None and found[2].problem is None


def test_a_row_without_id_is_named_by_its_line() -> None:
    assert points(",m,g,,aggregated,,,,,,8,10,10,,")[0].id == "line 2"


def test_a_file_of_plain_deployments_needs_neither_ids_nor_modes() -> None:
    (point,) = parse_points(["model,gpu,isl,osl,concurrency", "m,g,10,10,8"], "x.csv")
    assert (point.id, point.mode, point.problem) == ("line 2", "aggregated", None)


def test_missing_columns_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column gpu, isl"):
        list(parse_points(["id,model,osl,concurrency"], "x.csv"))
    with pytest.raises(InputError):
        list(parse_points([], "x.csv"))
    binary = tmp_path / "b.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01" * 10)
    for path in (binary, tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(InputError):
            read_points(path)


def test_a_byte_order_mark_of_a_spreadsheet_does_not_hide_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(HEADER + "\na,m,g,,aggregated,,,,,,8,10,10,,\n", encoding="utf-8-sig")
    assert [p.id for p in read_points(path)] == ["a"]


def test_predictions_have_the_stable_columns_and_empty_cells_for_what_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with path.open("w") as stream:
        write_predictions([{"id": "a", "status": "ok", "ttft_ms": 1.5, "other": 3}], stream)
    assert path.read_text() == f"{','.join(OUTPUT)}\na,ok,,1.5,,,,\n"
