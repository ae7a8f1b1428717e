from __future__ import annotations

import pytest

from planner.job.argv import question

ASKED = ["search", "m", "--fleet", "l4:2", "--tpot", "30ms"]


@pytest.mark.parametrize(
    "more",
    [
        [], ["--out", "a.json"], ["--out=b.json", "--report", "r.html"], ["-o", "json"], ["-ojson", "--debug"],
        ["--output=md", "--out", "a.json", "--out", "b.csv"], ["--report=x.html"], ["--out"],
    ],
)  # fmt: skip
def test_where_the_answer_goes_is_no_part_of_the_question(more: list[str]) -> None:
    assert question([*ASKED, *more]) == ASKED


def test_words_behind_two_hyphens_are_kept() -> None:
    assert question(["search", "--", "--out"]) == ["search", "--", "--out"]
