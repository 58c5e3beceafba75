"""`realesr models`: list, pull, verify, import, rm, path; others join in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from realesr_cli.cli.advice import message_with_advice
from realesr_cli.cli.interpolate import interpolate_command
from realesr_cli.cli.model_info import card_command, info_command
from realesr_cli.cli.options import ModelType, json_option, offline_option, quiet_option, yes_option
from realesr_cli.cli.terminal import ProgressBar, print_indented_json, say_error, say_warning
from realesr_cli.errors import (
    ConfigError,
    ModelUnavailableError,
    UnknownModelError,
    WeightsError,
    WeightsWriteError,
)
from realesr_cli.settings import to_plain
from realesr_cli.text import format_bytes
from realesr_cli.weights import cache, registry
from realesr_cli.weights.registry import RegistryEntry


@click.group("models")
def models_group() -> None:
    """List, download, verify, import and mix models.

    Models are kept in a cache folder (`realesr models path`); the environment variable
    REALESR_HOME sets another. Official names and short ones work, in upper or lower case.
    """


models_group.add_command(interpolate_command)
models_group.add_command(info_command)
models_group.add_command(card_command)


@models_group.command("list")
@click.option("--cached", "only_cached", is_flag=True, help="Only models that are in the cache.")
@json_option
def list_command(only_cached: bool, as_json: bool) -> None:
    """List all known models.

    QUALITY is a hint for the images a model is meant for. SPEED is how many times less arithmetic
    than RealESRGAN_x4plus a model needs for an output of the same size.
    """
    found = [(entry, registry.cached(entry)) for entry in registry.entries()]
    if only_cached:
        found = [(entry, path) for entry, path in found if path is not None]
    if as_json:
        models = [{**to_plain(e), "path": to_plain(p), "cached": p is not None} for e, p in found]
        print_indented_json({"format": 1, "home": registry.home(), "models": models})
        return
    if not found:
        click.echo("no model is in the cache; `realesr models pull NAME` downloads one")
        return
    header = ("NAME", "SCALE", "QUALITY", "SPEED", "SIZE", "CACHED", "LICENSE", "FOR")
    rows = [_list_row(entry, path) for entry, path in found]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header) - 1)]
    for row, entry in zip((header, *rows), (None, *(entry for entry, _ in found)), strict=True):
        cells = [text.ljust(width) for text, width in zip(row[:-1], widths, strict=True)]
        click.echo("  ".join([*cells, row[-1]]))
        if entry is not None and entry.aliases:
            click.echo(f"{'':{widths[0]}}  also: {', '.join(entry.aliases)}")


def _list_row(entry: RegistryEntry, path: Path | None) -> tuple[str, ...]:
    return (
        entry.name,
        f"x{entry.scale}" if entry.scale else "-",
        entry.quality or "-",
        f"{entry.speed:g}x" if entry.speed else "-",
        format_bytes(entry.bytes) if entry.bytes else "?",
        "yes" if path else "-",
        entry.license,
        entry.about,
    )


@models_group.command("pull")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=ModelType())
@click.option(
    "--allow-unverified",
    is_flag=True,
    help="Download a file whose SHA-256 is not known; the hash found is remembered.",
)
@offline_option
@quiet_option
@json_option
@click.pass_context
def pull_command(
    ctx: click.Context,
    names: tuple[str, ...],
    allow_unverified: bool,
    offline: bool | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Download models into the cache; an interrupted download continues where it stopped.

    Size and SHA-256 are checked before a file gets its name. Proxies are those of the environment
    (HTTPS_PROXY, NO_PROXY).
    """
    from realesr_cli.weights.fetch import ensure

    results: list[dict[str, Any]] = []
    failed: WeightsError | None = None
    for entry in [registry.resolve(name) for name in names]:
        if not quiet and registry.cached(entry) is None:
            size = format_bytes(entry.bytes) if entry.bytes else "unknown size"
            click.echo(f"{entry.name}: {size}, license {entry.license}", err=True)
        try:
            with ProgressBar(entry.name, bytes=True, enabled=not quiet) as progress:
                path = ensure(
                    entry, offline=offline, progress=progress, allow_unverified=allow_unverified
                )
        except WeightsError as error:
            failed = error
            say_error(message_with_advice(error))
            results.append({"name": entry.name, "ok": False, "error": str(error)})
            continue
        unverified = entry.sha256 is None
        if unverified and not quiet:
            say_warning(f"{entry.name}: its SHA-256 is not known, so it was not verified")
        result = {"name": entry.name, "ok": True, "path": path, "license": entry.license}
        results.append({**result, "verified": not unverified})
        if not as_json and not quiet:
            click.echo(f"{entry.name}: {path}")
    if as_json:
        print_indented_json({"models": results})
    if failed is not None:
        ctx.exit(failed.exit_code)


