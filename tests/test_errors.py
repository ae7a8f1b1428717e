from __future__ import annotations

from planner.errors import ExportError, InputError, NoPlanError, PlannerError, UnknownNameError


def test_exit_codes_are_those_of_the_command_line_contract() -> None:
    assert [e.exit_code for e in (NoPlanError, InputError, UnknownNameError, ExportError, PlannerError)] == [
        1,
        2,
        2,
        3,
        70,
    ]


def test_a_near_name_is_suggested_whatever_its_case() -> None:
    error = UnknownNameError("GPU", "H100SXM", ["H100-sxm", "mi300x"], listing="planner catalog gpus")
    assert str(error) == "unknown GPU 'H100SXM'"
    assert error.hint == "did you mean H100-sxm? list them with: planner catalog gpus"


def test_names_that_hold_the_word_are_suggested_where_none_is_near() -> None:
    names = ["codellama/CodeLlama-13b-hf", "huggyllama/llama-7b", "qwen/qwen3-8b"]
    assert UnknownNameError("model", "Llama", names).hint == (
        "did you mean huggyllama/llama-7b, codellama/CodeLlama-13b-hf?"
    )


def test_a_short_list_is_shown_when_nothing_is_near() -> None:
    assert UnknownNameError("mode", "zzz", ["aggregated", "pd"]).hint == "one of: aggregated, pd"


def test_hostile_names_stay_on_one_short_line() -> None:
    name = "a\nb\r\x1b[31mred\x00\u202e" + "x" * 10_000
    error = UnknownNameError("model", name, ["llama"])
    assert len(str(error)) < 120
    assert str(error).isprintable()


def test_messages_and_hints_are_one_line_each() -> None:
    error = PlannerError("first\nsecond", hint="third\n\tfourth")
    assert (str(error), error.hint) == ("first second", "third fourth")
