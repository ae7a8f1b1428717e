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
from typer.models import CommandInfo

from planner.errors import InputError, PlannerError

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
        problem = _usage(failure, f"{' '.join(['planner', *_command(app, sys.argv[1:2])])} --help")
        return _fail(str(problem), problem.hint, getattr(failure, "exit_code", 2))
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
    asked = [command for command in app.registered_commands if first == [_name(command)]]
    few = copy(app)
    few.registered_commands, few.registered_groups = asked, []
    return few if asked else app


def _name(command: CommandInfo) -> str:
    return str(command.name or getattr(command.callback, "__name__", ""))


def _command(app: typer.Typer, first: list[str]) -> list[str]:
    """The ``first`` word where it names a command or a group of commands."""
    names = {*map(_name, app.registered_commands), *(group.name for group in app.registered_groups)}
    return [word for word in first if word in names]


def _usage(failure: TyperException, hint: str) -> InputError:
    """What typer refused, in the words of the other refusals."""
    words = getattr(getattr(failure, "param", None), "opts", None)
    if words and type(failure).__name__ == "MissingParameter":
        name = max(words, key=len)
        return InputError(f"{name if name.startswith('-') else name.upper()} is missing", hint=hint)
    if words and failure.__cause__ is not None:
        from pydantic import ValidationError

        from planner.job.invalid import invalid_option

        if isinstance(failure.__cause__, ValidationError):
            return invalid_option(failure.__cause__, max(words, key=len), hint=hint)
    message = failure.format_message() if hasattr(failure, "format_message") else str(failure)
    return InputError(" ".join(message.split()), hint=hint)


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
