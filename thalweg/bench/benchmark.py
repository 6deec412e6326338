"""All of it: which cases there are, and running them one after the other."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterable, Sequence

import torch

from thalweg._base.errors import ThalwegError, bad_argument, unknown_name
from thalweg.bench import ceiling, entrants, peers, rows, torchs, works
from thalweg.bench.changing import SITUATIONS, changing_step
from thalweg.bench.first_step import first_steps
from thalweg.bench.machine import machine
from thalweg.bench.result import BenchResult, BenchRow, ChangingStep, WholeStep
from thalweg.bench.rows import BenchCase
from thalweg.bench.turns import reason
from thalweg.bench.whole_step import whole_step
from thalweg.bench.works import Work

DEVICES = ("cpu", "cuda")
DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class BenchBudget:
    """How much is measured.

    Attributes:
        seconds: how long each optimizer of a row steps.
        least, most: bounds on the number of its steps.
        slow: works on which ``eager`` and ``foreach`` run where nobody asks for a backend.
        peers: works on which installed peers run where nobody asks for them.
        compiled: whether peers that compile for minutes run, torch.compile among them.
        variants: works of the further rows of AdamW: clipping, states, low precision.
        first: works whose first step is timed.
        everyone: whether slow backends, the first and the whole step are timed for all, not only for :data:`TIMED`,
            and 50,000 scalars are stepped by all, not only by those that torch has or that are asked for by name.
        large_matrices: whether products of 4096 × 4096 matrices are waited for.
    """

    seconds: float
    least: int
    most: int
    slow: tuple[str, ...]
    peers: tuple[str, ...]
    compiled: bool
    variants: tuple[str, ...]
    first: tuple[str, ...]
    everyone: bool
    large_matrices: bool


ALL = tuple(works.WORKS)
BUDGETS = {
    "quick": BenchBudget(
        0.25, 15, 60, ("gpt",), ("gpt", "large", "small"), False, ("gpt",), ("gpt", "small"), False, False
    ),
    "full": BenchBudget(3.0, 7, 300, ALL, ALL, True, ALL, ("gpt", "small"), True, True),
}

#: whose first and whole steps a quick benchmark times: a fused rival, and none
TIMED = ("AdamW", "RMSprop")

#: further rows of AdamW: dtype of the parameters (None is the benchmark's) and arguments
VARIANTS: tuple[tuple[str | None, dict[str, object]], ...] = (
    (None, {"clip_global_norm": torchs.CLIP}),
    (None, {"state_dtype": "bfloat16"}),
    (None, {"state_dtype": "int8"}),
    ("bfloat16", {"rounding": "stochastic"}),
    ("bfloat16", {"master": "split"}),
)

#: further rows, beside the peers: what decomposes matrices, at each step
AT_EACH_STEP: dict[str, dict[str, object]] = {
    "SOAP": {"precondition_frequency": 1},
    "Shampoo": {"precondition_frequency": 1},
}

Tick = Callable[[int, int, str], None]


def bench(
    optimizers: Sequence[str] | None = None,
    works_: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
    with_peers: bool | None = None,
    budget: str | float = "quick",
    threads: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    scale: float = 1.0,
    compiled: bool = False,
    command: str = "",
    tick: Tick = lambda done, total, what: None,
) -> BenchResult:
    """Measure optimizers beside the machine's ceiling, torch's and the peers', all in turn in this process.

    Args:
        optimizers: names, case aside; all by default.
        works_: of ``gpt``, ``large``, ``small``, ``scalars`` and ``changing`` (steps before which something has
            changed); all by default.
        backends: on each work; by default ``auto`` on all and ``eager`` and ``foreach`` where the budget allows.
        with_peers: True for all peers on all works, torch.compile among them; False for none; by default the budget's.
        budget: ``"quick"``, ``"full"``, or seconds that each optimizer of a row steps (else as ``"quick"``).
        threads: that each optimizer gets; torch's number by default.
        dtype: of the parameters.
        device: ``"cpu"`` or ``"cuda"``: where the parameters are, torch's current GPU.
        scale: below 1 makes the works small, for tests.
        compiled: whether torch's step under ``torch.compile`` takes part, which compiles for minutes; with all peers it
            does.
        command: is kept in the result.
        tick: is told what was done, of how many, and what comes.

    Returns:
        Rows, the whole step, steps that change, and the machine. Ctrl-C ends it early: what was measured is returned.

    Raises:
        ThalwegError: for an unknown name, with the nearest ones.
        ValueError: for a number outside its range.
    """
    chosen = _budget(budget)
    names = list(dict.fromkeys(map(entrants.exact_name, optimizers or entrants.optimizers())))
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise ThalwegError("device 'cuda': this torch sees no GPU (torch.cuda.is_available() is False)")
    loads = [works.work(name, scale, device) for name in works_ or ALL if name != works.CHANGING]
    changing = not works_ or works.CHANGING in works_
    for backend in backends or ():
        if backend not in entrants.backends():
            raise unknown_name("backend", backend, entrants.backends())
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if threads is not None and threads < 1:
        raise bad_argument("threads", threads, "an integer of at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    gc.collect()
    gc.freeze()  # what is there already is not looked through after each case
    try:
        result: BenchResult = {
            "command": command, "machine": machine(torch.get_num_threads(), device), "complete": False,
            "rows": [], "whole_step": [], "changing": [],
        }  # fmt: skip
        threads = torch.get_num_threads()
        run = _Run(chosen, names, bool(optimizers), loads, changing, backends, with_peers, compiled, threads, dtype,
                   device, scale)  # fmt: skip
        _do(run, result, tick)
        return result
    finally:
        torch.set_num_threads(before)
        gc.unfreeze()
        ceiling.row.cache_clear()


def _budget(budget: str | float) -> BenchBudget:
    try:
        seconds = float(budget)
    except ValueError:
        if budget not in BUDGETS:
            raise unknown_name("budget", str(budget), [*BUDGETS, "SECONDS"]) from None
        return BUDGETS[str(budget)]
    if not 0 < seconds < float("inf"):
        raise bad_argument("budget", budget, "quick, full, or seconds above 0")
    return dataclasses.replace(BUDGETS["quick"], seconds=seconds)


@dataclasses.dataclass(frozen=True)
class _Run:
    budget: BenchBudget
    names: list[str]
    named: bool
    works: list[Work]
    changing: bool
    backends: Sequence[str] | None
    with_peers: bool | None
    compiled: bool
    threads: int
    dtype: str
    device: str
    scale: float

    def cases(self) -> Iterable[BenchCase | BenchRow]:
        """Everything to measure, and rows of what will not be, in the order of the table."""
        for work in self.works:
            for name in self.names:
                yield self._case(name, work)
                if name in AT_EACH_STEP and work.name in self.budget.variants:
                    yield self._case(name, work, AT_EACH_STEP[name])
        if "AdamW" in self.names:
            for work in self.works:
                if work.name in self.budget.variants:
                    for dtype, settings in VARIANTS:
                        case = self._base("AdamW", work, dtype or self.dtype, settings, backends=("auto",))
                        named = peers.with_settings("AdamW", settings)
                        yield case if named == "AdamW" else dataclasses.replace(case, peers=self._peers(named, work))

    def _base(
        self, name: str, work: Work, dtype: str, settings: dict[str, object], backends: tuple[str, ...]
    ) -> BenchCase:
        b = self.budget
        return BenchCase(name, work, backends, dtype, settings, seconds=b.seconds, least=b.least, most=b.most,
                    threads=self.threads)  # fmt: skip

    def _case(self, name: str, work: Work, settings: dict[str, object] | None = None) -> BenchCase | BenchRow:
        asked = tuple(self.backends) if self.backends else self._default_backends(name, work)
        case = self._base(name, work, self.dtype, settings or {}, asked)
        try:
            case = dataclasses.replace(case, work=entrants.work_for(name, work, self.scale))
            slow = name in entrants.DECOMPOSING or not entrants.takes_vectors(name)
            if slow and work.name == "large" and self.device == "cpu" and not self.budget.large_matrices:
                raise ThalwegError("products of 4096 × 4096 matrices take minutes; --budget full waits for them")
            if work.name == "scalars" and not (self.named or self.budget.everyone or torchs.twin(name)):
                raise ThalwegError(f"torch has none beside it; --optimizers {name} or --budget full step it here too")
            if not entrants.takes_vectors(name):
                return case  # the peers' matrix optimizers route parameters each in its own way
        except Exception as error:
            note = str(error) if isinstance(error, ThalwegError) else reason(error)
            return rows.nothing(case, note)
        return dataclasses.replace(case, peers=self._peers(name, work))

    def _peers(self, name: str, work: Work) -> tuple[str, ...]:
        """Who has an optimizer of that name and takes part here."""
        wanted = self.with_peers if self.with_peers is not None else work.name in self.budget.peers
        found = peers.peers(name, bool(self.with_peers) or self.budget.compiled) if wanted else []
        found += [peers.COMPILED] if self.compiled and torchs.twin(name) and peers.COMPILED not in found else []
        return tuple(found)

    def _default_backends(self, name: str, work: Work) -> tuple[str, ...]:
        slow = work.name in self.budget.slow and (self.budget.everyone or name in TIMED)
        return ("auto", "eager", "foreach") if slow else ("auto",)

    def first(self) -> list[tuple[str, str]]:
        """Optimizer and work of the first steps to time: all that are asked for by name, else the budget's choice."""
        names = self.names if self.budget.everyone else [n for n in TIMED if n in self.names] or self.names[:1]
        if self.backends and "auto" not in self.backends:
            return []
        return [(name, work.name) for work in self.works if work.name in self.budget.first for name in names]

    def whole(self) -> list[str]:
        """Optimizers whose whole step is timed, where a work is: torch has one of that name."""
        return self._beside_torch() if self.works else []

    def situations(self) -> list[tuple[str, str]]:
        """Optimizer and situation of the steps that change; those of the whole step's optimizers."""
        return [(name, s) for name in self._beside_torch() for s in SITUATIONS] if self.changing else []

    def _beside_torch(self) -> list[str]:
        names = [name for name in self.names if torchs.twin(name) is not None]
        return names if self.budget.everyone else [n for n in TIMED if n in names][:1] or names[:1]


