"""What stands behind ``cli.py``: its options, the catalogs they name, the commands of saved plans and of listings.

A command parses, makes one call into planner and prints. Heavy modules are imported inside the functions, so that
``planner --help`` stays fast.
"""
