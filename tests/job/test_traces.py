"""Trace readers: every layout by its column names, malformed rows counted, wrong files refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.errors import InputError
from planner.job.traces import Trace

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "traces"


def trace(tmp_path: Path, name: str, text: str) -> Trace:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return Trace(path)


def test_mooncake_times_are_milliseconds_and_ids_cover_512_tokens(tmp_path):
    row = {"timestamp": 1500, "input_length": 1000, "output_length": 5, "hash_ids": [7, 8]}
    got = trace(tmp_path, "m.jsonl", json.dumps(row) + "\n")
    assert list(got) == [(1.5, 1000, 5, (7, 8))]
    assert got.hash_tokens == 512


def test_bailian_is_recognised_by_its_chat_columns(tmp_path):
    row = {"chat_id": 1, "parent_chat_id": -1, "timestamp": 1.5, "input_length": 20, "output_length": 5}
    got = trace(tmp_path, "q.jsonl", json.dumps({**row, "type": "text", "turn": 1, "hash_ids": [3, 4]}))
    assert list(got) == [(1.5, 20, 5, (3, 4))]
    assert got.hash_tokens == 16


@pytest.mark.parametrize("stamp", ["2023-11-16 18:17:03.9799600", "2024-05-10 00:00:00.009930+00:00", "12.25"])
def test_azure_reads_dates_with_any_number_of_digits(tmp_path, stamp):
    text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n{stamp},4808,10\n"
    (row,) = trace(tmp_path, "a.csv", text)
    assert row.arrival % 1 == pytest.approx({"03": 0.97996, "00": 0.00993, "": 0.25}[stamp[17:19]], abs=1e-6)
    assert row[1:3] == (4808, 10)


@pytest.mark.parametrize(
    "text",
    [
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,9,1.5,ChatGPT,472,18,490,Conversation log\n",
    ],
)
def test_burstgpt_columns_are_found_by_name(tmp_path, text):
    assert list(trace(tmp_path, "b.csv", "\ufeff" + text)) == [(5.0, 472, 18, ())]


def test_bad_rows_are_counted_and_left_out(tmp_path):
    head = "Timestamp,Model,Request tokens,Response tokens\n"
    body = "1,a,10,5\nx,a,10,5\n2,a,,5\n3,a,10,0\n4,a,10.5,3\n5,a\n6,a,-3,2\n2,a,11,6\nnan,a,1,1\n"
    got = trace(tmp_path, "b.csv", head + body)
    assert [row[:3] for row in got] == [(1.0, 10, 5), (2.0, 11, 6)]
    report = got.report
    assert (report.rows, report.malformed, report.failed, report.unordered) == (2, 6, 1, 0)
    assert "line 3" in str(report)


def test_broken_json_lines_are_counted_and_late_rows_keep_the_order(tmp_path):
    good = '{"timestamp": 2000, "input_length": 3, "output_length": 1}'
    late = '{"timestamp": 1000, "input_length": 4, "output_length": 1}'
    got = trace(tmp_path, "m.jsonl", f"{good}\n{{broken\n[1]\n{late}\n" + '{"timestamp": 1}\n')
    assert [row.arrival for row in got] == [2.0, 2.0]
    assert (got.report.malformed, got.report.unordered) == (3, 1)


def test_it_can_be_read_twice(tmp_path):
    got = trace(tmp_path, "b.csv", "Timestamp,Request tokens,Response tokens\n1,10,5\n")
    assert list(got) == list(got)
    assert got.report.rows == 1


@pytest.mark.parametrize(
    ("name", "text", "missing"),
    [
        ("m.jsonl", '{"timestamp": 1, "input_length": 3}', "output_length"),
        ("a.csv", "TIMESTAMP,ContextTokens\n1,2\n", "GeneratedTokens"),
        ("b.csv", "Timestamp,Model,Response tokens\n1,2,3\n", "Request tokens"),
        ("z.csv", "a,b\n1,2\n", "TIMESTAMP"),
    ],
)
def test_a_wrong_file_is_refused_by_the_missing_column(tmp_path, name, text, missing):
    with pytest.raises(InputError, match=f"no column '{missing}'"):
        trace(tmp_path, name, text)


@pytest.mark.parametrize("text", ["", "\n\n", "{not json\n"])
def test_an_empty_or_broken_file_is_refused(tmp_path, text):
    with pytest.raises(InputError):
        trace(tmp_path, "m.jsonl", text)


def test_a_file_without_a_usable_row_is_refused(tmp_path):
    with pytest.raises(InputError, match="no usable request"):
        list(trace(tmp_path, "b.csv", "Timestamp,Request tokens,Response tokens\n1,10,0\n"))
    with pytest.raises(InputError, match="cannot be read"):
        Trace(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("name", "rows", "first"),
    [
        ("mooncake_conversation_300.jsonl", 300, (6758, 500)),
        ("mooncake_synthetic_300.jsonl", 300, (40160, 6)),
        ("azure_llm_2023_code_500.csv", 500, (4808, 10)),
        ("azure_llm_2023_conv_500.csv", 500, (374, 44)),
        ("burstgpt_format_3.csv", 3, (472, 18)),
    ],
)
def test_published_samples(name, rows, first):
    if not (SAMPLES / name).exists():
        pytest.skip("no trace samples beside the checkout")
    got = Trace(SAMPLES / name)
    out = list(got)
    assert len(out) == rows and out[0][1:3] == first and got.report.malformed == 0
    if name.startswith("mooncake"):
        assert all(len(row.hash_ids) == -(-row.prompt // 512) for row in out)
