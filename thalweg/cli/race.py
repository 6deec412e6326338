"""`thalweg race`: the plan, the runs, the verdict, the report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console

from thalweg._base.errors import ThalwegError
from thalweg.cli import climbing, files, fitting, progress, screen
from thalweg.cli.console import console_of
from thalweg.cli.stopping import StoppedError, stoppable
from thalweg.cli.typed import typed
from thalweg.lab import entries as entering
from thalweg.lab import plan as planning
from thalweg.lab import race as racing
from thalweg.lab import within
from thalweg.lab.cluster.address import Cluster, Resources
from thalweg.lab.cluster.on_ray import RayCluster
from thalweg.lab.cluster.on_slurm import SlurmCluster, options
from thalweg.lab.contestants import CONTESTANTS
from thalweg.lab.forecast import Forecast, forecast
from thalweg.lab.protocol import BUDGETS
from thalweg.lab.report import as_csv, as_json, write_overview, write_report
from thalweg.lab.result import RaceResult
from thalweg.lab.setting import setting
from thalweg.lab.store import Store, is_there
from thalweg.lab.tasks.printing import first_lines


@click.command(no_args_is_help=True)
@click.argument("task", nargs=-1, required=True)
@click.option(
    "--optimizers",
    help=f"Which optimizers race, separated by commas: {', '.join(CONTESTANTS)}, any other of `thalweg list`, "
    "my.py:Mine, torch.optim:NAdam; 'adamw(lr=3e-4,weight_decay=0.1)' races untuned, with these settings; "
    "'adamw(lr=1e-4..1e-2)' is tuned within this range; 'sam(adamw)' puts a wrapper around adamw; 'twin=adamw' races "
    "adamw under the name twin.",
)
@click.option("--baseline", default="adamw", show_default=True, help="The optimizer that others are compared with.")
@click.option("--budget", default="quick", show_default=True, help=f"How much to spend: {', '.join(BUDGETS)}.")
@click.option("--seeds", type=int, help="How many fresh seeds the verdict rests on.")
@click.option("--steps", type=int, help="How many steps a whole run has (the horizon).")
@click.option("--margin", type=float, help="The smallest difference that matters, in units of the loss.")
@click.option("--jobs", type=int, help="How many worker processes, of one thread each; by default one per core.")
@click.option(
    "--store", default="runs/thalweg.db", show_default=True, help="Where runs are kept: a file, or an SQLAlchemy URL."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), show_default=True,
              help="Folder for report.html and its data; several tasks get index.html and a folder each.")  # fmt: skip
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write everything as JSON to this file; - is stdout."
)
@click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), help="Write the runs as CSV to this file; - is stdout."
)
@click.option(
    "--cluster",
    help="Make the runs on a cluster: auto, ray://HOST:PORT or HOST:PORT names a Ray cluster; local:3 starts a Ray "
    "cluster with 3 nodes on this machine; slurm queues a job for each run.",
)
@click.option(
    "--within",
    "hours",
    help="Choose the budget and the number of seeds so that the race fits into a time, such as 8h, and say which "
    "differences it can settle.",
)
@click.option("--sizes", help="Race at several sizes of the model: multiples of its parameters, such as 1,2,4.")
@click.option("--batches", help="Race at several sizes of the batch: multiples of its number of examples.")
@click.option("--horizons", help="Race at several lengths of the run: multiples of its number of steps.")
@click.option(
    "--fixed-horizon",
    is_flag=True,
    help="With --sizes: the same number of steps at each size; without it the number of steps grows with the size.",
)
@click.option(
    "--transfer",
    help="With --sizes: search at the smallest size alone, and transfer its settings: mup scales the learning rates "
    "with the width (muP); match-rms leaves them as they are. Without it each size has its own search.",
)
@click.option(
    "--predict",
    help="With --sizes, --batches or --horizons: predict the result of a race at another size, such as 124M.",
)
@click.option("--slurm", default="", help="Options for sbatch, such as partition=gpu,time=30 (minutes).")
@click.option("--cpus", type=float, default=1.0, show_default=True, help="Cores of each run on a cluster.")
@click.option("--gpus", type=float, default=0.0, show_default=True, help="GPUs of each run on a cluster; may be 0.25.")
@click.option(
    "--checkpoints",
    type=click.Path(file_okay=False),
    help="Folder for the state of runs longer than 10 minutes, so that a lost run goes on. All workers must be able to "
    "read it. By default it lies beside the store's file.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and the time it will take, and stop.")
@stoppable
def race(
    task: tuple[str, ...],
    optimizers: str | None,
    baseline: str,
    budget: str,
    seeds: int | None,
    steps: int | None,
    margin: float | None,
    jobs: int | None,
    store: str,
    out: Path,
    json_path: Path | None,
    csv_path: Path | None,
    cluster: str | None,
    hours: str | None,
    sizes: str | None,
    batches: str | None,
    horizons: str | None,
    fixed_horizon: bool,
    transfer: str | None,
    predict: str | None,
    slurm: str,
    cpus: float,
    gpus: float,
    checkpoints: str | None,
    dry_run: bool,
) -> None:
    """Race optimizers on each TASK (a name from `thalweg tasks`, or your own file.py) and say which one to use.

    All are tuned in the same way, then judged on fresh seeds. Stop with Ctrl-C or SIGTERM at any time: finished runs
    are kept, and the same command continues the race.
    """
    on_stdout = [str(path) for path in (json_path, csv_path)].count("-")
    if on_stdout > 1:
        raise ThalwegError("--json - --csv -: expected a file for one of them, there is one standard output")
    console = console_of(stderr=on_stdout > 0)
    entries = entering.split(optimizers) if optimizers else None
    for path in (json_path, csv_path):
        files.writable_file(path, made=out)
    limit = within.seconds(hours) if hours else None
    if limit and seeds is not None:
        raise ThalwegError("--within chooses the number of seeds: expected no --seeds beside it")
    if checkpoints and cluster is None and not dry_run:
        files.writable_folder(Path(checkpoints), "--checkpoints")
    climbed = climbing.asked(task, sizes, batches, horizons, fixed_horizon, predict, transfer)
    with _made_at(cluster, slurm, Resources(cpus, gpus), out) as at:
        slots, on = (at.slots, at.on) if at else (None, setting)
        settings = {"optimizers": entries, "baseline": baseline, "budget": budget, "seeds": seeds, "margin": margin,
                    "jobs": slots if jobs is None else jobs, "on": on}  # fmt: skip
        settings = {name: value for name, value in settings.items() if value is not None}

        def make(one: str, **more: Any) -> planning.RacePlan:
            with first_lines(sys.stderr):
                made = planning.plan(one, **{"steps": steps, **settings, **more})
            for note in at.notes if at else ():
                console.print(note, highlight=False, markup=False)
            return made

        def fit(drafts: Sequence[planning.RacePlan]) -> list[planning.RacePlan]:
            return fitting.fitted(console, drafts, limit, dry_run, at is None) if limit else [*drafts]

        def raced(plan: planning.RacePlan, folder: Path) -> RaceResult | None:
            return _raced(console, plan, folder, store, dry_run, at, checkpoints)

        if climbed:
            results = climbing.climb(
                console, climbed, make, raced, out, steps, budget,
                jobs=jobs, memory=at.memory if at else None, fit=fit if limit else None,
            )  # fmt: skip
        else:
            plans = [plan for one in task for plan in fit([make(one)])]
            _refuse_one_name([plan.task.name for plan in plans])
            folders = [out / plan.task.name if len(task) > 1 else out for plan in plans]
            results = [found for plan, folder in zip(plans, folders, strict=True) if (found := raced(plan, folder))]
    if len(results) > 1 and not climbed:
        screen.show_overview(console, results)
        pages = [f"{quote(result['task']['name'])}/report.html" for result in results]
        console.print(f"overview: {write_overview(results, out, pages)}", soft_wrap=True)
    if json_path and results:
        _write(json_path, as_json(results))
    if csv_path and results:
        _write(csv_path, as_csv(results))


def _refuse_one_name(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ThalwegError(f"TASK: {names.count(name)} tasks are called {name!r}; each needs a name of its own")


def _raced(
    console: Console,
    plan: planning.RacePlan,
    folder: Path,
    store: str,
    dry_run: bool,
    at: Cluster | None,
    checkpoints: str | None,
) -> RaceResult | None:
    """One task's result, shown and reported; None where only the plan was asked for."""
    if dry_run and not is_there(store):  # it is not made to look into it
        screen.show_plan(console, plan, forecast(plan))
        return None
    if not dry_run:
        files.writable_folder(folder)
    with closing(Store(store)) as opened:  # once: a file is checked for damage each time
        ahead = forecast(plan, opened)
        screen.show_plan(console, plan, ahead)
        if dry_run:
            return None
        result = _run(console, plan, opened, ahead, at, checkpoints)
    result["protocol"]["command"] = typed()
    screen.show_result(console, result)
    console.print(f"report: {write_report(result, folder)}", soft_wrap=True)
    return result


