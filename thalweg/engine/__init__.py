"""A declared rule becomes fast steps; knows no optimizer.

In the order of the work: `declare` (what a class states), `around` (what surrounds every direction), `ops` (the table
of operations), `trace` (the rule as a graph), `backends` (who runs it), `optimizer` (torch's face).
"""