@models_group.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]", type=ModelType())
@quiet_option
@json_option
@click.pass_context
def verify_command(ctx: click.Context, names: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Compare size and SHA-256 of all cached files, or of the named ones.

    Exit code 3 if a file is wrong; `realesr models pull NAME` replaces it.
    """
    chosen = [registry.resolve(name) for name in names] or list(registry.entries())
    results = [_verify(e, quiet) for e in chosen if names or registry.cached(e)]
    if not names:
        results += [
            {"name": None, "path": path, "ok": True, "note": "not a registered model"}
            for path in _unregistered_files()
        ]
    ok = all(result["ok"] for result in results)
    if as_json:
        print_indented_json({"ok": ok, "models": results})
    else:
        for result in results:
            word = "ok" if result["ok"] else "WRONG"
            notes = "; ".join(result[k] for k in ("problem", "note") if result.get(k))
            click.echo(f"{word:6}{result['path']}" + (f": {notes}" if notes else ""))
        if not results and not quiet:
            click.echo("nothing is in the cache")
    if not ok:
        ctx.exit(WeightsError.exit_code)


def _verify(entry: RegistryEntry, quiet: bool) -> dict[str, Any]:
    from realesr_cli.weights.fetch import find_problem

    path = registry.cached(entry)
    result: dict[str, Any] = {"name": entry.name, "path": path, "ok": False}
    if path is None:
        return {**result, "path": registry.cache_path(entry), "problem": "not in the cache"}
    with ProgressBar(entry.name, bytes=True, enabled=not quiet) as progress:
        result["sha256"] = cache.sha256_of(path, progress)
    if entry.sha256 is None and cache.recorded_hash(path) is None:
        return {**result, "ok": True, "note": "its SHA-256 is not known, nothing to compare with"}
    problem = find_problem(entry, path, sha256=result["sha256"])
    return {**result, "ok": not problem, **({"problem": problem} if problem else {})}


def _unregistered_files() -> list[Path]:
    """Return the weight files in the cache that no entry owns."""
    folder = registry.weights_dir()
    owned = {registry.cache_path(e) for e in registry.entries()}
    return sorted(p for p in folder.rglob("*") if p.suffix in registry.SUFFIXES and p not in owned)


@models_group.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the model (one file only); default: the file's name.")
@click.option(
    "--assume",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set what the tensors do not determine, e.g. activation=leakyrelu or scale=3 (one file "
    "only).",
)
@quiet_option
@json_option
def import_command(
    path: Path, name: str | None, assume: tuple[str, ...], quiet: bool, as_json: bool
) -> None:
    """Copy a model file, or those of a ComfyUI or A1111 folder, into the cache.

    PATH is a weight file, a folder of them, or the folder of ComfyUI (models/upscale_models) or
    A1111 (models/ESRGAN, models/RealESRGAN). Official files are recognized by their SHA-256,
    others by their tensors; nothing in a file is ever run.
    """
    from realesr_cli.weights.import_models import SkippedFile, import_file, import_models

    assumed = dict(_split_assumption(text) for text in assume)
    skipped: list[SkippedFile] = []
    if path.is_dir():
        if name is not None or assumed:
            raise ConfigError(f"--name and --assume are for one file, and {path} is a folder")
        imported, skipped = import_models(path)
    else:
        imported = [import_file(path, name=name, assume=assumed)]
    if as_json:
        models = [
            {"name": i.entry.name, "source": i.source, "path": i.path, "new": i.new}
            for i in imported
        ]
        print_indented_json({"imported": models, "skipped": skipped})
    else:
        for item in skipped:
            say_warning(f"skipped {item.reason}")
        for done in imported:
            if not quiet:
                word = "imported" if done.new else "already there:"
                click.echo(f"{word} {done.entry.name} from {done.source}")
    if not imported:
        raise UnknownModelError(f"{path}: none of its {len(skipped)} weight files can be imported")


def _split_assumption(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise ConfigError(f"--assume: expected NAME=VALUE, got {text!r}")
    return key, value


@models_group.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=ModelType())
@yes_option
@json_option
def rm_command(names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove models from the cache; official ones can be downloaded again."""
    chosen = [registry.resolve(name) for name in names]
    present = [e for e in chosen if e.imported or _files_of(e)]
    for entry in chosen:
        if entry not in present:
            reason = "is part of realesr-cli and stays" if entry.bundled else "is not in the cache"
            say_warning(f"{entry.name} {reason}")
    listed = ", ".join(e.name for e in present)
    if present and not yes and not click.confirm(f"Remove {listed}?", err=True):
        present = []
    for entry in present:
        for path in _files_of(entry):
            try:
                cache.forget(path)
            except OSError as error:
                raise WeightsWriteError(f"{path}: cannot be removed: {error.strerror}") from error
        if entry.imported:
            registry.remove_imported(entry.name)
    if as_json:
        print_indented_json({"removed": [e.name for e in present]})
    elif present:
        click.echo(f"removed {listed}")


def _files_of(entry: RegistryEntry) -> list[Path]:
    path = registry.cache_path(entry)
    part = path.with_name(path.name + ".part")
    return [p for p in (path, part, part.with_name(part.name + ".json")) if p.exists()]


@models_group.command("path")
@click.argument("name", required=False, type=ModelType())
@json_option
def path_command(name: str | None, as_json: bool) -> None:
    """Print the cache folder, or the path of model NAME's file."""
    path: Path | None = registry.weights_dir()
    if name is not None:
        entry = registry.resolve(name)
        path = registry.cached(entry)
        if path is None:
            raise ModelUnavailableError(
                f"{entry.name} is not in the cache; `realesr models pull {entry.name}` downloads it"
            )
    if as_json:
        print_indented_json({"home": registry.home(), "path": path})
    else:
        click.echo(str(path))
