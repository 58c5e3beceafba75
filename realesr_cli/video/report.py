"""The report of a video: what became of every frame and every stream."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realesr_cli.atomic import atomic_write_bytes
from realesr_cli.video.journal import VideoJob
from realesr_cli.video.streams import StreamInfo
from realesr_cli.video.video_plan import VideoPlan

DAMAGED_EXIT_CODE = 4


@dataclass(frozen=True)
class VideoReport:
    """What became of a video; counts are of frames unless named otherwise."""

    source: str
    target: str
    frames_in: int
    frames_out: int
    computed: int
    repeated: int
    concealed: int
    """Could not be decoded; a neighbor is shown instead."""
    corrupt: int
    """Decoded with damage."""
    truncated: bool
    """Whether the file ends before its declared end."""
    chunks: int
    chunks_resumed: int
    chunks_recomputed: int
    tile_lookups: int
    tile_hits: int
    streams: tuple[StreamInfo, ...]
    seconds: float
    """Of this run."""
    work_seconds: float
    """Of all workers and runs together."""
    bytes: int
    model: str
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, or 4 where the source is damaged."""
        damaged = self.concealed or self.corrupt or self.truncated
        return DAMAGED_EXIT_CODE if damaged else 0


def sum_up(plan: VideoPlan, job: VideoJob, model: str, kept: int) -> VideoReport:
    """Add up the counts of all chunks, of which `kept` are of earlier runs."""
    counts = [chunk.counts for chunk in job.done.values()]

    def total(name: str) -> int:
        return sum(getattr(one, name) for one in counts)

    return VideoReport(
        source=str(plan.source.path), target=str(plan.target), frames_in=plan.count,
        frames_out=total("frames"), computed=total("computed"), repeated=total("repeated"),
        concealed=total("concealed"), corrupt=total("corrupt"), truncated=plan.source.truncated,
        chunks=len(plan.chunks), chunks_resumed=kept, chunks_recomputed=job.recomputed,
        tile_lookups=total("tile_lookups"), tile_hits=total("tile_hits"), streams=plan.streams,
        seconds=0.0, work_seconds=round(sum(one.seconds for one in counts), 3), bytes=0,
        model=model, notes=plan.notes,
    )  # fmt: skip


def report_to_plain(report: VideoReport) -> dict[str, Any]:
    """Return a report as plain data."""
    return dataclasses.asdict(report)


def report_from_plain(plain: Mapping[str, Any]) -> VideoReport:
    """Return a report from what `report_to_plain` gave."""
    streams = tuple(StreamInfo(**stream) for stream in plain["streams"])
    return VideoReport(**{**plain, "streams": streams, "notes": tuple(plain["notes"])})


def write_report(report: VideoReport, target: Path) -> Path:
    """Write the report beside the result, as NAME.report.json."""
    path = target.with_name(target.name + ".report.json")
    text = json.dumps(report_to_plain(report), indent=1, ensure_ascii=False)
    atomic_write_bytes(path, text.encode())
    return path


def summarize_streams(streams: Sequence[StreamInfo]) -> str:
    """Return `4 streams copied, 1 dropped`, or nothing where there are none."""
    copied = sum(stream.copied for stream in streams)
    words = [f"{copied} streams copied"] if copied else []
    if copied < len(streams):
        words.append(f"{len(streams) - copied} dropped")
    return ", ".join(words)
