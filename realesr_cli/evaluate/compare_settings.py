"""What a comparison by eye is asked for: what is measured, and how page and sheet look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from realesr_cli.errors import ConfigError
from realesr_cli.evaluate.settings import Channel
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS
from realesr_cli.settings import check, option


@dataclass(frozen=True)
class CompareSettings:
    """What is measured, and what is refused."""

    scores: bool = option(
        True, help="Measure PSNR and SSIM against --gt, or NIQE where it is not given."
    )
    channel: Channel = option(
        "mixed",
        help="What PSNR and SSIM compare: y, y8 (rounded luma), rgb, or mixed: PSNR on RGB and "
        "SSIM on luma.",
        choices=get_args(Channel),
    )
    max_pixels: int = option(
        DEFAULT_MAX_PIXELS, help="Refuse inputs with more pixels than this.", low=1
    )
    offline: bool | None = option(None, help="Never use the network.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PageSettings:
    """How the page is written."""

    title: str | None = option(None, help="Heading of the page; the photo's name if not given.")
    quality: int | None = option(
        None,
        help="Quality of the images in the page, for a smaller one; without loss if not given.",
        low=1,
        high=100,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class CropRegion:
    """A part of a photo, in pixels of the input: left, top, width, height."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> CropRegion:
        """`X,Y,WIDTH,HEIGHT`; ConfigError where it is not four such numbers."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) != 4 or not all(part.isdecimal() for part in parts):
            raise ConfigError(f"{text!r}: expected X,Y,WIDTH,HEIGHT in pixels, as in 40,25,64,64")
        crop = cls(*(int(part) for part in parts))
        if not (crop.width and crop.height):
            raise ConfigError(f"{text!r}: a crop has at least one pixel")
        return crop

    def require_inside(self, name: str, size: tuple[int, int]) -> None:
        """ConfigError where a photo of that (height, width) does not hold the crop."""
        height, width = size
        if self.x + self.width > width or self.y + self.height > height:
            raise ConfigError(
                f"crop {self.x},{self.y},{self.width},{self.height} reaches beyond {name} of "
                f"{width}x{height} pixels: crops are in pixels of the input"
            )


@dataclass(frozen=True)
class SheetSettings:
    """Which parts of the photos are on the sheet: the chosen ones, or the most detailed."""

    crops: int = option(3, help="How many detailed parts of each photo are shown.", low=1, high=50)
    crop_size: int = option(
        256, help="Side of these parts, in pixels of the enlarged image.", low=16, high=4096
    )
    chosen: tuple[CropRegion, ...] = option((), help="Parts to show instead.")

    def __post_init__(self) -> None:
        check(self)
