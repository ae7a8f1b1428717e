"""Several fleets side by side: each as given, all together, and each GPU type without limit."""

from planner.comparison.compare import Comparison, compare
from planner.comparison.fleets import FleetOffer, merged, union_of
from planner.comparison.menus import Part
from planner.comparison.solver import Marginal
from planner.comparison.verdict import Entry

__all__ = ["Comparison", "Entry", "FleetOffer", "Marginal", "Part", "compare", "merged", "union_of"]
