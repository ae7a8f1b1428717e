"""The command line of a question, without what only says where its answer goes."""

from __future__ import annotations

from collections.abc import Sequence

_TAKES_VALUE = ("--out", "--report", "--save-plan", "--output", "-o")
_ALONE = ("--debug",)


def question(argv: Sequence[str]) -> list[str]:
    """Return ``argv`` without output options, so that the same question is recorded alike wherever it is saved."""
    kept: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "--":
            kept += [word, *rest]
        elif word in _TAKES_VALUE:
            next(rest, None)
        elif word not in _ALONE and not _attached(word):
            kept.append(word)
    return kept


def _attached(word: str) -> bool:
    """Whether an output option carries its value in the same word: ``--out=plan.json``, ``-ojson``."""
    return word.startswith(tuple(f"{name}=" for name in _TAKES_VALUE if name.startswith("--"))) or (
        word.startswith("-o") and len(word) > 2
    )
