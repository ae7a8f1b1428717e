"""From the words of a process to its exit code: which command is built, and how every failure ends."""

from __future__ import annotations

import gc
import sys
from copy import copy

import typer
from typer.exceptions import TyperException

from planner.errors import PlannerError


def run(app: typer.Typer) -> None:
    """Run the command that ``sys.argv`` names and end the process.

    A failure is one line on stderr, with a hint where there is one, and the documented exit code; 70 is a bug.
    """
    gc.set_threshold(100_000, 20, 20)  # what a command builds it needs to its end: looking often finds no garbage
    try:
        code = _with_only(app, sys.argv[1:2])(standalone_mode=False)
    except PlannerError as failure:
        _fail(str(failure), failure.hint, failure.exit_code)
    except TyperException as failure:
        if type(failure).__name__ == "NoArgsIsHelpError":  # typer keeps the class to itself
            typer.echo(failure.format_message())
            sys.exit(0)
        message = failure.format_message() if hasattr(failure, "format_message") else str(failure)
        _fail(" ".join(message.split()), "planner --help, planner COMMAND --help", getattr(failure, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", None, 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as failure:
        if "--debug" in sys.argv:
            raise
        problem = f"a bug in planner: {type(failure).__name__}: {failure}"
        _fail(problem, "run again with --debug and report the traceback", 70)
    sys.exit(code if isinstance(code, int) else 0)


def leave(code: int) -> None:
    """End a command with ``code``; a solver thread that Ctrl-C left behind must not outlive the output."""
    from planner.search.mixture.backends import leave as leave_solvers

    leave_solvers(code)
    raise typer.Exit(code)


def _with_only(app: typer.Typer, first: list[str]) -> typer.Typer:
    """The application with no command but the one that the ``first`` word names: building the options of all of them
    takes longer than many a command. All of it where the word names none."""
    asked = [c for c in app.registered_commands if first == [c.name or getattr(c.callback, "__name__", "")]]
    few = copy(app)
    few.registered_commands, few.registered_groups = asked, []
    return few if asked else app


def _fail(message: str, hint: str | None, code: int) -> None:
    if "--debug" in sys.argv and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    typer.echo(f"error: {message}", err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)
    sys.exit(code)
