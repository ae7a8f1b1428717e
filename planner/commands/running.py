"""From the words of a process to its exit code: which command is built, and how every failure ends."""

from __future__ import annotations

import errno
import gc
import os
import sys
from copy import copy
from typing import NoReturn, TextIO

import typer
from typer.exceptions import TyperException

from planner.errors import PlannerError

_INTERRUPTED = 130


def run(app: typer.Typer) -> None:
    """Run the command that ``sys.argv`` names and end the process.

    A failure is one line on stderr, with a hint where there is one, and the documented exit code; 70 is a bug.
    """
    gc.set_threshold(100_000, 20, 20)  # what a command builds it needs to its end: looking often finds no garbage
    try:
        try:
            code = _code(app)
            sys.stdout.flush()
        except OSError as failure:
            if failure.errno != errno.ENOSPC:
                raise
            _mute(sys.stdout)
            code = _fail(f"the answer cannot be written: {failure.strerror}", None, 2)
    except BrokenPipeError:  # the reader has gone: end as SIGPIPE does
        _mute(sys.stdout)
        _mute(sys.stderr)
        code = 141
    _end(code)


def _code(app: typer.Typer) -> int:
    """The exit code of the command, once a failure has been said. Raises OSError where it cannot be said."""
    try:
        code = _with_only(app, sys.argv[1:2])(standalone_mode=False)
        if code == _INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except PlannerError as failure:
        return _fail(str(failure), failure.hint, failure.exit_code)
    except TyperException as failure:
        if type(failure).__name__ == "NoArgsIsHelpError":  # typer keeps the class to itself
            typer.echo(failure.format_message())
            return 0
        message = failure.format_message() if hasattr(failure, "format_message") else str(failure)
        code = getattr(failure, "exit_code", 2)
        return _fail(" ".join(message.split()), "planner --help, planner COMMAND --help", code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", None, _INTERRUPTED)
    except SystemExit as end:  # typer makes a 1 of a reader that has gone, which here means that there is no plan
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise
    except OSError as failure:
        if failure.errno == errno.ENOSPC:
            raise
        return _bug(failure)
    except Exception as failure:
        return _bug(failure)


def _with_only(app: typer.Typer, first: list[str]) -> typer.Typer:
    """The application with no command but the one that the ``first`` word names: building the options of all of them
    takes longer than many a command. All of it where the word names none."""
    asked = [c for c in app.registered_commands if first == [c.name or getattr(c.callback, "__name__", "")]]
    few = copy(app)
    few.registered_commands, few.registered_groups = asked, []
    return few if asked else app


def _bug(failure: Exception) -> int:
    if "--debug" in sys.argv:
        raise failure
    problem = f"a bug in planner: {type(failure).__name__}: {failure}"
    return _fail(problem, "run again with --debug and report the traceback", 70)


def _fail(message: str, hint: str | None, code: int) -> int:
    """Say what is wrong and return the exit code."""
    if "--debug" in sys.argv and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    typer.echo(f"error: {message}", err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)
    return code


def _mute(stream: TextIO) -> None:
    """Send what is still to be written nowhere: a flush at the end would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())


def _end(code: int) -> NoReturn:
    """End the process; a native solver that Ctrl-C left behind would not survive the interpreter's shutdown in
    silence."""
    solvers = sys.modules.get("planner.search.mixture.backends")  # most commands have none
    if solvers is not None:
        solvers.leave(code)
    sys.exit(code)
