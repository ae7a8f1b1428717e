"""Operators and an accelerator become seconds: pure functions on arrays, no I/O."""
