"""The configuration of a training run, as one frozen and strict record of parts."""

from __future__ import annotations

from dataclasses import dataclass, field

from realesr_cli.degrade.config import DegradationConfig
from realesr_cli.errors import ConfigError
from realesr_cli.nets.architecture import Architecture
from realesr_cli.settings import check, option
from realesr_cli.train.losses import (
    DistillConfig,
    GanConfig,
    PerceptualConfig,
    PixelConfig,
    SsimConfig,
    active_losses,
)
from realesr_cli.train.settings import (
    FEATURES,
    UNDEGRADED,
    CheckpointConfig,
    DataConfig,
    DiscriminatorConfig,
    EmaConfig,
    GeneratorConfig,
    OptimizerConfig,
    RuntimeConfig,
    ScheduleConfig,
    ValidationConfig,
)


@dataclass(frozen=True)
class StageConfig:
    """One stage of a run; the next one starts from its averaged generator."""

    name: str = option(help="Name, in logs and in settings (stages.NAME.key).")
    iterations: int = option(help="Training steps.", low=0)
    pixel: PixelConfig = option(PixelConfig(), help="L1 loss.")
    ssim: SsimConfig = option(SsimConfig(), help="SSIM loss.")
    distill: DistillConfig = option(DistillConfig(), help="Distance to a teacher's image.")
    perceptual: PerceptualConfig = option(PerceptualConfig(), help="Perceptual loss.")
    gan: GanConfig = option(GanConfig(), help="Adversarial loss.")
    optimizer: OptimizerConfig = option(OptimizerConfig(), help="Optimizer.")
    schedule: ScheduleConfig = option(ScheduleConfig(), help="Learning rate schedule.")

    def __post_init__(self) -> None:
        check(self)
        if not self.name.replace("-", "").replace("_", "").isalnum() or self.name.isdigit():
            raise ConfigError(f"name: expected letters, digits, - and _, got {self.name[:80]!r}")
        active = list(active_losses(self))
        if not active:
            raise ConfigError(f"stage {self.name!r}: expected a loss with a weight above 0")
        taught = [name for name, _, config in active if config.teacher_target]
        if taught and not self.distill.weight:
            raise ConfigError(
                f"{taught[0]}.teacher_target: stage {self.name!r} has no teacher, as "
                "distill.weight is 0"
            )
        if self.distill.teacher and not self.distill.weight:
            raise ConfigError("distill.teacher: has no effect while distill.weight is 0")

    @property
    def adversarial(self) -> bool:
        """Whether the stage trains a discriminator."""
        return self.gan.weight > 0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A complete training run."""

    recipe: str = option("custom", help="Name of the recipe.")
    scale: int = option(4, help="Output size over input size.", choices=(1, 2, 3, 4))
    seed: int = option(0, help="Random seed.", low=0, high=2**53)
    generator: GeneratorConfig = option(GeneratorConfig(), help="Network to train.")
    discriminator: DiscriminatorConfig = option(DiscriminatorConfig(), help="Discriminator.")
    data: DataConfig = option(DataConfig(), help="Training images.")
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    ema: EmaConfig = option(EmaConfig(), help="Averaged weights.")
    validation: ValidationConfig = option(ValidationConfig(), help="Validation.")
    checkpoints: CheckpointConfig = option(CheckpointConfig(), help="Checkpoints.")
    runtime: RuntimeConfig = option(RuntimeConfig(), help="Use of the machine.")
    stages: tuple[StageConfig, ...] = option(help="Stages in order.")

    def __post_init__(self) -> None:
        check(self)
        self._check_stages()
        self.generator.architecture(self.scale)
        self._check_discriminator()
        if not self.total_steps:
            raise ConfigError("iterations: expected at least 1 step in one of the stages")
        if UNDEGRADED in self.data.inputs:
            untaught = [stage.name for stage in self.stages if not stage.distill.weight]
            if untaught:
                raise ConfigError(
                    f"data.inputs: undegraded images have no ground truth, so every stage needs a "
                    f"teacher; stage {untaught[0]!r} has none (distill.weight = 0)"
                )
            if self.degradation.pool:
                raise ConfigError("degradation.pool: expected 0 with undegraded inputs")
        self._check_best()
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

    def _check_best(self) -> None:
        validation = self.validation
        if validation.best != "perceptual" or validation.perceptual == FEATURES:
            return
        if not self.stages[-1].perceptual.weight:
            raise ConfigError(
                "validation.best = 'perceptual': set validation.perceptual = 'feat-squeeze', as "
                "the last stage has no perceptual loss"
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
