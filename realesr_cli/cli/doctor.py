"""`realesr doctor`: what is installed, what `auto` will choose and why, and what to mend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from realesr_cli.cli.options import json_option

if TYPE_CHECKING:
    from realesr_cli.diagnostics.environment import EnvironmentReport
    from realesr_cli.engine.policy import Policy

_GIB = 2**30


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> int:
    """Tell what is installed, what will be used and why, and what to mend.

    Names versions, devices, the cache and the reason why a GPU is not used, each with the one
    command that helps. Nothing is downloaded. The exit code is 1 where something does not work.
    """
    from realesr_cli.diagnostics.environment import examine
    from realesr_cli.settings import to_plain

    report = examine()
    if as_json:
        click.echo(json.dumps(to_plain(report), indent=1))
    else:
        for title, lines in sections(report):
            click.echo(f"{title}\n" + "".join(f"  {line}\n" for line in lines))
    return int(any(finding.level == "problem" for finding in report.findings))


def sections(report: EnvironmentReport) -> Iterator[tuple[str, list[str]]]:
    """The report as titles and lines for people."""
    yield "Versions", [f"{name} {version or '-'}" for name, version in report.versions.items()]
    flags = ", ".join(report.cpu_flags) or "none that matter"
    yield (
        "Machine",
        [
            report.system,
            f"{report.processor}, {report.cores} usable cores, {report.threads} threads",
            f"processor features: {flags}; fused convolutions: {'yes' if report.fused else 'no'}",
            f"{report.memory_available / _GIB:.1f} GiB of memory available",
        ],
    )
    gpus = [
        f"{g.device}: {g.name}, {g.free / _GIB:.1f} of {g.total / _GIB:.1f} GiB free"
        for g in report.devices
    ]
    yield "GPU", [*gpus, report.gpu.why]
    for chosen in report.auto:
        yield f"auto with {chosen.model}", _choice(chosen.policy)
    yield (
        "Libraries",
        [
            f"{lib.name} {lib.version or 'not installed'} ({lib.purpose})"
            + (" CANNOT BE LOADED" if lib.problem else "")
            for lib in report.libraries
        ],
    )
    yield "Models", _cache(report)
    yield "To mend", _findings(report)


def _choice(policy: Policy) -> list[str]:
    head = f"{policy.device}, {policy.precision}, {policy.threads} threads, batch {policy.batch}"
    return [head, *policy.reasons]


def _cache(report: EnvironmentReport) -> list[str]:
    cache = report.cache
    held = ", ".join(cache.models) or "no model yet"
    lines = [
        f"{cache.folder}" + ("" if cache.writable else " (CANNOT BE WRITTEN TO)"),
        f"{held} ({cache.bytes / 2**20:.0f} MiB)",
    ]
    if report.offline:
        lines.append("offline: nothing is fetched")
    return lines + [f"{name}={value}" for name, value in report.environment.items()]


def _findings(report: EnvironmentReport) -> list[str]:
    lines = []
    for finding in report.findings:
        lines.append(f"{finding.level}: {finding.what}")
        if finding.fix is not None:
            lines.append(f"  {finding.fix}")
    return lines or ["nothing"]
