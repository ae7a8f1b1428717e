from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export_cases import PD, plan_file, pool

from planner.errors import InputError
from planner.plan import to_json
from planner.report.bundle import write_bundle

Command = Callable[..., Any]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(to_json(plan_file(*PD)))
    return path


def test_files_are_written_and_named_and_kept_unless_forced(command: Command, saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "deploy"
    ran = command("export", saved, "--to", "vllm", "--out", out, "--check")
    assert ran.code == 0, ran.err
    assert sorted(ran.out.split()) == sorted(str(path) for path in out.iterdir())
    assert os.access(out / "prefill.sh", os.X_OK) and not os.access(out / "README.md", os.X_OK)
    (out / "README.md").write_text("mine")
    again = command("export", saved, "--to", "vllm", "--out", out)
    assert again.code == 2 and "already there" in again.err and "--force" in again.err
    assert (out / "README.md").read_text() == "mine"
    assert command("export", saved, "--to", "vllm", "--out", out, "--force").code == 0
    assert (out / "README.md").read_text() != "mine"


def test_what_a_target_cannot_express_writes_nothing(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(to_json(plan_file(pool("attention"), pool("ffn"))))
    ran = command("export", path, "--to", "dynamo", "--out", tmp_path / "deploy")
    assert ran.code == 3 and "attention and ffn" in ran.err and "hint:" in ran.err
    assert not (tmp_path / "deploy").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--to", "dynamoo"), "did you mean dynamo"),
        (("--to", "vllm", "--plan", "9"), "--plan 9"),
        (("--to", "vllm", "--model", "--x"), "--model"),
    ],
)
def test_bad_requests_are_one_line(command: Command, saved: Path, tmp_path: Path, options: Any, said: str) -> None:
    ran = command("export", saved, "--out", tmp_path / "deploy", *options)
    assert ran.code == 2 and said in ran.err and len(ran.err.splitlines()) <= 2
    assert not (tmp_path / "deploy").exists()


@pytest.mark.parametrize("name", ["../up.sh", "a/b", "/etc/passwd", "..", ""])
def test_nothing_leaves_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a plain file name"):
        write_bundle(tmp_path / "out", {name: "x"}, force=True)
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_folder_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_text("whole")
    (tmp_path / "out" / "a.sh").symlink_to(tmp_path / "victim")
    write_bundle(tmp_path / "out", {"a.sh": "new\n"}, force=True)
    assert (tmp_path / "victim").read_text() == "whole" and (tmp_path / "out" / "a.sh").read_text() == "new\n"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_bundle(tmp_path / "out", {"a": "1", "b": "2"}, force=False)
    assert not (tmp_path / "out").exists()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a").write_text("old")
    calls.clear()
    with pytest.raises(InputError, match="No space left"):
        write_bundle(tmp_path / "kept", {"a": "1", "b": "2"}, force=True)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a"]
    assert (tmp_path / "kept" / "a").read_text() == "old"


def test_a_folder_that_cannot_be_made_or_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "no" / "such", Path("/proc/planner")):
        with pytest.raises(InputError, match="cannot be written"):
            write_bundle(folder, {"a": "1"}, force=False)
