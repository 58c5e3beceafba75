"""Everything a training run is made of, as one frozen and strict record of parts."""

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
from realesr_cli.train.losses import KINDS


@dataclass(frozen=True)
class GeneratorConfig:
    """The network to train; its scale is the run's."""

    kind: str = option("rrdb", help="Network.", choices=("rrdb", "compact", "srresnet"))
    blocks: int = option(23, help="Blocks (rrdb, srresnet) or inner convolutions (compact).", low=1)
    features: int = option(64, help="Channels between the blocks.", low=1)
    growth: int = option(32, help="Channels each dense convolution adds (rrdb only).", low=1)
    init: str = option("", help="Model name or file to start from; empty: random weights.")
    init_partial: bool = option(
        False, help="Take from init the tensors whose name and shape match; the rest stays random."
    )

    def __post_init__(self) -> None:
        check(self)

    def architecture(self, scale: int) -> Architecture:
        """The record of this network at a scale; ConfigError where it has none of that scale."""
        if self.kind == "rrdb":
            return standard_architecture(
                scale, blocks=self.blocks, features=self.features, growth=self.growth
            )
        if self.kind == "srresnet":
            return SRResNetArchitecture(scale, self.blocks, self.features)
        return CompactArchitecture(scale, self.blocks, self.features)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The network that judges, built for stages with an adversarial loss only."""

    kind: str = option("unet", help="unet (a logit per pixel) or vgg.", choices=("unet", "vgg"))
    features: int = option(64, help="Channels of the first layer.", low=1)
    init: str = option("", help="Model name or file to start from; empty: random weights.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how a batch is cut out of them."""

    gt: tuple[Path, ...] = option((), help="Folders of high-quality images, searched deeply.")
    weights: tuple[float, ...] = option(
        (), help="How often each folder is drawn from; empty: by its number of images.", above=0
    )
    lq: tuple[Path, ...] = option(
        (), help="Paired training: the low-quality folder of each folder in `gt`."
    )
    paired: bool = option(False, help="Refuse to train without low-quality folders in `lq`.")
    lq_prefix: str = option("", help="What the name of a low-quality image has in front.")
    lq_suffix: str = option("", help="What it has behind, before the extension, as `x4`.")
    patch: int = option(64, help="Side of a training crop in low-quality pixels.", low=4)
    margin: float = option(
        1.5625, help="Side of the degraded crop over the training crop's (400 over 256).", low=1
    )
    batch: int = option(12, help="Samples per process and forward pass.", low=1)
    accumulate: int = option(1, help="Forward passes whose gradients make one step.", low=1)
    flip: bool = option(True, help="Mirror half of the crops left to right.")
    rotate: bool = option(False, help="Turn crops by multiples of 90 degrees.")
    cache: int = option(2048, help="Memory for decoded images, in MiB.", low=16)
    region: int = option(
        1024, help="Side in pixels of the regions kept of images too many for the cache.", low=64
    )
    workers: int = option(2, help="Threads that decode images.", low=1, high=64)
    prefetch: int = option(3, help="Batches prepared ahead; 0: none.", low=0, high=64)

    def __post_init__(self) -> None:
        check(self)
        if self.weights and len(self.weights) != len(self.gt):
            raise ConfigError(
                f"weights: {len(self.weights)} given for {len(self.gt)} folders in gt"
            )
        if self.lq and len(self.lq) != len(self.gt):
            raise ConfigError(f"lq: {len(self.lq)} folders for {len(self.gt)} in gt; one for each")

    def crop(self, scale: int) -> int:
        """Side in ground-truth pixels of what is read and degraded for one sample.

        Paired images need no room for the degradation's borders: exactly the training crop.
        """
        whole = self.patch if self.lq else round(self.patch * self.margin)
        return whole * scale