def _do(run: _Run, result: BenchResult, tick: Tick) -> None:
    cases, first, whole, situations = list(run.cases()), run.first(), run.whole(), run.situations()
    total, done = len(cases) + len(first) + len(whole) + len(situations), 0
    try:
        for case in cases:
            if isinstance(case, BenchCase):
                tick(done, total, f"{case.optimizer} {case.work.name} {case.setting}".rstrip())
                result["rows"] += rows.measure(case)
            else:
                result["rows"].append(case)
            done += 1
        for name, work in first:
            tick(done, total, f"{name} {work}, first step")
            _first(run, name, work, result["rows"])
            done += 1
        for name in whole:
            tick(done, total, f"{name}, whole step")
            result["whole_step"].append(_whole(run, name))
            done += 1
        for name, situation in situations:
            tick(done, total, f"{name}, {situation}")
            result["changing"].append(_changing(run, name, situation))
            done += 1
        result["complete"] = True
    except KeyboardInterrupt:
        pass
    tick(done, total, "")


def _first(run: _Run, name: str, work: str, found: list[BenchRow]) -> None:
    row = next((r for r in found if (r["optimizer"], r["work"], r["setting"]) == (name, work, "") and r["ms"]), None)
    if row is None:
        return
    try:
        steps = first_steps(name, work, run.dtype, run.threads, run.scale, run.device)
    except (ThalwegError, ValueError) as error:
        row["note"] = "; ".join(filter(None, (row["note"], str(error))))
        return
    row["first_step_cold"], row["first_step_warm"] = steps.cold.seconds, steps.warm.seconds
    row["constructor"], row["first_step_megabytes"] = steps.warm.constructor, steps.warm.megabytes
    if steps.torch is not None:
        row["torch_constructor"], row["torch_first_step"], row["torch_first_step_megabytes"] = steps.torch


def _whole(run: _Run, name: str) -> WholeStep:
    budget = run.budget
    # a whole step is long: as many as give a median that two optimizers can be told apart by
    return whole_step(name, 10 * budget.seconds, 3 * budget.least, budget.most, tiny=run.scale < 1, device=run.device)


def _changing(run: _Run, name: str, situation: str) -> ChangingStep:
    budget = run.budget
    compiled = run.compiled or bool(run.with_peers) or budget.compiled
    return changing_step(name, situation, budget.seconds, budget.least, budget.most, run.scale, run.device, compiled)
