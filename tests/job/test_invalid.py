"""What pydantic refuses is said in our own words: the field, what it is, what it must be."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from planner.errors import InputError
from planner.job.invalid import invalid, invalid_option


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=8)
    share: float = Field(default=1.0, gt=0, le=1, allow_inf_nan=False)


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    parts: list[Part] = Field(min_length=1, max_length=2)
    size: int | None = Field(default=None, ge=1, lt=9)
    form: Literal["round", "square"] | Part = "round"
    table: dict[str, list[float]] = {}
    solid: bool = True

    @model_validator(mode="after")
    def _solid_is_round(self) -> Whole:
        if not self.solid and self.form == "square":
            raise ValueError("hollow squares do not stand")
        return self


GOOD: dict[str, Any] = {"parts": [{"name": "a"}]}


def said(**changes: Any) -> str:
    data = {**GOOD, **changes}
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(data)
    problem = invalid(caught.value, data, "file", hint="so")
    assert isinstance(problem, InputError) and problem.hint == "so"
    return str(problem).removeprefix("file: ")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"parts": []}, "parts is empty"),
        ({"parts": [{"name": n} for n in "abc"]}, "parts is longer than 2"),
        ({"parts": "abc"}, "parts is 'abc'; it must be a list"),
        ({"parts": [7]}, "parts[0] is 7; it must be an object"),
        ({"parts": [{}]}, "parts[0].name is missing"),
        ({"parts": [{"name": ""}]}, "parts[0].name is empty"),
        ({"parts": [{"name": "a" * 9}]}, "parts[0].name is longer than 8"),
        ({"parts": [{"name": None}]}, "parts[0].name is null; it must be text"),
        ({"parts": [{"name": "a", "share": 0}]}, "parts[0].share is 0; it must be above 0"),
        ({"parts": [{"name": "a", "share": 1.5}]}, "parts[0].share is 1.5; it must be at most 1"),
        ({"parts": [{"name": "a", "share": math.nan}]}, "parts[0].share is nan; it must be a finite number"),
        ({"parts": [{"name": "a", "hue": 1}]}, "parts[0].hue is no known key"),
        ({"size": 0}, "size is 0; it must be at least 1"),
        ({"size": 9}, "size is 9; it must be below 9"),
        ({"size": 2.5}, "size is 2.5; it must be a whole number"),
        ({"table": {"a": [True]}}, "table.a[0] is true; it must be a number"),
        ({"table": {"a": {"b": 1}}}, "table.a is an object; it must be a list"),
        ({"solid": "yes"}, "solid is 'yes'; it must be true or false"),
        ({"form": "oval"}, "form is 'oval'; it must be 'round' or 'square' or an object"),
        ({"form": {"name": ""}}, "form.name is empty"),
        ({"form": {"Part": 1, "name": "a"}}, "form.Part is no known key"),
        ({"form": "square", "solid": False}, "hollow squares do not stand"),
        ({"size": 0, "solid": 3}, "size is 0; it must be at least 1 (and 1 more)"),
        ({"parts": [{"name": ""}], "size": 0}, "parts[0].name is empty (and 1 more)"),
    ],
)
def test_every_refusal_names_the_field_the_value_and_what_it_must_be(changes: dict[str, Any], line: str) -> None:
    assert said(**changes) == line


def test_an_option_is_named_as_it_is_typed() -> None:
    class Request(BaseModel):
        draft_tokens: int = Field(ge=1)

    with pytest.raises(ValidationError) as caught:
        Request(draft_tokens=0)
    assert str(invalid_option(caught.value)) == "--draft-tokens is 0; it must be at least 1"
