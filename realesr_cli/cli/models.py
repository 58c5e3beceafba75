"""`realesr models`: list, info, pull, verify, import, rm, path; interpolate and card join in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from realesr_cli.cli.card import card_command
from realesr_cli.cli.interpolate import interpolate_command
from realesr_cli.cli.options import ModelType, json_option, offline_option, quiet_option, yes_option
from realesr_cli.cli.terminal import ProgressBar, say_error, say_warning
from realesr_cli.errors import ConfigError, ModelUnavailableError, UnknownModelError, WeightsError
from realesr_cli.settings import to_plain
from realesr_cli.weights import cache, registry
from realesr_cli.weights.registry import RegistryEntry

_LONGEST_RECORD = 100
"""Characters of a recorded value that `info` shows."""


@click.group("models")
def models_group() -> None:
    """List, fetch, check, import and mix models.

    Models are kept in a cache folder (`realesr models path`); the variable REALESR_HOME chooses
    another. A model is named by its official name or a short one, in upper or lower case.
    """


models_group.add_command(interpolate_command)
models_group.add_command(card_command)


def _print_json(data: Any) -> None:
    click.echo(json.dumps(to_plain(data), ensure_ascii=False, indent=2))


def size_text(count: int | None) -> str:
    """A number of bytes for people: `63.9 MiB`; `?` where it is not known."""
    if count is None:
        return "?"
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


@models_group.command("list")
@click.option("--cached", "only_cached", is_flag=True, help="Only models that are in the cache.")
@json_option
def list_command(only_cached: bool, as_json: bool) -> None:
    """List every known model, with its short names and whether it is in the cache."""
    rows = [(e, registry.cached(e)) for e in registry.entries()]
    if only_cached:
        rows = [row for row in rows if row[1] is not None]
    if as_json:
        models = [{**to_plain(e), "path": to_plain(p), "cached": p is not None} for e, p in rows]
        _print_json({"format": 1, "home": registry.home(), "models": models})
        return
    if not rows:
        click.echo("no model is in the cache; `realesr models pull NAME` fetches one")
        return
    name_width = max(len(e.name) for e, _ in rows)
    header = f"{'NAME':{name_width}}  SCALE  {'SIZE':>9}  CACHED  FOR"
    click.echo(header)
    for entry, path in rows:
        scale = f"x{entry.scale}" if entry.scale else "-"
        mark = "yes" if path else "-"
        line = f"{entry.name:{name_width}}  {scale:5}  {size_text(entry.bytes):>9}  {mark:6}  "
        click.echo(line + entry.about)
        if entry.aliases:
            click.echo(f"{'':{name_width}}  also: {', '.join(entry.aliases)}")


@models_group.command("info")
@click.argument("model", type=ModelType())
@json_option
def info_command(model: str, as_json: bool) -> None:
    """Tell everything about MODEL: a name, a weight file, or the folder of a training run."""
    from realesr_cli.weights.inspect import inspect

    info = inspect(model)
    if as_json:
        _print_json(info)
        return
    where = str(info.path or ("mixed when it is used" if info.cached else "not in the cache"))
    rows = [
        ("name", info.name),
        ("also", ", ".join(info.aliases)),
        ("for", info.about),
        ("kind", info.kind),
        ("network", info.description or ""),
        ("parameters", f"{info.parameters:,}" if info.parameters else ""),
        ("scale", f"x{info.scale}" if info.scale else ""),
        ("license", info.license),
        ("file", where),
        ("size", f"{info.bytes:,} bytes" if info.bytes else "not known"),
        ("sha256", info.sha256 or "not known"),
        *(("address", url) for url in info.urls),
        *recorded_rows(info.recorded),
    ]
    for label, text in rows:
        if text:
            click.echo(f"{label + ':':12}{text}")
    if info.problem:
        say_warning(f"{where}: {info.problem}")


def recorded_rows(recorded: dict[str, Any]) -> list[tuple[str, str]]:
    """What a file says of itself, as labels and texts; each file it was made of has a line."""
    rows = []
    for key, value in recorded.items():
        if key == "sources" and isinstance(value, list) and all(isinstance(s, dict) for s in value):
            rows += [("made of", recorded_text(_source_facts(source))) for source in value]
        else:
            rows.append((key, recorded_text(value)))
    return rows


def _source_facts(source: dict[str, Any]) -> dict[str, Any]:
    """One line's worth of a source: the start of its hash, and whether it is a mixture itself."""
    shown = {key: source[key] for key in ("name", "share", "license", "sha256") if source.get(key)}
    if "sha256" in shown:
        shown["sha256"] = str(shown["sha256"])[:12]
    return shown | ({"itself of": len(source["sources"])} if source.get("sources") else {})