@contextmanager
def _made_at(cluster: str | None, slurm: str, resources: Resources, out: Path) -> Iterator[Cluster | None]:
    """The cluster on which runs are made; None for worker processes of this machine."""
    given = options(slurm)
    if given and cluster != "slurm":
        raise ThalwegError(f"--slurm {slurm}: expected --cluster slurm beside it")
    if cluster is None:
        for name, value, usual in (("cpus", resources.cpus, 1), ("gpus", resources.gpus, 0)):
            if value != usual:
                here = "On this machine each run has one core, and --jobs says how many are made at the same time"
                raise ThalwegError(f"--{name} {value:g}: expected --cluster beside it. {here}")
        yield None
        return
    at: Cluster = (
        SlurmCluster(given, resources, out / "slurm") if cluster == "slurm" else RayCluster(cluster, resources)
    )
    with closing(at):
        yield at


def _run(
    console: Console,
    plan: planning.RacePlan,
    store: Store,
    ahead: Forecast,
    at: Cluster | None,
    checkpoints: str | None,
) -> RaceResult:
    try:
        with progress.Live(console, plan, ahead) as live:
            return racing.race(plan, store, live, at, str(Path(checkpoints).resolve()) if checkpoints else None)
    except KeyboardInterrupt as stop:
        kept = f"finished runs are kept in {store.url}. The same command goes on there: {typed()}"
        lost = f"{store.url} is in memory alone, so its runs are gone; --store runs/thalweg.db would keep them"
        raise StoppedError(f"stopped; {kept if store.lasts else lost}") from stop


def _write(path: Path, text: str) -> None:
    if str(path) == "-":
        click.echo(text, nl=False)
    else:
        files.write(path, text)
