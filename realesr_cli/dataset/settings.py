"""Settings of `realesr dataset`; imports neither torch nor numpy, for the help pages."""

from __future__ import annotations

from dataclasses import dataclass

from realesr_cli.errors import ConfigError
from realesr_cli.settings import check, option


@dataclass(frozen=True)
class CheckSettings:
    """What counts as a problem of a dataset."""

    scale: int = option(4, help="Ground truth size over LQ size, for pairs.", low=1, high=16)
    lq_prefix: str = option("", help="Prefix of LQ file names; others are skipped.")
    lq_suffix: str = option("", help="Suffix of LQ file stems, e.g. x4.")
    min_size: int = option(
        256, help="Shortest side of a ground truth in pixels: the training crop.", low=1
    )
    max_blockiness: float = option(
        1.5,
        help="Largest step at JPEG block borders in 8-bit levels; 1.2 is about JPEG quality 50, "
        "1.7 about 30.",
        above=0,
    )
    hash_distance: int = option(
        6, help="Bits of 64 in which the hashes of near-duplicates may differ.", low=0, high=20
    )
    min_correlation: float = option(
        0.7, help="Smallest correlation of the two images of a pair.", low=-1, high=1
    )
    workers: int = option(4, help="Images decoded at the same time.", low=1, high=64)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PrepareSettings:
    """Which training files are made of an image."""

    scales: tuple[float, ...] = option(
        (0.75, 0.5, 1 / 3), help="Downscaled versions, by these factors.", above=0, high=1
    )
    shortest_edge: int = option(
        400, help="One more version with this shortest edge in pixels; 0: none.", low=0
    )
    original: bool = option(True, help="Include the image at its own size.")
    crop_size: int = option(400, help="Side of the crops in pixels; 0: whole images.", low=0)
    step: int = option(200, help="Pixels from one crop to the next.", low=1)
    thresh_size: int = option(
        0, help="Remaining pixels at the right and bottom that need no crop of their own.", low=0
    )
    min_detail: float = option(
        0.0,
        help="Exclude crops with less fine detail, in 8-bit levels; soft photos have about 2, "
        "sharp ones 4.",
        low=0,
    )
    scale: int = option(4, help="Ground truth size over LQ size, for pairs.", low=1, high=16)
    lq_prefix: str = option("", help="Prefix of LQ file names; others are skipped.")
    lq_suffix: str = option("", help="Suffix of LQ file stems, e.g. x4.")
    compress_level: int = option(3, help="PNG compression level.", low=0, high=9)
    workers: int = option(4, help="Images processed at the same time.", low=1, high=64)

    def __post_init__(self) -> None:
        check(self)
        if not self.original and not self.scales and not self.shortest_edge:
            raise ConfigError("scales, shortest_edge and original are all off: no version is left")
        if 0 < self.crop_size < self.step:
            raise ConfigError(
                f"step = {self.step} is larger than crop_size = {self.crop_size}: pixels between "
                "crops would be lost"
            )