def recorded_text(value: Any) -> str:
    """On one line what a trained file records of itself; a whole configuration is only named."""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict) and not any(isinstance(v, (dict, list)) for v in value.values()):
        text = ", ".join(f"{key} {recorded_text(item)}" for key, item in value.items())
    else:
        # As JSON, so that a file from elsewhere cannot send control characters to the terminal.
        text = json.dumps(value, ensure_ascii=False)
        text = text[1:-1] if isinstance(value, str) else text
    return text if len(text) <= _LONGEST_RECORD else f"{len(text):,} characters (--json shows all)"


@models_group.command("pull")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=ModelType())
@click.option(
    "--allow-unverified",
    is_flag=True,
    help="Fetch a file whose SHA-256 is not known; the hash found is remembered.",
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
    """Fetch models into the cache; an interrupted download goes on where it stopped.

    Size and SHA-256 are checked before a file gets its name. Proxies are taken from the
    environment (HTTPS_PROXY, NO_PROXY).
    """
    from realesr_cli.weights.fetch import ensure

    results: list[dict[str, Any]] = []
    failed: WeightsError | None = None
    for entry in [registry.resolve(name) for name in names]:
        if not quiet and registry.cached(entry) is None:
            size = size_text(entry.bytes)
            click.echo(f"{entry.name}: {size}, license {entry.license}", err=True)
        try:
            with ProgressBar(entry.name, bytes=True, enabled=not quiet) as progress:
                path = ensure(
                    entry, offline=offline, report=progress, allow_unverified=allow_unverified
                )
        except WeightsError as error:
            failed = error
            say_error(str(error))
            results.append({"name": entry.name, "ok": False, "error": str(error)})
            continue
        unverified = entry.sha256 is None
        if unverified and not quiet:
            say_warning(f"{entry.name}: its SHA-256 could not be compared with a known one")
        result = {"name": entry.name, "ok": True, "path": path, "license": entry.license}
        results.append({**result, "verified": not unverified})
        if not as_json and not quiet:
            click.echo(f"{entry.name}: {path}")
    if as_json:
        _print_json({"models": results})
    if failed is not None:
        ctx.exit(failed.exit_code)


@models_group.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]", type=ModelType())
@quiet_option
@json_option
@click.pass_context
def verify_command(ctx: click.Context, names: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Read every cached file (or those named) again and compare size and SHA-256.

    Exit code 3 if something is wrong; `realesr models pull NAME` replaces a damaged file.
    """
    chosen = [registry.resolve(name) for name in names] or list(registry.entries())
    results = [_verify(e, quiet) for e in chosen if names or registry.cached(e)]
    if not names:
        results += [
            {"name": None, "path": path, "ok": True, "note": "no registered model"}
            for path in _strangers()
        ]
    ok = all(result["ok"] for result in results)
    if as_json:
        _print_json({"ok": ok, "models": results})
    else:
        for result in results:
            word = "ok" if result["ok"] else "WRONG"
            told = "; ".join(result[k] for k in ("problem", "note") if result.get(k))
            click.echo(f"{word:6}{result['path']}" + (f": {told}" if told else ""))
        if not results and not quiet:
            click.echo("nothing is in the cache")
    if not ok:
        ctx.exit(WeightsError.exit_code)


def _verify(entry: RegistryEntry, quiet: bool) -> dict[str, Any]:
    path = registry.cached(entry)
    result: dict[str, Any] = {"name": entry.name, "path": path, "ok": False}
    if path is None:
        return {**result, "path": registry.cache_path(entry), "problem": "not in the cache"}
    expected = entry.sha256 or cache.recorded_hash(path)
    with ProgressBar(entry.name, bytes=True, enabled=not quiet) as progress:
        found = cache.sha256_of(path, progress)
    result["sha256"] = found
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        return {**result, "problem": f"{size} bytes where {entry.bytes} belong"}
    if expected is None:
        return {**result, "ok": True, "note": "its SHA-256 is not known, nothing to compare with"}
    if found != expected:
        return {**result, "problem": f"SHA-256 {found} where {expected} belongs"}
    if path != registry.bundled_path(entry):
        cache.remember_hash(path, found)
    return {**result, "ok": True}


def _strangers() -> list[Path]:
    """Weight files in the cache that no entry owns."""
    folder = registry.weights_dir()
    owned = {registry.cache_path(e) for e in registry.entries()}
    return sorted(p for p in folder.rglob("*") if p.suffix in registry.SUFFIXES and p not in owned)


@models_group.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="What to call the model (one file only); else as the file is called.")
@quiet_option
@json_option
def import_command(path: Path, name: str | None, quiet: bool, as_json: bool) -> None:
    """Copy a model file, or those of a ComfyUI or A1111 folder, into the cache.

    PATH may be a weight file, a folder of them, or the folder of ComfyUI (models/upscale_models)
    or A1111 (models/ESRGAN, models/RealESRGAN). Official files are recognized by their SHA-256,
    others by their tensors; nothing in a file is ever run.
    """
    from realesr_cli.weights.import_models import import_file, import_models

    if path.is_dir():
        if name is not None:
            raise ConfigError(f"--name goes with one file, and {path} is a folder")
        imported, skipped = import_models(path)
    else:
        imported, skipped = [import_file(path, name=name)], []
    if as_json:
        models = [
            {"name": i.entry.name, "source": i.source, "path": i.path, "new": i.new}
            for i in imported
        ]
        _print_json({"imported": models, "skipped": skipped})
    else:
        for item in skipped:
            say_warning(f"skipped {item.reason}")
        for done in imported:
            if not quiet:
                word = "imported" if done.new else "already there:"
                click.echo(f"{word} {done.entry.name} from {done.source}")
    if not imported:
        raise UnknownModelError(
            f"{path}: none of its {len(skipped)} weight files could be imported"
        )


@models_group.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=ModelType())
@yes_option
@json_option
def rm_command(names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove models from the cache; official ones can be fetched again."""
    chosen = [registry.resolve(name) for name in names]
    there = [e for e in chosen if e.imported or _files_of(e)]
    for entry in chosen:
        if entry not in there:
            kept = (
                "is installed with realesr-cli and stays"
                if entry.bundled
                else "is not in the cache"
            )
            say_warning(f"{entry.name} {kept}")
    listed = ", ".join(e.name for e in there)
    if there and not yes and not click.confirm(f"Remove {listed}?", err=True):
        there = []
    for entry in there:
        for path in _files_of(entry):
            cache.forget(path)
        if entry.imported:
            registry.remove_imported(entry.name)
    if as_json:
        _print_json({"removed": [e.name for e in there]})
    elif there:
        click.echo(f"removed {listed}")


def _files_of(entry: RegistryEntry) -> list[Path]:
    path = registry.cache_path(entry)
    part = path.with_name(path.name + ".part")
    return [p for p in (path, part, part.with_name(part.name + ".json")) if p.exists()]


@models_group.command("path")
@click.argument("name", required=False, type=ModelType())
@json_option
def path_command(name: str | None, as_json: bool) -> None:
    """Print the cache folder, or where the file of model NAME is."""
    path: Path | None = registry.weights_dir()
    if name is not None:
        entry = registry.resolve(name)
        path = registry.cached(entry)
        if path is None:
            raise ModelUnavailableError(
                f"{entry.name} is not in the cache; `realesr models pull {entry.name}` fetches it"
            )
    if as_json:
        _print_json({"home": registry.home(), "path": path})
    else:
        click.echo(str(path))
