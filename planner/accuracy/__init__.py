"""How wrong predictions of published measurements are, left-out constants, and the user's own results."""
