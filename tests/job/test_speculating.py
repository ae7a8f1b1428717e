from __future__ import annotations

import pytest

from planner.errors import InputError, UnknownNameError
from planner.job.points import parse_row
from planner.job.speculating import Speculating, parse_acceptance, parse_speculating


def test_words_become_a_method_rates_and_a_length() -> None:
    assert parse_speculating(None, None, None) is None
    assert parse_speculating("MTP", "80%, 0.7", 2) == Speculating(method="mtp", acceptance=(0.8, 0.7), tokens=2)
    assert parse_speculating("draft:llama-3.1-8b", None, None) == Speculating(method="draft", model="llama-3.1-8b")


@pytest.mark.parametrize("text", ["1.1", "-0.1", "nan", "much", "0.8,", "", "120%"])
def test_rates_that_are_none_are_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match="--acceptance"):
        parse_acceptance(text)


@pytest.mark.parametrize(
    ("method", "rate", "tokens", "said"),
    [
        (None, "0.8", None, "--acceptance says nothing"),
        (None, None, 2, "--draft-tokens says nothing"),
        ("draft", None, None, "needs one"),
        ("draft:", None, None, "needs one"),
        ("mtp:llama", None, None, "only a draft"),
        ("mtp", None, 99, "--draft-tokens 99"),
    ],
)
def test_half_a_wish_is_refused(method: str | None, rate: str | None, tokens: int | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_speculating(method, rate, tokens)


def test_an_unknown_method_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="eagl"):
        parse_speculating("eagl", None, None)


def test_rows_of_a_file_may_draft() -> None:
    row = {"id": "1", "model": "m", "gpu": "g", "mode": "aggregated", "isl": "1", "osl": "1", "concurrency": "1"}
    assert parse_row(row, 2).speculate is None
    drafting = parse_row({**row, "speculate": "eagle", "acceptance": "0.7", "draft_tokens": "3"}, 2)
    assert drafting.speculate == Speculating(method="eagle", acceptance=(0.7,), tokens=3)
    assert "draft_tokens" in str(parse_row({**row, "speculate": "eagle", "draft_tokens": "2.5"}, 2).problem)
    assert "speculation method" in str(parse_row({**row, "speculate": "magic"}, 2).problem)
