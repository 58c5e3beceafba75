"""The configuration of a training run, as one frozen and strict record of parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from realesr_cli.degrade.config import DegradationConfig
from realesr_cli.errors import ConfigError
from realesr_cli.nets.architecture import Architecture
from realesr_cli.nets.compact import CompactArchitecture
from realesr_cli.nets.rrdbnet import standard_architecture
from realesr_cli.nets.srresnet import SRResNetArchitecture
from realesr_cli.settings import check, option
from realesr_cli.train.losses import (
    GanConfig,
    PerceptualConfig,
    PixelConfig,
    SsimConfig,
    active_losses,
)

SYNTHETIC = "none"
"""In `data.lq`: the low-quality images of this folder are made by degradation."""


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
class StageConfig:
    """One stage of a run; the next one starts from its averaged generator."""

    name: str = option(help="Name, in logs and in settings (stages.NAME.key).")
    iterations: int = option(help="Training steps.", low=0)
    pixel: PixelConfig = option(PixelConfig(), help="L1 loss.")
    ssim: SsimConfig = option(SsimConfig(), help="SSIM loss.")
    perceptual: PerceptualConfig = option(PerceptualConfig(), help="Perceptual loss.")
    gan: GanConfig = option(GanConfig(), help="Adversarial loss.")
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    def __post_init__(self) -> None:
        check(self)
        if not self.name.replace("-", "").replace("_", "").isalnum() or self.name.isdigit():
            raise ConfigError(f"name: expected letters, digits, - and _, got {self.name[:80]!r}")
        if not any(active_losses(self)):
            raise ConfigError(f"stage {self.name!r}: expected a loss with a weight above 0")

    @property
    def adversarial(self) -> bool:
        """Whether the stage trains a discriminator."""
        return self.gan.weight > 0


@dataclass(frozen=True)
class EmaConfig:
    """Exponential moving average of the generator's parameters: what is validated and saved."""

    decay: float = option(0.999, help="Decay per step; 0: no averaging.", low=0, high=1)

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
    sheet: int = option(4, help="Rows of a sample sheet.", low=1, high=1000)
    best: str = option(
        "auto", help="Score that selects the best checkpoint; last: the newest one; auto: psnr, "
        "but last in stages with an adversarial loss, which lowers PSNR by design.",
        choices=("auto", "psnr", "ssim", "last"),
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

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A complete training run."""

    recipe: str = option("custom", help="Name of the recipe.")
    scale: int = option(4, help="Output size over input size.", choices=(1, 2, 3, 4))
    seed: int = option(0, help="Random seed.", low=0, high=2**53)
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    data: DataConfig = DataConfig()
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    ema: EmaConfig = EmaConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    stages: tuple[StageConfig, ...] = option(help="Stages in order.")

    def __post_init__(self) -> None:
        check(self)
        self._check_stages()
        self.generator.architecture(self.scale)
        self._check_discriminator()
        if self.degradation.pool and self.data.lq:
            raise ConfigError("degradation.pool: expected 0, as paired images are not degraded")
        if self.degradation.pool and self.degradation.pool % self.data.batch:
            raise ConfigError(
                f"degradation.pool: expected a multiple of data.batch = {self.data.batch}, "
                f"got {self.degradation.pool}"
            )

    def _check_stages(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names:
            raise ConfigError("stages: expected at least one")
        if len(set(names)) < len(names):
            raise ConfigError(f"stages: expected distinct names, got {', '.join(names)}")

    def _check_discriminator(self) -> None:
        if not any(stage.adversarial for stage in self.stages):
            if self.discriminator.init:
                raise ConfigError("discriminator.init: no stage has an adversarial loss")
            return
        kind, side = self.discriminator.kind, self.data.patch * self.scale
        fits = side % 8 == 0 if kind == "unet" else side in (128, 256)
        if not fits:
            expected = "divisible by 8" if kind == "unet" else "of 128 or 256"
            raise ConfigError(
                f"data.patch = {self.data.patch} at scale {self.scale}: the {kind} discriminator "
                f"expects ground-truth crops {expected}, got {side}"
            )

    @property
    def architecture(self) -> Architecture:
        """The generator's architecture."""
        return self.generator.architecture(self.scale)

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.iterations for stage in self.stages)

    def steps_before(self, stage: int) -> int:
        """Return the steps of all stages before the one of this number."""
        return sum(stage.iterations for stage in self.stages[:stage])

    @property
    def sharpens(self) -> bool:
        """Whether there is a sharpened ground truth for the losses that ask for it."""
        return self.degradation.usm and self.data.synthetic