@dataclass(frozen=True)
class PixelConfig:
    """L1 between the output and the ground truth."""

    weight: float = option(1.0, help="Weight; 0 switches it off.", low=0)
    sharpened: bool = option(True, help="Compare with the sharpened ground truth, if made.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class SsimConfig:
    """One less the structural similarity (SSIM) of the luma."""

    weight: float = option(0.0, help="Weight; 0 switches it off.", low=0)
    sharpened: bool = option(True, help="Compare with the sharpened ground truth, if made.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PerceptualConfig:
    """Distance of ImageNet features before their activation."""

    weight: float = option(0.0, help="Weight; 0 switches it off.", low=0)
    backbone: str = option(
        "vgg19", help="Feature network; squeezenet1_1 needs `weights`, and compares relatively.",
        choices=("vgg19", "squeezenet1_1"),
    )  # fmt: skip
    weights: str = option("", help="File of its weights; empty: fetched and cached (vgg19 only).")
    layers: tuple[str, ...] = option((), help="Layers compared; empty: five, one per level.")
    layer_weights: tuple[float, ...] = option((), help="Weight of each layer.", low=0)
    sharpened: bool = option(True, help="Compare with the sharpened ground truth, if made.")

    def __post_init__(self) -> None:
        check(self)
        if len(self.layers) != len(self.layer_weights):
            raise ConfigError(
                f"layers and layer_weights: {len(self.layers)} and {len(self.layer_weights)} "
                "items; give as many of one as of the other"
            )

    def by_layer(self) -> dict[str, float]:
        """Weight by layer name; Real-ESRGAN's five where none is given."""
        if self.layers:
            return dict(zip(self.layers, self.layer_weights, strict=True))
        return dict(zip(DEFAULT_LAYERS[self.backbone], _LEVELS, strict=True))


_LEVELS = (0.1, 0.1, 1.0, 1.0, 1.0)

DEFAULT_LAYERS = {
    "vgg19": ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4"),
    "squeezenet1_1": ("conv1", "fire3", "fire5", "fire7", "fire9"),
}
"""The layers compared where none are named; their weights are Real-ESRGAN's."""


@dataclass(frozen=True)
class GanConfig:
    """The adversarial loss; its weight scales the generator's term only."""

    weight: float = option(0.0, help="Weight; 0 switches it off, discriminator and all.", low=0)
    kind: str = option("vanilla", help="Form of the loss.", choices=KINDS)
    sharpened: bool = option(False, help="Show it the sharpened ground truth, if made.")
    warmup: int = option(0, help="Steps that train the discriminator only.", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam for both networks."""

    lr: float = option(1e-4, help="Learning rate of the generator.", above=0)
    discriminator_lr: float = option(0.0, help="Of the discriminator; 0: as `lr`.", low=0)
    betas: tuple[float, float] = option((0.9, 0.99), help="Adam's moments.", low=0, high=1)
    weight_decay: float = option(0.0, help="Weight decay (L2, as in Adam).", low=0)
    clip: float = option(0.0, help="Largest norm of a gradient; 0: not clipped.", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves; a pure function of the step, so there is nothing to resume."""

    kind: str = option(
        "multistep", help="Shape.", choices=("constant", "multistep", "cosine")
    )  # fmt: skip
    milestones: tuple[int, ...] = option((), help="Steps at which it is multiplied.", low=1)
    gamma: float = option(0.5, help="By what, at each milestone.", above=0, high=1)
    period: int = option(0, help="Steps of one cosine; 0: the whole stage.", low=0)
    lowest: float = option(1e-7, help="Learning rate at a cosine's end.", low=0)
    warmup: int = option(0, help="Steps of linear rise from nothing.", low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class StageConfig:
    """One stage of a run; the next one starts from its averaged generator."""

    name: str = option(help="Name, in logs and in `--set stages.NAME.key=value`.")
    iterations: int = option(help="Steps.", low=0)
    pixel: PixelConfig = PixelConfig()
    structure: SsimConfig = SsimConfig()
    perceptual: PerceptualConfig = PerceptualConfig()
    gan: GanConfig = GanConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    def __post_init__(self) -> None:
        check(self)
        if not self.name.replace("-", "").replace("_", "").isalnum() or self.name.isdigit():
            raise ConfigError(f"name = {self.name!r}: letters, digits, - and _, not a number")
        losses = (self.pixel, self.structure, self.perceptual, self.gan)
        if not any(loss.weight for loss in losses):
            raise ConfigError(f"stage {self.name!r}: every loss has weight 0; nothing to learn")

    @property
    def adversarial(self) -> bool:
        """Whether a discriminator takes part."""
        return self.gan.weight > 0


@dataclass(frozen=True)
class EmaConfig:
    """The moving average of the generator's parameters, which is what is validated and kept."""

    decay: float = option(0.999, help="Share kept at each step; 0: no averaging.", low=0, high=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ValidationConfig:
    """Scores and sample sheets on images that are not trained on."""

    gt: str = option("", help="Folder of high-quality images; empty: some of `data.gt`.")
    lq: str = option("", help="Their low-quality versions; empty: made by degradation.")
    every: int = option(5000, help="Steps between validations; 0: never.", low=0)
    split: float = option(
        0.02, help="Share of the training images held out where `gt` is empty; 0: none.",
        low=0, high=0.5,
    )  # fmt: skip
    images: int = option(8, help="Most images used; 0: all of the folder.", low=0)
    side: int = option(512, help="They are cropped to this in GT pixels; 0: whole.", low=0)
    sheet: int = option(4, help="Images on a sample sheet.", low=1)
    best: str = option(
        "auto", help="What makes the best checkpoint; last: the newest always; auto: PSNR without "
        "an adversarial loss, which lowers PSNR as it should, and the newest with one.",
        choices=("auto", "psnr", "ssim", "last"),
    )  # fmt: skip
    stop_if_worse: int = option(
        0, help="Stop after so many validations in a row below the start; 0: only say so.", low=0
    )
    tolerance: float = option(0.05, help="Loss of PSNR in dB that is not yet worse.", low=0)

    def __post_init__(self) -> None:
        check(self)
        if self.lq and not self.gt:
            raise ConfigError("lq: give the high-quality images in gt, too")


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept on disk to resume from."""

    every: int = option(5000, help="Steps between checkpoints.", low=1)
    keep: int = option(3, help="Newest checkpoints kept, beside the best.", low=1)
    pth: bool = option(False, help="Write generator.pth too (params, params_ema), for other tools.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class RuntimeConfig:
    """The machine's side; changes speed, not what is learned (but for rounding)."""

    device: str = option("auto", help="auto, cpu, cuda, cuda:1, mps, xpu.")
    precision: str = option(
        "auto", help="auto: bf16 where it is native, else fp16 with a scaler (GPU) or fp32 (CPU).",
        choices=("auto", "fp32", "bf16", "fp16"),
    )  # fmt: skip
    channels_last: bool = option(True, help="Memory layout that suits convolutions.")
    log_every: int = option(100, help="Steps between lines in metrics.jsonl.", low=1)
    tensorboard: bool = option(True, help="Write TensorBoard events when it is installed.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run."""

    recipe: str = option("custom", help="Name of the recipe it came from.")
    scale: int = option(4, help="Output size over input size; set here and nowhere else.",
                        choices=(1, 2, 3, 4))  # fmt: skip
    seed: int = option(0, help="Of all chance in the run.", low=0)
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    data: DataConfig = DataConfig()
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    ema: EmaConfig = EmaConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    stages: tuple[StageConfig, ...] = option(help="In order.")

    def __post_init__(self) -> None:
        check(self)
        self._check_stages()
        self.generator.architecture(self.scale)
        self._check_discriminator()
        if self.degradation.pool and self.data.lq:
            raise ConfigError("degradation.pool: paired images are not degraded; set it to 0")
        if self.degradation.pool and self.degradation.pool % self.data.batch:
            raise ConfigError(
                f"degradation.pool = {self.degradation.pool}: must be a multiple of "
                f"data.batch = {self.data.batch}"
            )

    def _check_stages(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names:
            raise ConfigError("stages: at least one is needed")
        if len(set(names)) < len(names):
            raise ConfigError(f"stages: names must differ, got {', '.join(names)}")

    def _check_discriminator(self) -> None:
        if not any(stage.adversarial for stage in self.stages):
            if self.discriminator.init:
                raise ConfigError(
                    "discriminator.init (--init-d): no stage has an adversarial loss (gan.weight), "
                    "so there is no discriminator to start"
                )
            return
        kind, patch = self.discriminator.kind, self.data.patch * self.scale
        fits = patch % 8 == 0 if kind == "unet" else patch in (128, 256)
        if not fits:
            wanted = "divisible by 8" if kind == "unet" else "of 128 or 256"
            raise ConfigError(
                f"data.patch = {self.data.patch} at scale {self.scale}: the {kind} discriminator "
                f"needs ground-truth crops {wanted}, not {patch}"
            )

    @property
    def architecture(self) -> Architecture:
        """The generator's record."""
        return self.generator.architecture(self.scale)

    @property
    def sharpens(self) -> bool:
        """Whether there is a sharpened ground truth that losses may ask for."""
        return self.degradation.usm and not self.data.lq
