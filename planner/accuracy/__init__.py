"""What this build predicts for published measurements, and how wrong it is: scores, left-out constants, user results."""
