from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest
import yaml

from planner.errors import InputError, UnknownNameError
from planner.report.emit import check_formats, write_whole
from planner.report.formats import FORMATS, record_text, rows_text

ROWS = [
    {"name": "a,b|c", "value": 1.5, "note": None, "list": [1, 2]},
    {"name": '[red]"x"[/red] 🦙', "value": 20000.25, "note": "line", "list": []},
]


def test_every_format_keeps_hostile_cells_whole() -> None:
    assert json.loads(rows_text(ROWS, "json")) == ROWS
    assert yaml.safe_load(rows_text(ROWS, "yaml")) == ROWS
    read = list(csv.DictReader(io.StringIO(rows_text(ROWS, "csv"))))
    assert [row["name"] for row in read] == [row["name"] for row in ROWS]
    assert "a,b\\|c" in rows_text(ROWS, "md")
    assert '[red]"x"[/red] 🦙' in rows_text(ROWS, "table")  # markup in a name is text


def test_every_format_ends_with_a_newline_and_takes_no_rows() -> None:
    for form in FORMATS:
        text = rows_text(ROWS, form)
        assert text.endswith("\n") and (form == "table" or not text.endswith("\n\n"))  # a table has a line below
        rows_text([], form)
    assert json.loads(rows_text([], "json")) == []


def test_a_table_aligns_numbers_to_the_right() -> None:
    lines = rows_text([{"n": 1, "t": "x"}, {"n": 1000, "t": "long"}], "table").splitlines()
    ends = [
        line.index(cell) + len(cell) for line, cell in zip(lines[-3:-1], ("1", "1,000"), strict=False) if cell in line
    ]
    assert len(set(ends)) <= 1


@pytest.mark.parametrize("columns", [20, 44, 60, 80, 200])
def test_a_narrow_terminal_folds_words_and_keeps_numbers_whole(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Once the last column was cut off below a hundred columns: 2.073 read 2.07."""
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [{"#": 1, "GPUs": "16 h100-sxm", "TTFT p95 ms": 854.25, "tok/s": 8555.0, "pools": "prefill 7 x tp1 + decode",
             "$/M tok": 2.073}]  # fmt: skip
    lines = rows_text(rows, "table").splitlines()
    for number in ("854.25", "8,555", "2.073"):
        assert any(number in line.split() for line in lines)
    folded = "".join("".join(line.split()) for line in lines)
    assert all(letter in folded for letter in "prefilldecodeGPUs")
    assert max(map(len, lines)) <= max(columns, 42)


def test_a_record_becomes_names_and_values() -> None:
    text = record_text({"id": "x", "nested": {"a": 1, "b": None}}, "csv")
    assert text == 'what,value\nid,x\nnested,"a 1, b -"\n'


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    write_whole(path, "old")
    assert os.stat(path).st_mode & 0o777 == 0o666 & ~_mask()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_formats_are_checked_before_any_work(tmp_path: Path) -> None:
    check_formats("json", [tmp_path / "a.json", tmp_path / "b.md"])
    with pytest.raises(UnknownNameError):
        check_formats("xml", None)
    for bad in (tmp_path / "a.exe", tmp_path / "no" / "a.json", tmp_path):
        with pytest.raises(InputError, match="--out"):
            check_formats("json", [bad])
    with pytest.raises(InputError):
        check_formats("json", [tmp_path / "a.md"], allowed=("json", "csv"))
