"""`realesr train`: train a network on folders of images."""

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
from realesr_cli.cli.train_console import TrainConsole, print_plan
from realesr_cli.errors import CancelledError, ConfigError, TrainingError
from realesr_cli.settings import check, option, to_plain

if TYPE_CHECKING:
    from realesr_cli.train.checkpoint import Checkpoint
    from realesr_cli.train.config import TrainConfig
    from realesr_cli.train.distributed import World
    from realesr_cli.train.machine import Machine
    from realesr_cli.train.session import Session

DEFAULT_RECIPE = "realesrgan-x4"

RUNS = Path("runs")

_ARCHITECTURE = tuple(f"generator.{key}" for key in ("kind", "blocks", "features", "growth"))
"""Settings that, given by --set, override the architecture of --init."""


@dataclass(frozen=True)
class TrainOptions:
    """The most used settings; all others are reached by --set. None: not given."""

    val: str = option("", help="Folder of validation images; default: some of --data.")
    out: str = option("", help="Folder of the run; default: runs/RECIPE.")
    recipe: str = option(
        "", help=f"Recipe or TOML file (--list shows the recipes); default: {DEFAULT_RECIPE}."
    )
    init: str = option(
        "", help="Model name or file that the generator starts from; it also sets the architecture."
    )
    init_d: str = option("", help="Model name or file that the discriminator starts from.")
    iters: tuple[int, ...] = option((), help="Steps of every stage, or of each.", low=0)
    batch_size: int | Literal["auto"] | None = option(
        None, help="Crops per forward pass; auto: as many as fit in memory.", low=1
    )
    teacher: str = option("", help="Model to learn from (--recipe distill).")
    lr: tuple[float, ...] = option((), help="Learning rate of every stage, or of each.", above=0)
    device: str = option("", help="auto, cpu, cuda, cuda:N, mps or xpu.")
    precision: str = option(
        "", help="Precision of the networks.", choices=("", "auto", "fp32", "bf16", "fp16")
    )
    seed: int | None = option(None, help="Random seed.", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class TrainRequest:
    """What the command was asked to do."""

    options: TrainOptions
    data: tuple[Path, ...] = ()
    lq: tuple[Path, ...] = ()
    resume: str = ""
    accept_changes: bool = False
    assignments: tuple[str, ...] = ()


def _folders(name: str, help: str) -> Decorator:
    return click.option(
        name, multiple=True, metavar="FOLDER", type=click.Path(path_type=Path), help=help
    )


@click.command("train")
@_folders("--data", "Folder of high-quality images, searched recursively; may be repeated.")
@_folders("--lq", "Paired training: low-quality folder of each --data; none: synthetic.")
@settings_options(TrainOptions, short={"out": ("-o",)})
@click.option(
    "--resume",
    is_flag=False,
    flag_value="auto",
    type=click.Choice(["auto", "required"]),
    metavar="[auto|required]",
    help="Continue the run in --out. auto (default): start it if it has no checkpoint yet; "
    "required: fail then.",
)
@click.option(
    "--accept-changes", is_flag=True, help="Resume even if settings differ from those of the run."
)
@set_option
@click.option("--print-config", is_flag=True, help="Print the complete configuration and exit.")
@click.option("--dry-run", is_flag=True, help="Print the plan and its cost and exit.")
@click.option("--list", "list_only", is_flag=True, help="List the recipes and exit.")
@quiet_option
@click.pass_context
def train_command(
    ctx: click.Context,
    data: tuple[Path, ...],
    lq: tuple[Path, ...],
    resume: str | None,
    accept_changes: bool,
    assignments: tuple[str, ...],
    print_config: bool,
    dry_run: bool,
    list_only: bool,
    quiet: bool,
) -> int:
    """Train a network on folders of images.

    The plan, its cost and its disk usage are printed first. The folder of the run is a model:
    `realesr upscale photo.jpg -m runs/NAME`. Ctrl-C saves a checkpoint; --resume continues
    bit-exactly.

    \b
    realesr train --data DIV2K/
    realesr train --data photos/ --recipe finetune --out runs/mine
    realesr train --data photos/ --recipe distill --teacher x4plus
    realesr train --data photos/ --recipe compact-x4 --iters 5000 --set data.patch=48
    realesr train --resume --out runs/mine
    torchrun --nproc-per-node 4 -m realesr_cli train --data DIV2K/ --out runs/four --resume
    """
    if list_only:
        _list_recipes()
        return 0
    request = TrainRequest(
        settings_from(ctx, TrainOptions), data, lq, resume or "", accept_changes, assignments
    )
    checkpoint = _find_checkpoint(request)
    config = configure(request, checkpoint)
    if print_config:
        from realesr_cli.train.recipes import config_to_toml

        click.echo(config_to_toml(config), nl=False)
        return 0
    return _run(request, config, checkpoint, dry_run=dry_run, quiet=quiet)


def _list_recipes() -> None:
    from realesr_cli.train.recipes import describe_recipe, recipe_names

    width = max(len(name) for name in recipe_names())
    for name in recipe_names():
        click.echo(f"{name:{width}}  {describe_recipe(name)}")


def _find_checkpoint(request: TrainRequest) -> Checkpoint | None:
    """Read the checkpoint to resume from, if there is one."""
    from realesr_cli.train.checkpoint import find_checkpoint

    if not request.resume:
        return None
    if not request.options.out:
        raise ConfigError("--resume needs the folder of the run as --out")
    found = find_checkpoint(Path(request.options.out))
    if found is None and request.resume == "required":
        raise TrainingError(f"{request.options.out}: no checkpoint to resume from")
    return found


def configure(request: TrainRequest, checkpoint: Checkpoint | None) -> TrainConfig:
    """Return the configuration that the options describe, based on a recipe or a checkpoint.

    Raises ConfigError for invalid settings, and UnknownModelError for a start that does not exist.
    """
    from realesr_cli.train.networks import adopt_architecture
    from realesr_cli.train.recipes import load_config, per_stage, read_recipe

    options = request.options
    base: Mapping[str, Any]
    if checkpoint is not None and not options.recipe:
        base = to_plain(checkpoint.config)
    else:
        base = read_recipe(options.recipe or DEFAULT_RECIPE)
    values: dict[str, Any] = {}
    if options.iters:
        values |= per_stage(base, "iterations", options.iters)
    if options.lr:
        values |= per_stage(base, "optimizer.lr", options.lr)
    given = {
        "data.gt": [str(p) for p in request.data] or None,
        "data.lq": [str(p) for p in request.lq] or None,
        "data.batch": None if options.batch_size == "auto" else options.batch_size,
        "validation.gt": options.val or None,
        "generator.init": options.init or None,
        "discriminator.init": options.init_d or None,
        "distill.teacher": options.teacher or None,
        "runtime.device": options.device or None,
        "runtime.precision": options.precision or None,
        "seed": options.seed,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    assignments = list(request.assignments)
    if options.batch_size == "auto" and checkpoint is not None:
        # What was found when the run started: one command starts the run and continues it.
        data = checkpoint.config.data
        assignments += [f"data.batch={data.batch}", f"data.accumulate={data.accumulate}"]
    config = load_config(base, assignments, values)
    explicit = any(text.strip().startswith(_ARCHITECTURE) for text in request.assignments)
    from_run = checkpoint is not None and not options.recipe
    return config if explicit or from_run else adopt_architecture(config)


def _run(
    request: TrainRequest,
    config: TrainConfig,
    checkpoint: Checkpoint | None,
    *,
    dry_run: bool,
    quiet: bool,
) -> int:
    from realesr_cli.train.distributed import join_world
    from realesr_cli.train.machine import choose_machine
    from realesr_cli.train.session import Resume, open_session

    with join_world(config.runtime.device) as (world, device), interruptible() as interrupt:
        machine = choose_machine(config.runtime, device=device)
        # A resumed run has its batch already.
        if request.options.batch_size == "auto" and checkpoint is None:
            config = _fit_batch(config, machine, world)
        out = Path(world.share(request.options.out or str(_free_folder(config.recipe))))
        console = TrainConsole(quiet=quiet or not world.first)
        enabled = not console.quiet
        downloading = ProgressBar("downloading", bytes=True, enabled=enabled)
        try:
            checkpoint = _accept_changes(checkpoint, config, request, console)
            with ProgressBar("reading images", unit="file", enabled=enabled) as reading:
                session = open_session(
                    config,
                    out,
                    machine,
                    world=world,
                    resume=Resume(checkpoint) if request.resume else None,
                    progress=reading,
                )
            downloads = print_plan(session, console)
            if dry_run:
                if not downloads:
                    session.load_networks()
                return 0
            return _train(session, console, interrupt, downloading)
        finally:
            downloading.close()
            console.close()


def _accept_changes(
    checkpoint: Checkpoint | None, config: TrainConfig, request: TrainRequest, console: TrainConsole
) -> Checkpoint | None:
    """Return the checkpoint as one of a run with this configuration, if the user accepts that."""
    from realesr_cli.train.session import changed_settings

    if checkpoint is None or not request.accept_changes:
        return checkpoint
    changes = changed_settings(checkpoint, config)
    if changes:
        console.line(f"resuming with other settings: {'; '.join(changes)}")
    return dataclasses.replace(checkpoint, config=config)


def _fit_batch(config: TrainConfig, machine: Machine, world: World) -> TrainConfig:
    """Return the configuration with the batch that fits in the first process."""
    from realesr_cli.train.plan import fit_batch

    found = ""
    if world.first:
        data = fit_batch(config, machine).data
        found = f"{data.batch} {data.accumulate}"
    batch, accumulate = map(int, world.share(found).split())
    data = dataclasses.replace(config.data, batch=batch, accumulate=accumulate)
    return dataclasses.replace(config, data=data)


def _train(
    session: Session, console: TrainConsole, interrupt: Interrupt, downloading: ProgressBar
) -> int:
    from realesr_cli.train.loop import train

    try:
        result = train(
            session, listener=console, stop_requested=interrupt.stop_requested, progress=downloading
        )
    except CancelledError as stopped:
        console.close()
        console.line(f"{stopped}; continue with: realesr train --resume --out {session.out}")
        return interrupt.exit_code if interrupt.stop_requested() else stopped.exit_code
    if session.world.first:
        console.close()
        command = f"realesr upscale PHOTO -m {session.out}"
        console.line(f"done after {result.steps:,} steps; try it: {command}")
        summary = {
            "generator": str(result.generator),
            "scores": result.best,
            "stage_start": result.stage_start,
            "run_start": result.run_start,
        }
        click.echo(json.dumps(summary))
    return 0


def _free_folder(recipe: str) -> Path:
    """Return runs/RECIPE, or the first of runs/RECIPE-2, -3, ... that does not exist."""
    name = Path(recipe).stem
    path, number = RUNS / name, 2
    while path.exists():
        path, number = RUNS / f"{name}-{number}", number + 1
    return path
