"""Speculative decoding through the command line: search, explain, estimate, replay, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_cases import refused, strict_json

Command = Callable[..., Any]
MODEL = "meta-llama/Llama-3.1-8B"
LOAD = ("--isl", "500", "--osl", "200")


@pytest.fixture
def plan(command: Command, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    ran = command(
        "search", MODEL, "--fleet", "h100-sxm:1", *LOAD, "--concurrency", "2", "--speculate", "eagle", "--top", "2",
        "--out", path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "drafts" in ran.out and "eagle" in ran.out
    return path


def test_a_plan_holds_its_draft_and_widens_its_band_by_the_acceptance(plan: Path) -> None:
    found = json.loads(plan.read_text())
    first = found["plans"][0]
    how = first["pools"][0]["speculation"]
    assert how["method"] == "eagle" and how["tokens"] >= 1 and how["acceptance_band"] == [0.5, 0.8]
    assert 1 < how["tokens_per_step"] <= how["tokens"] + 1
    assert any("--acceptance" in warning for warning in found["search"]["warnings"])
    low, high = first["band"]["output_tok_s"]
    assert high / low > 1.6  # bands of this GPU family alone are narrower
    simulated, predicted = first["simulated"]["tpot_ms"]["mean"], first["predicted"]["tpot_ms"]["mean"]
    assert simulated == pytest.approx(predicted, rel=0.05)


def test_explaining_says_what_drafts_buy_and_where_they_stop(command: Command, plan: Path) -> None:
    found = strict_json(command("explain", plan, "-o", "json").out)
    rows = {row["draft"].split(" (")[0]: row for row in found["drafts"]}
    assert rows["none"]["tokens/step"] == 1 and rows["eagle 1"]["tokens/step"] == 1.72
    used = next(row for name, row in rows.items() if "(in use)" in row["draft"])
    assert used["ms/token"] < rows["none"]["ms/token"]
    text = command("explain", plan).out
    assert "tokens per step at acceptance" in text and "requests per attention rank" in text


def test_replaying_a_plan_runs_its_drafts(command: Command, plan: Path) -> None:
    replayed = strict_json(command("simulate", plan, "--requests", "60", "-o", "json").out)
    predicted = json.loads(plan.read_text())["plans"][0]["predicted"]["tpot_ms"]["mean"]
    assert replayed["simulated"]["tpot_ms"]["mean"] == pytest.approx(predicted, rel=0.1)


def test_exporting_a_head_needs_its_checkpoint(command: Command, plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "files"
    refused(command("export", plan, "--to", "vllm", "--out", out), "EAGLE head", "--draft-model", code=3)
    assert not out.exists()
    assert command("export", plan, "--to", "vllm", "--out", out, "--draft-model", "org/head").code == 0
    assert '"model":"org/head"' in (out / "worker.sh").read_text()


def test_estimating_picks_a_length_or_takes_the_asked_one(command: Command) -> None:
    one = ("estimate", MODEL, "--gpu", "h100-sxm", *LOAD, "--concurrency", "1", "-o", "json")
    plain = strict_json(command(*one).out)
    best = strict_json(command(*one, "--speculate", "eagle").out)
    fixed = strict_json(command(*one, "--speculate", "eagle", "--draft-tokens", "1", "--acceptance", "0.9").out)
    assert "speculation" not in plain
    assert best["tpot_ms"] < plain["tpot_ms"] and best["speculation"]["tokens"] >= 1
    assert fixed["speculation"]["tokens_per_step"] == 1.9 and fixed["speculation"]["acceptance_band"] is None
    assert "draft" in fixed["decode_iteration_ms"]


def test_what_cannot_draft_is_one_line(command: Command) -> None:
    search = ("search", MODEL, "--fleet", "h100-sxm:1", *LOAD)
    refused(command(*search, "--speculate", "mtp"), "no multi-token-prediction layers")
    one = ("estimate", *search[1:2], "--gpu", "h100-sxm", "--isl", "1000", "--osl", "100", "--concurrency", "8")
    refused(command(*one, "--speculate", "mtp"), "no multi-token-prediction layers")  # not: none gives more output
    refused(command(*search, "--speculate", "magic"), "speculation method")
    refused(command(*search, "--acceptance", "0.8"), "--speculate")
    refused(command(*search, "--speculate", "draft:no-such-model"), "unknown model")
    staged = ("estimate", MODEL, "--gpu", "h100-sxm", "--pp", "2", *LOAD, "--concurrency", "1")
    refused(command(*staged, "--speculate", "ngram"), "one pipeline stage")
