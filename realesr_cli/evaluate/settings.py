"""What an evaluation is asked for: which images, and which scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realesr_cli.errors import ConfigError
from realesr_cli.settings import check, option

Channel = Literal["mixed", "y", "y8", "rgb"]


@dataclass(frozen=True)
class ImageSetSettings:
    """Which images are judged, and what the models are given."""

    gt: Path | None = option(None, help="Folder of ground truths.")
    lq: Path | None = option(None, help="Folder of the small images that the models enlarge.")
    degrade: str | None = option(
        None,
        help="Make the small images from the ground truths: 'bicubic' (MATLAB's), a degradation "
        "(`realesr degrade --list`), or a TOML file with one.",
    )
    scale: int | None = option(
        None, help="How many times larger; that of the models if not given.", low=1, high=16
    )
    seed: int = option(0, help="Of the degradation: the same number, the same images.", low=0)
    recursive: bool = option(False, help="Search subfolders too.")
    gt_prefix: str = option("", help="What ground truths' names begin with, before the name.")
    gt_suffix: str = option("", help="What follows the name: '_HR'. Other files are passed over.")
    lq_prefix: str = option("", help="The same for the small images.")
    lq_suffix: str = option("", help="The same for the small images: '_LR' or 'x4'.")

    def __post_init__(self) -> None:
        check(self)
        if self.lq is not None and self.degrade is not None:
            raise ConfigError("--lq and --degrade: the small images are given or made, not both")
        if self.degrade is not None and self.gt is None:
            raise ConfigError("--degrade makes small images from ground truths: give --gt")


@dataclass(frozen=True)
class ScoreSettings:
    """Which scores are wanted, and what is kept."""

    metrics: tuple[str, ...] = option(
        ("psnr", "ssim", "niqe"),
        help="Columns of the table, separated by commas: psnr, ssim, niqe, lpips, rmse, pi; "
        "psnr-rgb, psnr-y, psnr-y8 and so on name the channel themselves.",
    )
    channel: Channel = option(
        "mixed",
        help="What psnr and ssim compare: y (luma), y8 (luma rounded to 8 bits, as MATLAB does), "
        "rgb, or mixed: PSNR on RGB and SSIM on luma.",
        choices=("mixed", "y", "y8", "rgb"),
    )
    crop: int | None = option(
        None, help="Border pixels left out on each side; the scale if not given.", low=0
    )
    lpips_net: Literal["alex", "vgg", "squeeze"] = option(
        "alex",
        help="Network beneath lpips, which realesr-cli[lpips] installs.",
        choices=("alex", "vgg", "squeeze"),
    )
    ma: Path | None = option(
        None,
        help="Scores of Ma et al. for the column pi, a CSV of image,score or of "
        "method,image,score, or JSON. They are made elsewhere: the forests they come from may "
        "not be shipped.",
    )
    save: Path | None = option(None, help="Keep what is made: FOLDER/ROW/NAME.png.")
    overwrite: bool = option(False, help="Replace images that are in --save already.")

    def __post_init__(self) -> None:
        check(self)
        if "pi" in self.metrics and self.ma is None:
            raise ConfigError(
                "pi = ((10 - Ma) + NIQE) / 2 needs scores of Ma et al.: give a file of them with "
                "--ma (they cannot be computed here)"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns; scores of Ma et al. are given for the sake of pi."""
        wanted = self.ma is not None and "pi" not in self.metrics
        return (*self.metrics, "pi") if wanted else self.metrics
