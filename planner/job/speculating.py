"""What a user says of speculative decoding: the method, the acceptance, the length of the draft."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from planner.errors import InputError, UnknownNameError

Method = Literal["mtp", "eagle", "ngram", "draft"]
Asked = Literal["mtp", "eagle", "ngram", "draft", "auto"]
LONGEST = 16
ASSUMED = "how many drafted tokens are accepted is assumed by method; measure it and give --acceptance"
_EXAMPLE = "--speculate mtp, eagle, ngram, draft:MODEL or auto"


class Speculating(BaseModel):
    """A wish to draft tokens.

    Attributes
    ----------
    method : what proposes tokens; ``auto`` takes the model's own prediction layers, or n-grams where it has none.
    model : the draft model of method ``draft``.
    acceptance : rate at each position, given that the one before was accepted; the last goes on. Empty: by method.
    tokens : drafted per step, or None to choose the length that serves the objective best, 0 included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Asked
    model: str | None = None
    acceptance: tuple[float, ...] = ()
    tokens: int | None = Field(default=None, ge=0, le=LONGEST)


def parse_speculating(method: str | None, acceptance: str | None, tokens: int | str | None) -> Speculating | None:
    """Read ``--speculate``, ``--acceptance`` and ``--draft-tokens``. Raises InputError naming the option."""
    if isinstance(tokens, str):
        if not tokens.strip().isdigit():
            raise InputError(f"--draft-tokens {tokens}: expected 0 to {LONGEST}")
        tokens = int(tokens)
    if method is None or not method.strip():
        for option, given in (("--acceptance", acceptance), ("--draft-tokens", tokens)):
            if given is not None:
                raise InputError(f"{option} says nothing without --speculate", hint=_EXAMPLE)
        return None
    name, _, model = method.strip().partition(":")
    name = name.lower()
    if name not in get_args(Asked):
        raise UnknownNameError("speculation method", name, get_args(Asked), listing=None)
    if (name == "draft") != bool(model.strip()):
        raise InputError(f"--speculate {method}: only a draft is a model of its own, and it needs one", hint=_EXAMPLE)
    if tokens is not None and not 0 <= tokens <= LONGEST:
        raise InputError(f"--draft-tokens {tokens}: expected 0 to {LONGEST}")
    return Speculating(method=name, model=model.strip() or None, acceptance=parse_acceptance(acceptance), tokens=tokens)


def parse_acceptance(text: str | None) -> tuple[float, ...]:
    """Read ``0.8`` or ``0.8,0.7,0.6``; percent signs are understood. Raises InputError."""
    rates = []
    for part in (text or "").split(","):
        word = part.strip()
        if not word and text is None:
            continue
        try:
            value = float(word.removesuffix("%")) / (100.0 if word.endswith("%") else 1.0)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise InputError(
                f"--acceptance {text}: {word!r} is no rate of 0 to 1", hint="one rate, or one per position: 0.8,0.7,0.6"
            )
        rates.append(value)
    return tuple(rates)
