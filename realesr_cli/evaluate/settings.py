"""Settings of evaluations and comparisons: which images, which scores, how results are shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from realesr_cli.errors import ConfigError
from realesr_cli.image.formats import DEFAULT_MAX_PIXELS
from realesr_cli.settings import check, option

Channel = Literal["mixed", "y", "y8", "rgb"]
LpipsNet = Literal["alex", "vgg", "squeeze"]


@dataclass(frozen=True)
class ImageSetSettings:
    """Which images are evaluated, and what the models upscale."""

    gt: Path | None = option(None, help="Folder of ground truths.")
    lq: Path | None = option(None, help="Folder of low-quality images that the models upscale.")
    degrade: str | None = option(
        None,
        help="Create the low-quality images from the ground truths: 'bicubic' (MATLAB's), a preset "
        "of `realesr degrade`, or a TOML file.",
    )
    scale: int | None = option(
        None, help="Upscaling factor; default: that of the models.", low=1, high=16
    )
    seed: int = option(0, help="Random seed of the degradation.", low=0)
    recursive: bool = option(False, help="Search subfolders too.")
    gt_prefix: str = option("", help="Prefix of ground-truth file names; others are skipped.")
    gt_suffix: str = option("", help="Suffix of ground-truth file stems, e.g. _HR.")
    lq_prefix: str = option("", help="Prefix of LQ file names; others are skipped.")
    lq_suffix: str = option("", help="Suffix of LQ file stems, e.g. x4.")

    def __post_init__(self) -> None:
        check(self)
        if self.lq is not None and self.degrade is not None:
            raise ConfigError(
                "lq and degrade are both set, but the low-quality images are either given or "
                "created: omit one of them"
            )
        if self.degrade is not None and self.gt is None:
            raise ConfigError(
                "degrade is set without gt: low-quality images are created from ground truths"
            )

    @property
    def upscales(self) -> bool:
        """Whether there are low-quality images, given or created, to upscale."""
        return self.lq is not None or self.degrade is not None


@dataclass(frozen=True)
class ScoreSettings:
    """Which scores are computed, and which images are saved."""

    metrics: tuple[str, ...] = option(
        ("psnr", "ssim", "niqe"),
        help="Columns, separated by commas: psnr, ssim, niqe, feat-squeeze, lpips, dists; "
        "psnr-rgb, psnr-y, psnr-y8 and so on name the channel too.",
    )
    channel: Channel = option(
        "mixed",
        help="Channel of psnr and ssim: y (luma), y8 (luma rounded to 8 bits, as in MATLAB), rgb, "
        "or mixed (PSNR on RGB, SSIM on luma).",
        choices=get_args(Channel),
    )
    crop: int | None = option(
        None, help="Border pixels excluded on each side; default: the scale.", low=0
    )
    feat_weights: Path | None = option(
        None,
        help="Weights of feat-squeeze: a file in torchvision's layout of squeezenet1_1; default: "
        "the imported file.",
    )
    lpips_net: LpipsNet = option("alex", help="Backbone of lpips.", choices=get_args(LpipsNet))
    save: Path | None = option(None, help="Save the images as FOLDER/ROW/NAME.png.")
    overwrite: bool = option(False, help="Replace images in the save folder.")
    offline: bool | None = option(None, help="Never use the network.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class CompareSettings:
    """Which scores a comparison shows, and which inputs it refuses."""

    scores: bool = option(
        True, help="Show PSNR and SSIM against the originals, or NIQE if there are none."
    )
    channel: Channel = option(
        "mixed",
        help="Channel of PSNR and SSIM: y, y8 (rounded luma), rgb, or mixed (PSNR on RGB, SSIM on "
        "luma).",
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
    """How the HTML page of a comparison is written."""

    title: str | None = option(None, help="Title of the page; default: the photo's name.")
    quality: int | None = option(
        None,
        help="WebP quality of the images in the page; default: lossless.",
        low=1,
        high=100,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class CropRegion:
    """A part of a photo, in pixels of the input."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> CropRegion:
        """Parse `X,Y,WIDTH,HEIGHT`; ConfigError for anything else."""
        parts = [part.strip() for part in text.split(",")]
        # A number of more than ten digits is no coordinate, and int() refuses thousands of digits.
        if len(parts) != 4 or not all(p.isascii() and p.isdigit() and len(p) <= 10 for p in parts):
            raise ConfigError(
                f"{text[:60]!r}: expected X,Y,WIDTH,HEIGHT in pixels, for example 40,25,64,64"
            )
        crop = cls(*(int(part) for part in parts))
        if not (crop.width and crop.height):
            raise ConfigError(f"{text!r}: width and height must be at least 1")
        return crop

    def require_inside(self, name: str, size: tuple[int, int]) -> None:
        """Raise ConfigError if a photo of that (height, width) does not contain the crop."""
        height, width = size
        if self.x + self.width > width or self.y + self.height > height:
            raise ConfigError(
                f"crop {self.x},{self.y},{self.width},{self.height} is outside {name} "
                f"({width}x{height}): crops are in pixels of the input"
            )


@dataclass(frozen=True)
class SheetSettings:
    """Which parts of the photos are on the sheet: the given ones, or the most detailed."""

    crops: int = option(3, help="Number of detailed crops of each photo.", low=1, high=50)
    crop_size: int = option(
        256, help="Side of these crops in pixels of the upscaled image.", low=16, high=4096
    )
    regions: tuple[CropRegion, ...] = option((), help="Crops to show instead.")

    def __post_init__(self) -> None:
        check(self)
