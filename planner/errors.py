"""The exceptions that users see: each says what is wrong, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHORT_LIST = 12
_LONGEST_LINE = 400
_WORD = 3  # letters from which a name that holds them is worth naming


class PlannerError(Exception):
    """A failure that is reported in one line, with an optional hint, and a process exit code.

    Parameters
    ----------
    message : what is wrong and where, one line.
    hint : what the user can do next, one line, or None.
    """

    exit_code = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(_one_line(message))
        self.hint = _one_line(hint) if hint else None


class InputError(PlannerError):
    """The request, a file or a catalog entry cannot be used as it stands (exit code 2)."""

    exit_code = 2


class UnknownNameError(InputError):
    """A model, GPU, engine or other name that no catalog knows; suggests near names (exit code 2)."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, listing: str | None = None) -> None:
        known = list(known)
        written = {k.lower(): k for k in known}
        asked = name[:_LONGEST_LINE].lower()
        near = [written[k] for k in difflib.get_close_matches(asked, written, n=3, cutoff=0.5)]
        if not near and len(asked) >= _WORD:
            holding = (k for k in written if asked in k)
            near = [written[k] for k in sorted(holding, key=lambda k: (not k.split("/")[-1].startswith(asked), k))[:3]]
        parts = [f"did you mean {', '.join(near)}?"] if near else []
        if listing:
            parts.append(f"list them with: {listing}")
        elif not near and len(known) <= _SHORT_LIST:
            parts.append(f"one of: {', '.join(map(str, known))}")
        super().__init__(f"unknown {kind} {_shorten(name)!r}", hint=" ".join(parts) or None)


class NoPlanError(PlannerError):
    """No plan meets the request (exit code 1); the hint names the nearest miss."""

    exit_code = 1


class ExportError(PlannerError):
    """An exported file fails the schema of its target (exit code 3)."""

    exit_code = 3


def _one_line(text: str) -> str:
    """Collapse control characters and newlines and cut what is endless, so that hostile input cannot break the
    one-line report."""
    return _shorten(" ".join("".join(c if c.isprintable() else " " for c in text).split()), _LONGEST_LINE)


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
