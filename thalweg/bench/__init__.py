"""What a step costs: every optimizer beside this machine's ceiling, torch's twin and the installed peers.

In the order of the work: `works` (the tensors), `entrants`, `torchs`, `peers` (who steps), `ceiling` (how fast memory
lets a step be), `turns` (the clock), `rows` (one optimizer on one work), `first_step`, `whole_step`, `changing`,
`benchmark` (all).
"""

from thalweg.bench.benchmark import BUDGETS, BenchBudget, bench
from thalweg.bench.result import BenchResult, BenchRow, ChangingStep, WholeStep

__all__ = ["BUDGETS", "BenchBudget", "BenchResult", "BenchRow", "ChangingStep", "WholeStep", "bench"]
