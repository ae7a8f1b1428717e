"""Context parallelism through the command line: search, estimate, replay, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_cases import refused, strict_json

Command = Callable[..., Any]
MODEL = "meta-llama/Llama-3.1-8B"


def test_a_long_prompt_is_planned_simulated_explained_and_exported(command: Command, tmp_path: Path) -> None:
    path, out = tmp_path / "plan.json", tmp_path / "files"
    ran = command(
        "search", MODEL, "--fleet", "h100-sxm:8", "--isl", "100k", "--osl", "100", "--concurrency", "1", "--cp", "4",
        "--objective", "latency", "--top", "1", "--out", path,
    )  # fmt: skip
    assert ran.code == 0 and "cp4" in ran.out, ran.err
    plan = json.loads(path.read_text())["plans"][0]
    layout = plan["pools"][0]["layout"]
    replica = layout["tp"] * layout["pp"] * 4
    assert layout["cp"] == 4 and plan["gpus_total"] == replica * plan["pools"][0]["replicas"]
    assert plan["simulated"]["ttft_ms"]["p50"] == pytest.approx(plan["predicted"]["ttft_ms"]["p50"], rel=0.1)
    assert "context exchange" in command("explain", path).out
    assert command("export", path, "--to", "vllm", "--out", out).code == 0
    script = (out / "worker.sh").read_text()
    assert "--prefill-context-parallel-size 4" in script and "--decode-context-parallel-size 4" in script
    for target in ("sglang", "trtllm"):
        refused(command("export", path, "--to", target, "--out", tmp_path / target), "cannot express", code=3)


def test_an_estimate_and_rows_of_a_file_take_a_width(command: Command, tmp_path: Path) -> None:
    one = ("estimate", MODEL, "--gpu", "h100-sxm", "--isl", "100k", "--osl", "100", "--concurrency", "1", "-o", "json")
    plain, cut = strict_json(command(*one).out), strict_json(command(*one, "--cp", "4").out)
    assert cut["layout"] == "cp4" and cut["ttft_ms"] < 0.5 * plain["ttft_ms"]
    assert cut["memory"]["kv_gib"] == pytest.approx(plain["memory"]["kv_gib"] / 4, rel=0.01)
    rows = tmp_path / "points.csv"
    rows.write_text(
        "id,model,gpu,mode,isl,osl,concurrency,weights,cp,date\n"
        f"a,{MODEL},h100-sxm,aggregated,100000,100,1,bf16,4,\nb,{MODEL},h100-sxm,aggregated,100000,100,1,bf16,,\n"
    )
    found = command("estimate", "--from", rows).out.splitlines()
    assert float(found[1].split(",")[3]) < 0.5 * float(found[2].split(",")[3])


def test_widths_that_are_none_are_refused(command: Command) -> None:
    search = ("search", MODEL, "--fleet", "h100-sxm:8", "--isl", "1000", "--osl", "100")
    for text in ("0", "two", "1,,x", "128", "-2"):
        refused(command(*search, f"--cp={text}"), "--cp")
