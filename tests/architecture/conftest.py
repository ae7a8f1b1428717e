"""Fixtures of the architecture tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from architecture_data import SHARED


@pytest.fixture(scope="session")
def shared_catalog() -> Path:
    """Return the folder of reference catalogs, or skip where it is absent."""
    folder = SHARED / "catalog"
    if not folder.is_dir():
        pytest.skip("no reference material beside this checkout")
    return folder
