"""The parts of a training configuration that all stages share, and those that each has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from realesr_cli.degrade.presets import PRESETS
from realesr_cli.errors import ConfigError
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import standard_architecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.settings import check, option

SYNTHETIC = "none"
"""In `data.lq`: the low-quality images of this folder are made by degradation."""

FEATURES = "feat-squeeze"
"""The perceptual distance that does not depend on the run's losses."""

DEGRADED, UNDEGRADED = "degraded", "undegraded"
"""In `data.inputs`: made by the run's degradation; the image itself, without a ground truth."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The network to train; its scale is that of the run."""

    kind: str = option("rrdb", help="Network.", choices=("rrdb", "compact", "srresnet"))
    blocks: int = option(
        23, help="Blocks (rrdb, srresnet) or inner convolutions (compact).", low=1, high=1000
    )
    features: int = option(64, help="Channels between the blocks.", low=1, high=4096)
    growth: int = option(
        32, help="Channels added by each dense convolution (rrdb only).", low=1, high=4096
    )
    init: str = option("", help="Model name or file to start from; empty: random weights.")
    init_partial: bool = option(
        False, help="Load only the tensors of init whose name and shape match."
    )

    def __post_init__(self) -> None:
        check(self)

    def architecture(self, scale: int) -> Architecture:
        """Return the architecture at a scale; ConfigError where the network has no such scale."""
        if self.kind == "rrdb":
            return standard_architecture(
                scale, blocks=self.blocks, features=self.features, growth=self.growth
            )
        if self.kind == "srresnet":
            return SRResNetArchitecture(scale, self.blocks, self.features)
        return CompactArchitecture(scale, self.blocks, self.features)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator, built for stages with an adversarial loss only."""

    kind: str = option("unet", help="unet (a logit per pixel) or vgg.", choices=("unet", "vgg"))
    features: int = option(64, help="Channels of the first layer.", low=1, high=4096)
    init: str = option("", help="Model name or file to start from; empty: random weights.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class DataConfig:
    """Training images, and how batches are cropped from them."""

    gt: tuple[Path, ...] = option((), help="Folders of high-quality images, searched recursively.")
    weights: tuple[float, ...] = option(
        (), help="Sampling weight of each folder; empty: its number of images.", above=0
    )
    lq: tuple[Path, ...] = option(
        (), help="Paired training: low-quality folder of each folder in `gt`; none: synthetic."
    )
    paired: bool = option(False, help="Require low-quality folders in `lq`.")
    lq_prefix: str = option("", help="Prefix of LQ file stems.")
    lq_suffix: str = option("", help="Suffix of LQ file stems, e.g. x4.")
    patch: int = option(64, help="Side of a training crop in LQ pixels.", low=4, high=4096)
    margin: float = option(
        1.5625, help="Side of the degraded crop over that of the training crop.", low=1, high=16
    )
    batch: int = option(12, help="Samples per process and forward pass.", low=1, high=65_536)
    accumulate: int = option(
        1, help="Forward passes accumulated into one step.", low=1, high=65_536
    )
    inputs: tuple[str, ...] = option(
        (DEGRADED,),
        help="Kinds of synthetic input, drawn per sample: degraded (as [degradation] says), the "
        "name of another degradation, or undegraded (the image itself; distillation only).",
        choices=(DEGRADED, UNDEGRADED, *PRESETS),
    )
    input_shares: tuple[float, ...] = option(
        (), help="Share of each kind in `inputs`; empty: equal shares.", above=0
    )
    flip: bool = option(True, help="Flip half of the crops horizontally.")
    rotate: bool = option(False, help="Rotate crops by multiples of 90 degrees.")
    cache: int = option(2048, help="Memory for decoded images in MiB.", low=16, high=2**30)
    region: int = option(
        1024, help="Side in pixels of the regions kept of images that exceed the cache.", low=64,
        high=65_536,
    )  # fmt: skip
    workers: int = option(2, help="Threads that decode images.", low=1, high=64)
    prefetch: int = option(3, help="Batches prepared ahead; 0: none.", low=0, high=64)

    def __post_init__(self) -> None:
        check(self)
        if self.weights and len(self.weights) != len(self.gt):
            raise ConfigError(
                f"weights: expected one per folder in gt ({len(self.gt)}), got {len(self.weights)}"
            )
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ConfigError(f"inputs: expected distinct kinds, got {', '.join(self.inputs)}")
        if self.input_shares and len(self.input_shares) != len(self.inputs):
            raise ConfigError(
                f"input_shares: expected one per kind in inputs ({len(self.inputs)}), got "
                f"{len(self.input_shares)}"
            )
        if self.lq and len(self.lq) != len(self.gt):
            raise ConfigError(
                f"lq: expected one folder per folder in gt ({len(self.gt)}), got {len(self.lq)}"
            )

    def lq_folder(self, number: int) -> Path | None:
        """Return the low-quality folder of a folder in `gt`; None if its images are degraded."""
        if not self.lq or str(self.lq[number]) == SYNTHETIC:
            return None
        return self.lq[number]

    @property
    def synthetic(self) -> bool:
        """Whether some low-quality images are made by degradation."""
        return not self.gt or any(self.lq_folder(n) is None for n in range(len(self.gt)))

    def crop(self, scale: int, *, paired: bool) -> int:
        """Return the side in ground-truth pixels of what is read for one sample.

        Synthetic samples need a margin for the borders of the degradation; paired ones do not.
        """
        return (self.patch if paired else round(self.patch * self.margin)) * scale


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizers of both networks."""

    kind: str = option("adam", help="Optimizer.", choices=("adam", "adamw"))
    lr: float = option(1e-4, help="Learning rate of the generator.", above=0)
    discriminator_lr: float = option(
        0.0, help="Learning rate of the discriminator; 0: same as lr.", low=0
    )
    betas: tuple[float, float] = option((0.9, 0.99), help="Adam betas.", low=0, high=1)
    weight_decay: float = option(0.0, help="Weight decay (L2; decoupled for adamw).", low=0)
    clip: float = option(0.0, help="Maximum gradient norm; 0: no clipping.", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate schedule: a pure function of the step, so there is nothing to save."""

    kind: str = option("multistep", help="Shape.", choices=("constant", "multistep", "cosine"))
    milestones: tuple[int, ...] = option((), help="Steps at which the LR is multiplied.", low=1)
    gamma: float = option(0.5, help="LR decay factor at each milestone.", above=0, high=1)
    period: int = option(0, help="Steps of one cosine period; 0: the whole stage.", low=0)
    min_lr: float = option(1e-7, help="Learning rate at the end of a cosine period.", low=0)
    warmup: int = option(0, help="Steps of linear warm-up.", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class EmaConfig:
    """Exponential moving average of the generator's parameters: what is validated and saved."""

    decay: float = option(
        0.999,
        help="Decay per step; 0: no averaging, the live weights are the model.",
        low=0,
        high=1,
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ValidationConfig:
    """Scores and sample sheets on images that are not trained on."""

    gt: str = option("", help="Folder of high-quality images; empty: some of `data.gt`.")
    lq: str = option("", help="Folder of their low-quality versions; empty: synthetic.")
    every: int = option(5000, help="Steps between validations; 0: no validation.", low=0)
    split: float = option(
        0.02, help="Fraction of the training images held out if `gt` is empty; 0: none.",
        low=0, high=0.5,
    )  # fmt: skip
    images: int = option(8, help="Maximum number of images; 0: all of the folder.", low=0)
    side: int = option(512, help="Side of the validated crops in GT pixels; 0: no crop.", low=0)
    crops: int = option(
        0,
        help="Crops per image, each degraded anew; 0: as many as make 8 in all.",
        low=0,
        high=1000,
    )
    perceptual: str = option(
        "loss", help="Perceptual distance: that of the perceptual loss, if the run has one, or "
        "feat-squeeze, as in `realesr evaluate`.",
        choices=("loss", FEATURES),
    )  # fmt: skip
    feat_weights: str = option("", help="Weights of feat-squeeze; empty: the imported file.")
    sheet: int = option(4, help="Rows of a sample sheet.", low=1, high=1000)
    best: str = option(
        "auto", help="Score that selects the best checkpoint; last: the newest one; auto: psnr, "
        "but last in stages with an adversarial loss, which lowers PSNR by design.",
        choices=("auto", "psnr", "ssim", "perceptual", "last"),
    )  # fmt: skip
    patience: int = option(
        0, help="Stop after this many validations in a row below the start; 0: only warn.", low=0
    )
    tolerance: float = option(0.05, help="Drop of PSNR in dB that still counts as equal.", low=0)

    def __post_init__(self) -> None:
        check(self)
        if self.lq and not self.gt:
            raise ConfigError("lq: expected the high-quality images as gt, too")


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept on disk to resume from."""

    every: int = option(5000, help="Steps between checkpoints.", low=1)
    keep: int = option(3, help="Newest checkpoints kept, in addition to the best.", low=1)
    minutes: float = option(
        30.0, help="Longest time between checkpoints in minutes; 0: no limit.", low=0, high=1e6
    )
    pth: bool = option(
        False, help="Also write generator.pth (params, params_ema), for other tools."
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class RuntimeConfig:
    """How the machine is used; changes speed, not results (except for rounding)."""

    device: str = option("auto", help="auto, cpu, cuda, cuda:N, mps or xpu.")
    precision: str = option(
        "auto", help="auto: bf16 where it is native, else fp16 with loss scaling (GPU) or fp32.",
        choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip
    channels_last: bool = option(True, help="Channels-last memory format for convolutions.")
    compile: bool = option(False, help="Compile the generator with torch.compile.")
    log_every: int = option(100, help="Steps between lines in metrics.jsonl.", low=1)
    tensorboard: bool = option(True, help="Write TensorBoard events if it is installed.")
    wandb: bool = option(False, help="Log to Weights & Biases.")
    mlflow: bool = option(False, help="Log to MLflow.")

    def __post_init__(self) -> None:
        check(self)
