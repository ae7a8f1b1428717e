"""The commands of the documentation run, in the order in which a reader meets them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(\S*)[ ]?(?:file=(\S+))?\n(.*?)^```$", re.M | re.S)


def run_page(page: Path, command: Callable[..., Any]) -> int:
    """Write the files and run the commands of a page in the working folder."""
    ran = 0
    for language, name, text in BLOCK.findall(page.read_text()):
        if name:
            Path(name).write_text(text)
        for line in text.splitlines() if language == "console" else ():
            words = shlex.split(line.removeprefix("$ "))
            assert line.startswith("$ planner ") and words[0] == "planner"
            done = command(*words[1:])
            assert done.code == 0, f"{page.name}: {line}\n{done.err}"
            ran += 1
    return ran


def test_every_command_of_the_tutorial_runs(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(DOCS / "tutorial.md", command) >= 10
    made = {path.name for path in tmp_path.iterdir()}
    assert {"plan.json", "plan.html", "serve", "dynamo", "table.csv"} <= made


@pytest.mark.parametrize("page", sorted((DOCS / "export").glob("*.md")), ids=lambda page: page.stem)
def test_every_command_of_the_export_pages_runs(
    page: Path, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page(page, command) == 2
    assert (tmp_path / page.stem / "README.md").is_file()


def test_every_export_target_has_a_page() -> None:
    from planner.export.export import TARGETS

    assert {page.stem for page in (DOCS / "export").glob("*.md")} == set(TARGETS)


def test_every_function_that_the_formulas_name_exists_and_is_documented() -> None:
    named = re.findall(r"`(planner\.[a-z_.]+)`", (DOCS / "formulas.md").read_text())
    assert len(named) > 12
    for name in named:
        module, _, function = name.rpartition(".")
        assert getattr(import_module(module), function).__doc__, name


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_that_the_readme_names_exists_with_its_options() -> None:
    """Options of the README stand in the help of their command, so that nobody is sent into an error."""
    from typer.main import get_command

    import cli

    root = get_command(cli.app)
    named = re.findall(r"`planner ([a-z]+)([^`]*)`", (DOCS.parent / "README.md").read_text())
    assert len(named) > 12
    for name, rest in named:
        command = root.commands[name]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, f"planner {name}{rest}"

