"""The version of this build, apart from everything else so that any room can read it."""

__version__ = "0.1.0"
