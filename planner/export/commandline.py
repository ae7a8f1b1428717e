"""Command lines from flags: as shell text and as container arguments, checked against the pinned flag tables."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from planner.errors import ExportError
from planner.export.flags import Flag, Variable, problems
from planner.export.names import kubernetes_literal

Word = str | Variable
# Where a pod of a LeaderWorkerSet finds what a script takes from its caller.
LWS_VARIABLES: Mapping[str, str] = {"HEAD": "LWS_LEADER_ADDRESS", "NODE_RANK": "LWS_WORKER_INDEX"}


def words_of(engine: str, positional: Sequence[str], flags: Sequence[Flag]) -> list[Word]:
    """Join a command line and check it. Raises ExportError naming the first flag that the engine would not take."""
    words: list[Word] = [*positional, *(word for flag in flags for word in flag.words())]
    wrong = next(problems(engine, words), None)
    if wrong is not None:
        raise ExportError(f"the command line would not start: {wrong}")
    return words


def shell_word(word: Word, names: Mapping[str, str] | None = None) -> str:
    """Quote a word for a POSIX shell; variables are expanded inside double quotes."""
    if isinstance(word, str):
        return shlex.quote(word)
    text = word.text
    for name in ("HEAD", "NODE_RANK", "PORT", "HERE", "START"):
        text = text.replace(f"{{{name}}}", f"${{{(names or {}).get(name, name)}}}")
    return f'"{text}"'


def shell_words(words: Sequence[Word], names: Mapping[str, str] | None = None) -> str:
    """Quote words on one line."""
    return " ".join(shell_word(word, names) for word in words)


def arguments(words: Sequence[Word], values: Mapping[str, str] | None = None) -> list[str]:
    """Words as container arguments: nothing in a plain word is expanded, variables become their ``values``."""
    plain = []
    for word in words:
        if isinstance(word, str):
            plain.append(kubernetes_literal(word))
        else:
            text = word.text
            for name, value in (values or {}).items():
                text = text.replace(f"{{{name}}}", value)
            plain.append(text)
    return plain


def by_node(command: Sequence[str], head: Sequence[Word], worker: Sequence[Word], start: int | None = None) -> str:
    """Shell text of a pod of a LeaderWorkerSet that ends in one of two command lines, by the pod's place.

    The arguments of the shell come first in both. ``start`` times the place is the first data-parallel rank.
    """
    exec_ = f'exec {shell_words(list(command))} "$@"'
    lines = [
        'if [ "${LWS_WORKER_INDEX:-0}" = 0 ]; then',
        f"  {exec_} {shell_words(head, LWS_VARIABLES)}",
        "fi",
    ]
    if start is not None:
        lines.append(f'START="$((LWS_WORKER_INDEX * {start}))"')
    lines.append(f"{exec_} {shell_words(worker, LWS_VARIABLES)}")
    return kubernetes_literal("\n".join(lines) + "\n")
