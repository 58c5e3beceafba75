"""Settings of a video: what is kept, how it is encoded, in what pieces it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realesr_cli.errors import ConfigError
from realesr_cli.settings import check, option

CODECS = (
    "x264", "x265", "av1", "vp9", "ffv1", "prores", "h264_nvenc", "hevc_nvenc", "av1_nvenc",
)  # fmt: skip


@dataclass(frozen=True)
class VideoSettings:
    """Settings of a video, apart from how a frame is upscaled and on which device."""

    codec: str = option(
        "auto",
        help="Video codec: auto is x264 for 8-bit sources, x265 for others, vp9 in WebM.",
        choices=("auto", *CODECS),
    )
    crf: int | None = option(
        None, help="Constant quality, lower is better; default: that of the codec.", low=0, high=63
    )
    preset: str | None = option(
        None, help="Speed of the encoder, as in slow or 6; default: that of the codec."
    )
    encoder_opt: tuple[str, ...] = option(
        (), help="Option of the encoder as NAME=VALUE; may be repeated."
    )
    pix_fmt: str = option(
        "auto", help="Pixel format; auto is the source's, or the nearest that the codec has."
    )
    color: Literal["auto", "bt601", "bt709", "bt2020"] = option(
        "auto",
        help="Color matrix of the source; auto believes its tags, and without tags its size.",
        choices=("auto", "bt601", "bt709", "bt2020"),
    )
    range: Literal["auto", "tv", "pc"] = option(
        "auto", help="Range of the source: tv (limited) or pc (full).", choices=("auto", "tv", "pc")
    )
    hdr: Literal["keep", "refuse"] = option(
        "keep", help="What to do with HDR sources.", choices=("keep", "refuse")
    )
    deinterlace: Literal["off", "auto", "bwdif"] = option(
        "off",
        help="Deinterlace: auto where frames are flagged as interlaced, bwdif always.",
        choices=("off", "auto", "bwdif"),
    )
    dedupe: Literal["off", "exact", "near"] = option(
        "exact",
        help="Reuse the result for repeated frames: exactly equal, or near (noise ignored).",
        choices=("off", "exact", "near"),
    )
    tile_cache: int = option(
        256, help="Memory for results of unchanged tiles in MiB; 0 is off. Bit-identical.", low=0
    )
    start: float = option(0.0, help="Where to start, in seconds.", low=0)
    end: float | None = option(None, help="Where to end, in seconds; default: at the end.", above=0)
    frames: int | None = option(None, help="Most frames to do, for a sample.", low=1)
    chunk_seconds: float = option(
        10.0, help="Length of a chunk, what an interruption loses at most.", low=0.04, high=3600
    )
    workers: int | None = option(
        None, help="Processes that work at a time; default: one for each device.", low=1, high=64
    )
    audio: bool = option(True, help="Copy the audio streams.")
    subs: bool = option(True, help="Copy the subtitle streams.")
    drop_incompatible: bool = option(False, help="Drop streams that the container cannot hold.")
    strict: bool = option(False, help="Stop at the first frame that cannot be decoded.")
    resume: bool = option(True, help="Continue an interrupted run of the same settings.")
    job_dir: Path | None = option(
        None, help="Folder of finished chunks; default: the output's name and .realesr-job."
    )
    keep_job: bool = option(False, help="Keep the folder of chunks at the end.")
    overwrite: bool = option(False, help="Replace an existing output.")

    def __post_init__(self) -> None:
        check(self)
        if self.end is not None and self.end <= self.start:
            raise ConfigError(f"end = {self.end:g}: expected more than start = {self.start:g}")
        for text in self.encoder_opt:
            if not text.partition("=")[0] or "=" not in text:
                raise ConfigError(f"encoder_opt = {text!r}: expected NAME=VALUE")


def parse_devices(text: str) -> tuple[str, ...]:
    """Split `cuda:0,cuda:1` into names. Raises ConfigError for an empty or repeated one."""
    devices = tuple(name.strip() for name in text.split(","))
    if not all(devices) or len(set(devices)) != len(devices):
        raise ConfigError(
            f"device = {text!r}: expected devices separated by commas, as cuda:0,cuda:1"
        )
    return devices
