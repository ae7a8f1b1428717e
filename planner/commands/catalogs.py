"""The catalogs that the options of a command name, and a line on stderr for whatever calibrates their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.api import Catalogs
    from planner.plan import PlanFile


def catalogs_of(folders: Sequence[Path] | None, assume: str | None = None, profile: Path | None = None) -> Catalogs:
    """The built-in catalogs under the ``folders`` of the user; notes the profile. Raises InputError."""
    from planner.api import NO_PROFILE, Catalogs
    from planner.report.calibration import note_profile
    from planner.serving.profile import read_profile

    if profile is None:
        return Catalogs(tuple(folders or ()), assume, NO_PROFILE)
    tuned = read_profile(profile)
    note_profile(profile, tuned)
    return Catalogs(tuple(folders or ()), assume, tuned)


def catalogs_of_plan(
    file: PlanFile, folders: Sequence[Path] | None, assume: str | None, profile: Path | None
) -> Catalogs:
    """The catalogs as a saved plan was made with them, unless another profile is given. Raises InputError."""
    from planner.report.calibration import note_profile

    catalogs = catalogs_of(folders, assume, profile)
    if profile is None and file.provenance.calibrations:
        catalogs = catalogs.of_plan(file)
        note_profile("the profile of the plan", catalogs.profile)
    return catalogs
