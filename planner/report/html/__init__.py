"""The report of a search as one HTML file that needs nothing beside it and asks nothing of the network."""

from planner.report.html.page import html_report

__all__ = ["html_report"]
