from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from planner.api import Catalogs, search
from planner.job.parse import parse_job
from planner.plan import PlanFile
from planner.report.html import html_report
from planner.report.html.scatter import Dot, scatter, ticks
from planner.report.plot import braille, memory_bar, pareto_text

SECTIONS = (
    "Throughput against speed", "Ranked plans", "Time by operator", "Memory of the fullest GPU", "Cost by pool",
    "Predicted against simulated", "Rejected candidates", "Provenance",
)  # fmt: skip


@pytest.fixture(scope="module")
def found() -> PlanFile:
    return search(
        parse_job(model="llama-3.1-70b", fleet="h100-sxm:8", isl="2000", osl="300", tpot="50ms", simulate_top=1, top=3)
    )


@pytest.fixture(scope="module")
def page(found: PlanFile) -> str:
    return html_report(found, Catalogs())


class Strict(HTMLParser):
    """Collects tags and what they refer to; fails on tags that close another one."""

    void = frozenset(("meta", "br", "img", "link", "hr", "input"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "xlink:href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_answers_every_question_of_a_reviewer_in_one_file_without_references(page: str) -> None:
    for title in SECTIONS:
        assert f"<h2>{title}</h2>" in page
    parsed = Strict()
    parsed.feed(page)
    assert parsed.open == [] and parsed.links == []
    assert not re.search(r"https?://|url\(|@import", page)
    assert {"svg", "table"} <= parsed.tags and not {"iframe", "img", "link"} & parsed.tags
    assert "prefers-color-scheme:dark" in page and "@media print" in page and "max-width:620px" in page
    assert "80 % band" in page.split("<h2>")[0] and "Plan 1 " in page.split("<h2>")[0]  # the answer stands on top


def test_hostile_names_are_text_and_not_markup(found: PlanFile) -> None:
    bad = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    plan = found.plans[0].model_copy(update={"notes": [bad], "gpus": {bad: 8}})
    hostile = found.model_copy(update={"job": {**found.job, "model": bad}, "plans": [plan]})
    text = html_report(hostile, Catalogs())
    parsed = Strict()
    parsed.feed(text)
    assert "img" not in parsed.tags and text.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in text


def test_what_the_catalogs_do_not_know_is_left_out(found: PlanFile) -> None:
    pool = found.plans[0].pools[0].model_copy(update={"gpu": "unheard-of"})
    strange = found.model_copy(update={"plans": [found.plans[0].model_copy(update={"pools": [pool]})]})
    text = html_report(strange, Catalogs())
    assert "Time by operator" not in text and "Cost by pool" not in text and "Ranked plans" in text


def test_ticks_are_round_and_cover_the_data() -> None:
    assert ticks(0.0, 588.3) == [0, 200, 400, 600]
    for low, high in ((0.0, 0.003), (20.0, 20.0), (1.0, 1e7), (31.3, 32.1)):
        marks = ticks(low, high)
        assert marks[0] <= low and marks[-1] >= high and 2 <= len(marks) <= 9 and marks == sorted(set(marks))


def test_a_chart_of_nothing_is_nothing_and_one_point_is_drawn() -> None:
    assert scatter([], [], "x", "y") == ""
    assert scatter([], [Dot(1.0, 2.0, 0, "one")], "x", "y").count("<circle") == 1


def test_dots_that_would_hide_each_other_move_apart_and_the_frontier_runs_through_the_best_of_all() -> None:
    hidden = [Dot(10.0, 100.0, 0, f"plan {n}", str(n)) for n in range(1, 6)]
    drawn = scatter([Dot(20.0, 50.0, 0, "a"), Dot(5.0, 40.0, 0, "beaten")], hidden, "x", "y")
    centres = [tuple(map(float, c)) for c in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="11"', drawn)]
    assert len(centres) == 5
    for at, one in enumerate(centres):
        assert all(abs(one[1] - other[1]) >= 20 for other in centres[:at])
    assert drawn.count('class="stem"') == 4
    path = re.findall(r'<path class="front" d="M[^"]*"', drawn)
    assert len(path) == 1 and path[0].count("V") == 1  # one step, past the point that another beats


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here")
def test_chromium_draws_it_without_asking_anything_of_the_network(page: str, tmp_path: Path) -> None:
    (tmp_path / "plan.html").write_text(page)
    flags = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
    )  # fmt: skip
    url = (tmp_path / "plan.html").as_uri()
    shot = [f"--screenshot={tmp_path / 'shot.png'}", "--window-size=500,900", url]
    subprocess.run(["chromium", *flags, *shot], capture_output=True, check=True, timeout=60)
    assert (tmp_path / "shot.png").stat().st_size > 10_000
    printed = [f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer", url]
    subprocess.run(["chromium", *flags, *printed], capture_output=True, check=True, timeout=60)
    pages = re.findall(rb"/Type ?/Page\b", (tmp_path / "page.pdf").read_bytes())
    assert 1 <= len(pages) <= 4  # sections flow over page ends instead of leaving pages half empty
    dom = subprocess.run(["chromium", *flags, "--dump-dom", url], capture_output=True, check=True, timeout=60)
    assert "<title>" in dom.stdout.decode() and "</title></g>" not in dom.stdout.decode()  # the script ran


def test_a_report_is_written_beside_the_table_and_a_wrong_place_is_told_first(
    command: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("search", "llama-3.1-8b", "--fleet", "l4:2", "--isl", "500", "--osl", "100", "--no-simulate")
    ran = command(*words, "--report", tmp_path / "plan.html")
    assert ran.code == 0 and (tmp_path / "plan.html").read_text().startswith("<!DOCTYPE html>")
    for place in (tmp_path / "plan.pdf", tmp_path / "no" / "plan.html"):
        refused = command(*words, "--report", place)
        assert refused.code == 2 and refused.out == "" and "--report" in refused.err


def test_braille_puts_the_highest_point_on_top_and_marks_over_dots() -> None:
    lines = braille([(0.0, 0.0), (1.0, 10.0)], {"7": (0.5, 5.0)}, columns=11, rows=3)
    assert len(lines) == 3 and all(len(line) == 11 for line in lines)
    assert lines[0][-1] == chr(0x2800 + 0x08) and lines[2][0] == chr(0x2800 + 0x40) and lines[1][5] == "7"


def test_the_plot_needs_room(found: PlanFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = pareto_text(found)
    assert "1" in text and max(map(len, text.splitlines())) <= 100
    monkeypatch.setenv("COLUMNS", "50")
    assert pareto_text(found) == ""


def test_the_memory_bar_fills_by_share() -> None:
    held = {"weights_gib": 40.0, "kv_gib": 20.0, "activations_gib": 0.0, "capacity_gib": 80.0}
    bar = memory_bar(held, 40)
    assert bar.startswith("  " + "█" * 20 + "▓" * 10 + "░" * 10 + "  ")
