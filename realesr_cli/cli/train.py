"""`realesr train`: from folders of images to a network of one's own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from realesr_cli.cli.options import (
    Decorator,
    quiet_option,
    set_option,
    settings_from,
    settings_options,
)
from realesr_cli.cli.terminal import Interrupt, ProgressBar, interruptible
from realesr_cli.cli.train_console import TrainConsole, duration, plan_lines, size
from realesr_cli.errors import CancelledError, ConfigError
from realesr_cli.settings import check, option, to_plain

if TYPE_CHECKING:
    from realesr_cli.train.config import TrainConfig
    from realesr_cli.train.distributed import World
    from realesr_cli.train.machine import Machine
    from realesr_cli.train.session import PreparedRun, Session

DEFAULT_RECIPE = "realesrgan-x4"

RUNS = Path("runs")


@dataclass(frozen=True)
class TrainOptions:
    """What everyone sets; everything else is reached by --set. None where a flag was not given."""

    val: str = option("", help="Images to validate with; else some of --data.")
    out: str = option("", help="Folder of the run; runs/RECIPE if not given.")
    recipe: str = option(
        "", help=f"What to train, or a TOML file (--list tells); {DEFAULT_RECIPE} if not given."
    )
    init: str = option("", help="Model name or file the generator starts from.")
    init_d: str = option("", help="Model name or file the discriminator starts from.")
    iters: tuple[int, ...] = option((), help="Steps of every stage, or of each.", low=0)
    batch_size: int | Literal["auto"] | None = option(
        None, help="Crops per pass; auto: as many as memory holds.", low=1
    )
    lr: tuple[float, ...] = option((), help="Learning rate of every stage, or of each.", above=0)
    device: str = option("", help="auto, cpu, cuda, cuda:N, mps or xpu.")
    precision: str = option(
        "", help="Number format in the networks.", choices=("", "auto", "fp32", "bf16", "fp16")
    )
    seed: int | None = option(None, help="Of all chance in the run.", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class TrainRequest:
    """A call of the command."""

    flags: TrainOptions
    data: tuple[Path, ...] = ()
    lq: tuple[Path, ...] = ()
    resume: bool = False
    accept_changes: bool = False
    assignments: tuple[str, ...] = ()


def _folders(name: str, help: str) -> Decorator:
    return click.option(
        name, multiple=True, metavar="FOLDER", type=click.Path(path_type=Path), help=help
    )


@click.command("train")
@_folders("--data", "High-quality images, searched deeply; may be repeated.")
@_folders("--lq", "Paired training: the low-quality folder of each --data.")
@settings_options(TrainOptions, short={"out": ("-o",)})
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option(
    "--accept-changes", is_flag=True, help="Resume although settings differ from the run's."
)
@set_option
@click.option("--print-config", is_flag=True, help="Print the whole configuration and stop.")
@click.option("--dry-run", is_flag=True, help="Print the plan and its cost and stop.")
@click.option("--list", "list_only", is_flag=True, help="List the recipes and stop.")
@quiet_option
@click.pass_context
def train_command(
    ctx: click.Context,
    data: tuple[Path, ...],
    lq: tuple[Path, ...],
    resume: bool,
    accept_changes: bool,
    assignments: tuple[str, ...],
    print_config: bool,
    dry_run: bool,
    list_only: bool,
    quiet: bool,
) -> int:
    """Train a network on folders of images.

    The plan, its cost and what it takes on disk are printed first. The run's folder is a model:
    `realesr upscale photo.jpg -m runs/NAME`. Ctrl-C saves; --resume goes on, to the bit.

    \b
    realesr train --data DIV2K/
    realesr train --data photos/ --recipe finetune --out runs/mine
    realesr train --data photos/ --recipe compact-x4 --iters 5000 --set data.patch=48
    realesr train --resume --out runs/mine
    torchrun --nproc-per-node 4 -m realesr_cli train --data DIV2K/
    """
    if list_only:
        _list_recipes()
        return 0
    request = TrainRequest(
        settings_from(ctx, TrainOptions), data, lq, resume, accept_changes, assignments
    )
    config = configure(request)
    if print_config:
        from realesr_cli.train.recipes import config_toml

        click.echo(config_toml(config), nl=False)
        return 0
    return _run(request, config, dry_run=dry_run, quiet=quiet)


def _list_recipes() -> None:
    from realesr_cli.train.recipes import recipe_about, recipe_names

    width = max(len(name) for name in recipe_names())
    for name in recipe_names():
        click.echo(f"{name:{width}}  {recipe_about(name)}")


def configure(request: TrainRequest) -> TrainConfig:
    """The configuration that the flags describe, on a recipe or on the run to resume.

    Raises ConfigError for what cannot be.
    """
    from realesr_cli.train.recipes import changed, per_stage

    base, flags = _base(request), request.flags
    values: dict[str, Any] = {}
    if flags.iters:
        values |= per_stage(base, "iterations", flags.iters)
    if flags.lr:
        values |= per_stage(base, "optimizer.lr", flags.lr)
    given = {
        "data.gt": [str(p) for p in request.data] or None,
        "data.lq": [str(p) for p in request.lq] or None,
        "data.batch": None if flags.batch_size == "auto" else flags.batch_size,
        "validation.gt": flags.val or None,
        "generator.init": flags.init or None,
        "discriminator.init": flags.init_d or None,
        "runtime.device": flags.device or None,
        "runtime.precision": flags.precision or None,
        "seed": flags.seed,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    return changed(base, request.assignments, values)


def _base(request: TrainRequest) -> Mapping[str, Any]:
    from realesr_cli.train.checkpoint import checkpoints, read_checkpoint
    from realesr_cli.train.recipes import recipe_data

    flags = request.flags
    if request.resume:
        if not flags.out:
            raise ConfigError("--resume: name the run to go on with by --out")
        found = checkpoints(Path(flags.out))
        if found and not flags.recipe:
            plain: dict[str, Any] = to_plain(read_checkpoint(found[-1])[0])
            return plain
    return recipe_data(flags.recipe or DEFAULT_RECIPE)


def _run(request: TrainRequest, config: TrainConfig, *, dry_run: bool, quiet: bool) -> int:
    from realesr_cli.train.distributed import joined_world
    from realesr_cli.train.machine import choose_machine
    from realesr_cli.train.session import RunContext, open_session, survey

    with joined_world(config.runtime.device) as (world, device), interruptible() as interrupt:
        machine = choose_machine(config.runtime, device=device)
        # A resumed run has found its batch already.
        if request.flags.batch_size == "auto" and not request.resume:
            config = _fitted(config, machine, world)
        out = Path(world.share(request.flags.out or str(_free_folder(config.recipe))))
        console = TrainConsole(quiet=quiet or not world.first)
        talks = not console.quiet
        fetching = ProgressBar("fetching", bytes=True, enabled=talks)
        looking = ProgressBar("looking at images", unit="file", enabled=talks)
        caller = RunContext(
            console,
            interrupt.stop_requested,
            world,
            accept_changes=request.accept_changes,
            download=fetching,
            looking=looking,
        )
        try:
            with looking:
                found = survey(config, out, machine, caller, resume=request.resume)
            lacking = _print_plan(found, console)
            if dry_run and lacking:
                return 0
            with fetching:
                session = open_session(found)
            return 0 if dry_run else _train(session, console, interrupt)
        finally:
            console.close()


def _fitted(config: TrainConfig, machine: Machine, world: World) -> TrainConfig:
    """The configuration with the batch that the first process finds to fit."""
    from realesr_cli.train.cost import fitted

    found = ""
    if world.first:
        data = fitted(config, machine).data
        found = f"{data.batch} {data.accumulate}"
    batch, accumulate = map(int, world.share(found).split())
    data = dataclasses.replace(config.data, batch=batch, accumulate=accumulate)
    return dataclasses.replace(config, data=data)


def _train(session: Session, console: TrainConsole, interrupt: Interrupt) -> int:
    from realesr_cli.train.loop import train_session

    try:
        result = train_session(session)
    except CancelledError as stopped:
        console.close()
        console.line(str(stopped))
        return interrupt.exit_code if interrupt.stop_requested() else stopped.exit_code
    if session.caller.world.first:
        console.close()
        command = f"realesr upscale PHOTO -m {session.out}"
        console.line(f"done after {result.steps:,} steps; try it: {command}")
        told = {
            "generator": str(result.generator),
            "scores": result.best,
            "stage_start": result.baseline,
            "run_start": result.origin,
        }
        click.echo(json.dumps(told))
    return 0


def _free_folder(recipe: str) -> Path:
    """runs/RECIPE, or the first of runs/RECIPE-2, -3, ... that does not exist."""
    name = Path(recipe).stem
    path, number = RUNS / name, 2
    while path.exists():
        path, number = RUNS / f"{name}-{number}", number + 1
    return path


def _print_plan(found: PreparedRun, console: TrainConsole) -> bool:
    """Plan, disk and measured cost, and what is to be fetched; whether anything is."""
    from realesr_cli.train.initialization import to_fetch
    from realesr_cli.train.plan import make_plan
    from realesr_cli.weights.fetch import is_offline

    resumed = found.resumed is not None
    missing = () if is_offline() else to_fetch(found.config, resumed=resumed)
    if console.quiet:
        return bool(missing)
    plan = make_plan(found.config, found.images, found.out)
    for line in plan_lines(found.config, plan, found.machine, str(found.out)):
        console.line(line)
    for entry in missing:
        console.line(
            f"fetch     {entry.name}, {size(entry.bytes or 0)}, once: it is kept for later runs"
        )
    console.line(_cost(found.config, found.machine))
    return bool(missing)


def _cost(config: TrainConfig, machine: Machine) -> str:
    """The line about time and memory, measured on a step of each stage."""
    from realesr_cli.engine.guard import is_out_of_memory
    from realesr_cli.train.cost import step_cost

    total, parts, peak = 0.0, [], 0
    for number, stage in enumerate(config.stages):
        try:
            cost = step_cost(config, machine, number)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return "cost      a step does not fit in memory: it will be told what does"
        total += cost.seconds * stage.iterations
        peak = max(peak, cost.peak_bytes or 0)
        parts.append(f"{stage.name} {cost.seconds:.3g} s a step")
    memory = f", {size(peak)} of its memory" if peak else ""
    return f"cost      {', '.join(parts)}: about {duration(total)} in all{memory}"
