"""Several files into one folder: all of them or none, nothing outside it, nothing replaced unasked."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.errors import InputError


def emit_bundle(folder: Path, files: Mapping[str, str], *, force: bool, notes: Sequence[str] = ()) -> None:
    """Write ``files`` and say so: names on stdout, notes on stderr. Raises InputError."""
    write_bundle(folder, files, force=force)
    sys.stdout.write("".join(f"{folder / name}\n" for name in files))
    sys.stderr.write("".join(f"note: {note}\n" for note in notes))


def write_bundle(folder: Path, files: Mapping[str, str], *, force: bool) -> None:
    """Write ``files`` into ``folder``, which is made if absent.

    All files are written beside each other first and moved in place at the end, so that a full disk leaves the folder
    as it was. Raises InputError for a name that is not a plain file name, for files that exist (unless ``force``) and
    for a folder that cannot be written.
    """
    for name in files:
        if name != Path(name).name or name in ("", ".", ".."):
            raise InputError(f"{name!r} is not a plain file name")
    taken = [name for name in files if os.path.lexists(folder / name)]
    if taken and not force:
        raise InputError(f"--out {folder}: {', '.join(taken)} already there", hint="--force replaces what is there")
    blocked = [name for name in taken if (folder / name).is_dir() and not (folder / name).is_symlink()]
    if blocked:
        raise InputError(f"--out {folder}: {blocked[0]} is a folder")
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        _write_through(folder, files)
    except OSError as problem:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise InputError(f"--out {folder}: cannot be written: {problem.strerror}") from None


def _write_through(folder: Path, files: Mapping[str, str]) -> None:
    staging = Path(tempfile.mkdtemp(dir=folder, prefix=".planner-"))
    try:
        for name, text in files.items():
            with (staging / name).open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            if name.endswith(".sh"):
                (staging / name).chmod((staging / name).stat().st_mode | 0o111 & ~_umask())
        for name in files:
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
