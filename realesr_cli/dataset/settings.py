"""What `realesr dataset` is asked for; loads neither torch nor numpy, for the help pages."""

from __future__ import annotations

from dataclasses import dataclass

from realesr_cli.errors import ConfigError
from realesr_cli.settings import check, option


@dataclass(frozen=True)
class CheckSettings:
    """What a dataset is held against."""

    scale: int = option(4, help="Ground truth over low quality, for pairs.", low=1, high=16)
    lq_prefix: str = option("", help="What low-quality names have before the others' names.")
    lq_suffix: str = option("", help="What they have after it, as in x4.")
    smallest: int = option(
        256, help="Least side of a ground truth in pixels: the training crop.", low=1
    )
    blockiness: float = option(
        1.5,
        help="Steps at borders of JPEG blocks, of 255, from which an image counts as blocky; "
        "1.2 is about JPEG quality 50, 1.7 about 30.",
        above=0,
    )
    distance: int = option(
        6, help="Bits of 64 in which perceptual hashes of near-duplicates differ.", low=0, high=20
    )
    likeness: float = option(
        0.7, help="Least correlation of the two images of a pair.", low=-1, high=1
    )
    workers: int = option(4, help="Images decoded at the same time.", low=1, high=64)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PrepareSettings:
    """How images are made ready."""

    scales: tuple[float, ...] = option(
        (0.75, 0.5, 1 / 3), help="Smaller versions by these factors.", above=0, high=1
    )
    shortest: int = option(
        400, help="One more version with this shortest edge in pixels; 0: none.", low=0
    )
    original: bool = option(True, help="Take the image itself as well.")
    side: int = option(400, help="Squares of this side in pixels; 0: whole images.", low=0)
    step: int = option(200, help="Pixels from one square to the next.", low=1)
    rest: int = option(
        0, help="Pixels that may be left at the right and bottom without another square.", low=0
    )
    least_detail: float = option(
        0.0,
        help="Leave out squares with less fine detail than this, of 255; soft photographs have "
        "about 2, sharp ones 4.",
        low=0,
    )
    scale: int = option(4, help="Ground truth over low quality, for pairs.", low=1, high=16)
    lq_prefix: str = option("", help="What low-quality names have before the others' names.")
    lq_suffix: str = option("", help="What they have after it, as in x4.")
    compress_level: int = option(3, help="Effort of PNG compression.", low=0, high=9)
    workers: int = option(4, help="Images worked on at the same time.", low=1, high=64)

    def __post_init__(self) -> None:
        check(self)
        if not self.original and not self.scales and not self.shortest:
            raise ConfigError("scales, shortest and original are all off: nothing would be made")
        if 0 < self.side < self.step:
            raise ConfigError(
                f"step = {self.step} is larger than the squares of {self.side}: pixels between "
                "them would be lost"
            )
