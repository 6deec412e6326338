"""What a step costs: every optimizer beside this machine's ceiling, torch's twin and the installed peers.

In the order of the work: `works` (the tensors), `entrants`, `torchs`, `peers` (who steps), `ceiling` (how fast memory
lets a step be), `turns` (the clock), `rows` (one optimizer on one work), `first_step`, `whole_step`, `benchmark` (all).
"""

from thalweg.bench.benchmark import BUDGETS, Budget, bench
from thalweg.bench.result import BenchResult, Row, WholeStep

__all__ = ["BUDGETS", "BenchResult", "Budget", "Row", "WholeStep", "bench"]
