"""`realesr doctor`: versions, devices, what `auto` chooses and why, problems and their fixes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from realesr_cli.cli.options import json_option
from realesr_cli.text import format_bytes

if TYPE_CHECKING:
    from realesr_cli.diagnostics.environment import EnvironmentReport
    from realesr_cli.engine.policy import Policy


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> int:
    """Show versions, devices, auto-selected settings, and how to fix problems.

    For GPUs and backends, also why one is not used and which command changes that. Nothing is
    downloaded. The exit code is 1 if something does not work.
    """
    from realesr_cli.diagnostics.environment import examine
    from realesr_cli.settings import to_plain

    report = examine()
    if as_json:
        click.echo(json.dumps(to_plain(report), indent=1))
    else:
        for title, lines in format_sections(report):
            click.echo(f"{title}\n" + "".join(f"  {line}\n" for line in lines))
    return int(any(finding.level == "problem" for finding in report.findings))


def format_sections(report: EnvironmentReport) -> Iterator[tuple[str, list[str]]]:
    """Yield the report as titles and lines."""
    yield "Versions", [f"{name} {version or '-'}" for name, version in report.versions.items()]
    yield (
        "Machine",
        [
            report.system,
            f"{report.processor}, {report.cores} usable cores, {report.threads} threads",
            f"instruction sets: {', '.join(report.cpu_flags) or 'no AVX2, AVX-512 or bf16'}",
            f"{format_bytes(report.memory_available)} of memory available",
        ],
    )
    gpus = [
        f"{gpu.device}: {gpu.name}, {format_bytes(gpu.free)} of {format_bytes(gpu.total)} free"
        for gpu in report.devices
    ]
    yield "GPU", [*gpus, report.gpu.why]
    yield "Backends", _format_backends(report)
    yield "Measured backends", _format_races(report)
    for chosen in report.auto:
        yield f"auto with {chosen.model}", _format_policy(chosen.policy)
    yield (
        "Libraries",
        [
            f"{lib.name} {lib.version or 'not installed'} ({lib.purpose})"
            + (" CANNOT BE LOADED" if lib.problem else "")
            for lib in report.libraries
        ],
    )
    yield "Models", _format_cache(report)
    yield "Problems and suggested fixes", _format_findings(report)


def _format_backends(report: EnvironmentReport) -> list[str]:
    lines = []
    for backend in report.backends:
        lines.append(f"{backend.name}: {'' if backend.usable else 'not usable: '}{backend.reason}")
        if backend.fix is not None:
            lines.append(f"  {backend.fix}")
    return lines


def _format_races(report: EnvironmentReport) -> list[str]:
    lines = [
        f"{race.family}: {race.rival.backend} ({race.rival.precision}) {race.ratio:.2f} times as "
        f"fast as {race.own.backend} ({race.own.precision}, {race.own.pixels / 1e6:.2f} megapixels "
        "of input per second)"
        for race in report.races
    ]
    return lines or ["none: auto measures those that may be faster when a model first needs it"]


def _format_policy(policy: Policy) -> list[str]:
    head = f"{policy.device}, {policy.precision}, {policy.threads} threads, batch {policy.batch}"
    return [head, *policy.reasons]


def _format_cache(report: EnvironmentReport) -> list[str]:
    cache = report.cache
    held = ", ".join(cache.models) or "no model yet"
    lines = [
        f"{cache.folder}" + ("" if cache.writable else " (NOT WRITABLE)"),
        f"{held} ({format_bytes(cache.bytes)})",
    ]
    if report.offline:
        lines.append("offline: nothing is downloaded")
    return lines + [f"{name}={value}" for name, value in report.environment.items()]


def _format_findings(report: EnvironmentReport) -> list[str]:
    lines = []
    for finding in report.findings:
        lines.append(f"{finding.level}: {finding.what}")
        if finding.fix is not None:
            lines.append(f"  {finding.fix}")
    return lines or ["none"]
