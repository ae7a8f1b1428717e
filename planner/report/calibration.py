"""What a calibration found, and the profile file that keeps it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from planner.report.emit import write_whole
from planner.report.formats import rows_text
from planner.serving.profile import ANY, FEW, Calibration, Profile


def emit_calibration(profile: Profile, output: str, out: Path) -> None:
    """Save the profile, print one row per entry; errors are of TPOT and throughput, after with each point left out."""
    write_whole(out, profile.text())
    rows = [asdict(entry) if output == "json" else _row(entry) for entry in profile.calibrations]
    sys.stdout.write(rows_text(rows, output))
    if any(entry.points < FEW for entry in profile.calibrations):
        sys.stderr.write(f"fewer than {FEW} results hardly tell a difference from noise: their factors stay near 1\n")
    if any(entry.points >= FEW and entry.error_after >= entry.error_before for entry in profile.calibrations):
        sys.stderr.write(
            f"warning: results left out are predicted no better than before: do not use the profile, saved to {out}\n"
        )
    else:
        sys.stderr.write(f"saved to {out}; use it with --profile {out}\n")


_NAMED = 3


def note_profile(path: Path | str, profile: Profile) -> None:
    """Say on stderr that numbers are calibrated, and for what: everything else keeps the built-in constants."""
    named = [
        f"{'any model' if entry.model == ANY else entry.model} on {entry.gpu} with {entry.engine} ({_results(entry)})"
        for entry in profile.calibrations
    ]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    sys.stderr.write(f"calibrated by {path}: {', '.join(named[:_NAMED])}{more}; all else as built in\n")


def _results(entry: Calibration) -> str:
    return f"{entry.points} result{'s' if entry.points != 1 else ''}" if entry.points else "written by hand"


def warn_unused(profile: Profile, model: str, gpus: Iterable[str], engine: str) -> None:
    """Say on stderr which GPUs the profile has nothing for, with this model and engine."""
    without = [gpu for gpu in gpus if profile.calibrations and profile.find(model, gpu, engine) is None]
    if without:
        sys.stderr.write(f"warning: the profile has no entry for {model} on {', '.join(without)} with {engine}\n")


def _row(entry: Calibration) -> dict[str, Any]:
    return {
        "model": entry.model,
        "GPU": entry.gpu,
        "engine": entry.engine,
        "points": entry.points,
        "kernels x": entry.kernels,
        "overhead x": entry.overhead,
        "first token x": entry.first_token,
        "error before %": round(100 * entry.error_before, 1),
        "left-one-out error after %": None if entry.points < 2 else round(100 * entry.error_after, 1),
    }
