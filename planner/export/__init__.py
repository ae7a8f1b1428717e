"""Plan -> files: one module a target, pure functions, nothing written here."""
