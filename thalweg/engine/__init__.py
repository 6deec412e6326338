"""A declared rule becomes fast steps; knows no optimizer.

In the order of the work: `declare` (what a class states), `around` (what surrounds every direction), `ops` (the table
of operations), `trace` (the rule as a graph), `plan` (the graph cut into passes over memory), `formats` and `noise`
(how numbers lie in memory), `backends` (who runs a pass; `compiler`, `openmp` and `user_cache` serve the generated C),
`batch` and `places` (tensors that step together, and whether they are where they were), `steps` (one step), and
`optimizer` (torch's face, with `checkpoint`, `backward`, `memory` and `report`).
"""
