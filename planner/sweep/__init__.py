"""Studies: a grid of searches to one table, on this machine or on a Ray cluster."""
