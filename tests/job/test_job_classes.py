"""Mixes of lengths and detailed fleets: nothing is lost by counting, and bad files get one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import InputError
from planner.job.classes import classes_of_trace, read_classes
from planner.job.fleets import OfferSpec, parse_fleet_option
from planner.job.traces import Trace


def bursts(path: Path, rows: list[tuple[int, int]]) -> Path:
    """A trace of (prompt, output) pairs, one a second."""
    lines = [f"{second},m,{prompt},{output}" for second, (prompt, output) in enumerate(rows)]
    path.write_text("Timestamp,Model,Request tokens,Response tokens\n" + "\n".join(lines) + "\n")
    return path


def check_counts(path: Path, per_octave: float = 1.0) -> None:
    rows = list(Trace(path))
    span = rows[-1].arrival - rows[0].arrival
    classes = classes_of_trace(path, per_octave)
    assert sum(c.rate for c in classes) * span == pytest.approx(len(rows))
    assert sum(c.rate * c.isl for c in classes) * span == pytest.approx(sum(r.prompt for r in rows))
    assert sum(c.rate * c.osl for c in classes) * span == pytest.approx(sum(r.output for r in rows))
    assert len({c.name for c in classes}) == len(classes)
    for row in rows:
        inside = [c for c in classes if c.low[0] <= row.prompt < c.high[0] and c.low[1] <= row.output < c.high[1]]
        assert len(inside) == 1, row
    for c in classes:
        assert c.low[0] <= c.isl < c.high[0] and c.low[1] <= c.osl < c.high[1]
        assert c.high[0] / c.low[0] == pytest.approx(2 ** (1 / per_octave))


@given(st.lists(st.tuples(st.integers(1, 100_000), st.integers(1, 5000)), min_size=2, max_size=60))
def test_no_token_is_lost_and_every_request_lies_in_one_bucket(
    tmp_path_factory: Any, rows: list[tuple[int, int]]
) -> None:
    check_counts(bursts(tmp_path_factory.mktemp("trace") / "b.csv", rows))


def test_published_traces_are_counted_without_loss(shared: Path) -> None:
    for name in ("azure_llm_2023_conv_500.csv", "azure_llm_2023_code_500.csv", "mooncake_conversation_300.jsonl"):
        check_counts(shared / "traces" / name)


def test_finer_buckets_keep_their_names_apart(tmp_path: Path) -> None:
    classes = classes_of_trace(bursts(tmp_path / "b.csv", [(1, 1), (3, 1), (5, 1), (6, 1), (7, 2)]), 4.0)
    assert len({c.name for c in classes}) == len(classes) == 5


def test_a_trace_of_one_moment_has_no_rate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rate"):
        classes_of_trace(bursts(tmp_path / "b.csv", [(10, 10)]))


def test_a_workload_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("classes:\n- {name: chat, isl: 500, osl: 200, rate: 10}\n- {isl: 4000, osl: 1, rate: 1.0e-9}\n")
    chat, second = read_classes(path)
    assert (chat.name, chat.isl, chat.osl, chat.rate) == ("chat", 500, 200, 10)
    assert (second.name, second.rate, second.low, second.high) == ("class 2", 1e-9, (4000, 1), (4000, 1))


def row(**changes: object) -> str:
    return json.dumps({"classes": [{"isl": 100, "osl": 10, "rate": 1, **changes}]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (row(rate=0), "rate is 0"),
        (row(rate=-1), "rate"),
        (row(rate=True), "rate"),
        (row(rate="5/s"), "rate"),
        (row(rate=1e300), "rate"),
        (row(isl=0), "isl is 0"),
        (row(osl=0.5), "osl"),
        (row(isl=10**400), "isl"),
        (row(isl=[1, 2]), "isl is a list"),
        (row(name=["x"]), "name is a list"),
        (row(surprise=1), "unknown key 'surprise'"),
        ("classes: [{isl: .nan, osl: 1, rate: 1}]", "isl is nan"),
        ("classes: [{isl: 2001-99-99, osl: 1, rate: 1}]", "month"),
        ("classes: [{osl: 1, rate: 1}]", "isl is None"),
        ("classes: [3]", "not a mapping"),
        ("classes: []", "no classes"),
        ("[]", "no classes"),
        ("", "no classes"),
        ("{", "not YAML"),
        ("[" * 100_000, "not YAML"),
        ("classes: [{name: a, isl: 1, osl: 1, rate: 1}, {name: a, isl: 2, osl: 1, rate: 1}]", "same name"),
        (json.dumps({"classes": [{"isl": 1, "osl": 1, "rate": 1}] * 201}), "at most 200"),
    ],
)
def test_a_bad_workload_file_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_classes(path)
    assert said in str(refused.value) and "\n" not in str(refused.value) and "w.yaml" in str(refused.value)


def test_a_fleet_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "eu.yaml"
    path.write_text("offers:\n- {gpu: h100-sxm, count: 16, usd_per_gpu_hour: 2.5, spot: true, region: eu, node_gpus: 8}"
                    "\n- {gpu: l40s}\n")  # fmt: skip
    fleet = parse_fleet_option(str(path))
    assert fleet.name == "eu"
    assert fleet.offers == (OfferSpec("h100-sxm", 16, 2.5, "eu", True, 8), OfferSpec("l40s", None))
    plain = parse_fleet_option("h100-sxm:8,l40s:2")
    assert [(o.gpu, o.count, o.price) for o in plain.offers] == [("h100-sxm", 8, None), ("l40s", 2, None)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("offers: [{count: 3}]", "no gpu"),
        ("offers: [{gpu: 5}]", "no gpu"),
        ("offers: [{gpu: x, count: -1}]", "count is -1"),
        ("offers: [{gpu: x, count: 1.5}]", "count is 1.5"),
        ("offers: [{gpu: x, count: true}]", "count is True"),
        ("offers: [{gpu: x, node_gpus: 0}]", "node_gpus is 0"),
        ("offers: [{gpu: x, usd_per_gpu_hour: -1}]", "usd_per_gpu_hour is -1"),
        ("offers: [{gpu: x, usd_per_gpu_hour: .inf}]", "usd_per_gpu_hour is inf"),
        ("offers: [{gpu: x, spot: maybe}]", "spot is 'maybe'"),
        ("offers: [{gpu: x, region: [eu]}]", "region is a list"),
        ("offers: [{gpu: x, colour: red}]", "unknown key 'colour'"),
        ("offers: []", "no offers"),
        ("fleet: x", "no offers"),
        ("- 1", "no offers"),
        ("[" * 100_000, "not YAML"),
        ("\x00", "not YAML"),
    ],
)
def test_a_bad_fleet_file_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        parse_fleet_option(str(path))
    assert said in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(InputError, match="cannot be read"):
        parse_fleet_option(str(tmp_path / "absent.yaml"))
