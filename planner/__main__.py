"""Entry point of the ``planner`` command and of ``python -m planner``."""

from __future__ import annotations

from importlib import import_module


def main() -> None:
    """Run the command line: ``cli.py``, which a wheel carries inside the package and a checkout beside it."""
    try:
        module = import_module("planner.cli")
    except ModuleNotFoundError as absent:
        if absent.name != "planner.cli":
            raise
        module = import_module("cli")
    module.main()


if __name__ == "__main__":
    main()
