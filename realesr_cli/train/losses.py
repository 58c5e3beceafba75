"""Losses of the generator: their settings, their functions, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realesr_cli.degrade.pairs import Pair
from realesr_cli.errors import ConfigError, ModelUnavailableError, WeightsError
from realesr_cli.nets.features import BACKBONES, Features
from realesr_cli.nets.rrdbnet import RRDBArchitecture
from realesr_cli.ops.color import luma_studio
from realesr_cli.ops.filters import gaussian_taps
from realesr_cli.progress import Progress, no_progress
from realesr_cli.settings import check, option
from realesr_cli.train.adversarial import KINDS, generator_gan_loss
from realesr_cli.train.teacher import Precision, Teacher, architecture_of, load_teacher
from realesr_cli.weights.checkpoints import read_state
from realesr_cli.weights.fetch import ensure
from realesr_cli.weights.registry import resolve

if TYPE_CHECKING:
    from realesr_cli.train.config import StageConfig

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2

TINY = 1e-8
"""Keeps a quotient finite."""


@dataclass(frozen=True)
class LossConfig:
    """Settings of every loss."""

    weight: float = option(0.0, help="Weight; 0 turns the loss off.", low=0)
    sharpened: bool = option(True, help="Compare with the sharpened ground truth, if there is one.")
    teacher_target: bool = option(
        False, help="Compare with the teacher's image instead of the ground truth."
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PixelConfig(LossConfig):
    """L1 distance between output and ground truth."""

    weight: float = option(1.0, help="Weight; 0 turns the loss off.", low=0)


@dataclass(frozen=True)
class SsimConfig(LossConfig):
    """1 - SSIM on luma."""


@dataclass(frozen=True)
class DistillConfig(LossConfig):
    """L1 distance between output and the image that a teacher makes of the same input."""

    teacher: str = option("", help="Model to learn from: a name, file, run or mixture A:B@ALPHA.")
    strength: float = option(
        1.0, help="Blend the teacher's image with the resized input, as upscaling does.",
        low=0, high=1,
    )  # fmt: skip
    precision: Precision = option(
        "auto", help="Precision of the teacher; auto: the fastest that keeps 8 bits.",
        choices=get_args(Precision),
    )  # fmt: skip


_LEVEL_WEIGHTS = (0.1, 0.1, 1.0, 1.0, 1.0)

DEFAULT_LAYERS = {
    "vgg19": ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4"),
    "squeezenet1_1": ("conv1", "fire3", "fire5", "fire7", "fire9"),
}
"""Layers compared where none are given; their weights are Real-ESRGAN's."""


@dataclass(frozen=True)
class PerceptualConfig(LossConfig):
    """L1 distance of ImageNet features before the activation."""

    backbone: str = option(
        "vgg19", help="Feature network; squeezenet1_1 needs `weights` and uses relative distances.",
        choices=tuple(DEFAULT_LAYERS),
    )  # fmt: skip
    weights: str = option("", help="File of its weights; empty: downloaded once (vgg19 only).")
    layers: tuple[str, ...] = option((), help="Layers compared; empty: five, one per level.")
    layer_weights: tuple[float, ...] = option((), help="Weight of each layer.", low=0)

    def __post_init__(self) -> None:
        check(self)
        if len(self.layers) != len(self.layer_weights):
            raise ConfigError(
                f"layers and layer_weights: expected equally many, got {len(self.layers)} and "
                f"{len(self.layer_weights)}"
            )

    def by_layer(self) -> dict[str, float]:
        """Return the weight of each layer; Real-ESRGAN's five layers if none are given."""
        if self.layers:
            return dict(zip(self.layers, self.layer_weights, strict=True))
        return dict(zip(DEFAULT_LAYERS[self.backbone], _LEVEL_WEIGHTS, strict=True))


@dataclass(frozen=True)
class GanConfig(LossConfig):
    """Adversarial loss; the weight scales the generator's term only."""

    kind: str = option("vanilla", help="Type of adversarial loss.", choices=KINDS)
    sharpened: bool = option(False, help="Show the discriminator the sharpened ground truth.")
    warmup: int = option(0, help="Steps that train the discriminator only.", low=0)


@dataclass(frozen=True)
class LossInputs:
    """What a loss is computed from.

    `output` is the generator's, (B, 3, H, W); `networks` are the networks of the stage's losses by
    name of the loss, the discriminator being that of `gan`.
    """

    output: Tensor
    pair: Pair
    networks: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def teacher_image(self) -> Tensor:
        """The teacher's image; ValueError in a stage without a teacher."""
        if self.pair.teacher is None:
            raise ValueError("this stage has no teacher")
        return self.pair.teacher

    def target(self, config: LossConfig) -> Tensor:
        """Return what a loss compares with: a ground truth, or the teacher's image."""
        if config.teacher_target:
            return self.teacher_image
        return self.pair.gt_usm if config.sharpened else self.pair.gt


@dataclass(frozen=True)
class LossSpec:
    """One loss: how to compute it, how to name it, and the frozen network it needs, if any.

    `label(config)` names it in the plan; `compute(config, inputs)` returns a scalar without its
    weight. `load(config, progress)` returns its frozen network, `build(config)` the same with
    random weights, to measure what a step costs, and `model(config)` the model name of its weights
    (empty if they are no model).
    """

    label: Callable[[Any], str]
    compute: Callable[[Any, LossInputs], Tensor]
    load: Callable[[Any, Progress], nn.Module] | None = None
    build: Callable[[Any], nn.Module] | None = None
    model: Callable[[Any], str] | None = None
    autocast: bool = False
    """Compute in mixed precision: the loss evaluates a network."""


def pixel_loss(output: Tensor, target: Tensor) -> Tensor:
    """Compute the mean absolute difference (L1) over all elements."""
    return F.l1_loss(output, target)


def ssim_loss(output: Tensor, target: Tensor) -> Tensor:
    """Compute 1 - mean SSIM of the luma (Zhao et al. 2017, section III-B); 0 for equal images.

    Takes two batches (B, 3, H, W), RGB in [0, 1], at least 11 pixels per side. Window, constants
    and luma are those of the score in papers (Wang et al. 2004), in fp32. Where the position of
    detail is uncertain, this loss keeps more of its contrast than L1.
    """
    x, y = luma_studio(output.float()), luma_studio(target.float())
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variances = _window_mean(x * x) - mean_x**2 + _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    bottom = (mean_x**2 + mean_y**2 + SSIM_C1) * (variances + SSIM_C2)
    return 1 - (top / bottom).mean()


def _window_mean(x: Tensor) -> Tensor:
    """Average (B, 1, H, W) under the Gaussian window, where it fits inside."""
    window = gaussian_taps(SSIM_WINDOW, SSIM_SIGMA).to(x)
    return F.conv2d(F.conv2d(x, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))


class PerceptualLoss(nn.Module):
    """Weighted L1 distance of features before the activation.

    The sum over layers of weight * mean |f(output) - f(target)|, the mean over all elements of a
    layer (Wang et al. 2018, section 3.3; layer weights as in Wang et al. 2021). The network is
    frozen; no gradient reaches `target`. With `relative`, the distance of each layer is divided by
    the mean of |f(target)|: the published weights suit the magnitude of VGG19's features only.
    """

    def __init__(
        self, features: Features, weights: Mapping[str, float], *, relative: bool = False
    ) -> None:
        super().__init__()
        self.features = features
        self.weights = dict(weights)
        self.relative = relative

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the distance of two batches (B, 3, H, W), RGB in [0, 1], as a scalar."""
        with torch.no_grad():
            wanted = self.features(target)
        found = self.features(output)
        terms = []
        for name, weight in self.weights.items():
            distance = F.l1_loss(found[name].float(), wanted[name].float())
            if self.relative:
                distance = distance / wanted[name].float().abs().mean().clamp_min(TINY)
            terms.append(weight * distance)
        return torch.stack(terms).sum()


def build_perceptual(config: PerceptualConfig) -> PerceptualLoss:
    """Return the perceptual loss with random features."""
    weights = config.by_layer()
    features = BACKBONES[config.backbone](list(weights))
    return PerceptualLoss(features, weights, relative=config.backbone != "vgg19")


def load_perceptual(config: PerceptualConfig, progress: Progress = no_progress) -> PerceptualLoss:
    """Return the perceptual loss with its features, downloaded once if needed.

    Raises ModelUnavailableError where the weights cannot be had, and ConfigError for a network
    whose weights must be given as a file.
    """
    loss = build_perceptual(config)
    if not config.weights and config.backbone != "vgg19":
        raise ConfigError(
            f"perceptual.backbone = {config.backbone!r}: its weights are not downloaded; expected "
            "their file, in torchvision's layout, as perceptual.weights"
        )
    try:
        if config.weights:
            path = Path(config.weights)
        else:
            path = ensure(resolve("vgg19"), progress=progress)
        loss.features.load(read_state(path)[0])
    except WeightsError as error:
        raise ModelUnavailableError(
            f"the perceptual loss has no weights: {error}", advice="perceptual-weights"
        ) from error
    return loss


def _untrained_teacher(config: DistillConfig) -> Teacher:
    """Return a teacher with random weights; as large as RealESRGAN_x4plus if it is unknown."""
    architecture = architecture_of(config.teacher) or RRDBArchitecture(4)
    return Teacher(architecture.build(), precision=config.precision, strength=config.strength)


LOSSES: Mapping[str, LossSpec] = {
    "pixel": LossSpec(
        label=lambda config: "L1",
        compute=lambda config, x: pixel_loss(x.output.float(), x.target(config)),
    ),
    "ssim": LossSpec(
        label=lambda config: "SSIM",
        compute=lambda config, x: ssim_loss(x.output, x.target(config)),
    ),
    "distill": LossSpec(
        label=lambda config: f"L1 to {config.teacher or 'a teacher'}",
        compute=lambda config, x: pixel_loss(x.output.float(), x.teacher_image),
        load=lambda config, progress: load_teacher(
            config.teacher, precision=config.precision, strength=config.strength, progress=progress
        ),
        build=_untrained_teacher,
        model=lambda config: config.teacher,
    ),
    "perceptual": LossSpec(
        label=lambda config: f"perceptual ({config.backbone})",
        compute=lambda config, x: x.networks["perceptual"](x.output, x.target(config)),
        load=load_perceptual,
        build=build_perceptual,
        model=lambda config: "vgg19" if config.backbone == "vgg19" and not config.weights else "",
        autocast=True,
    ),
    "gan": LossSpec(
        label=lambda config: f"{config.kind} GAN",
        compute=lambda config, x: generator_gan_loss(
            config.kind, x.networks["gan"], x.output, x.target(config)
        ),
        autocast=True,
    ),
}
"""Every loss by the name of its settings in a stage, in the order in which they are summed."""


def active_losses(stage: StageConfig) -> Iterator[tuple[str, LossSpec, LossConfig]]:
    """Yield name, spec and settings of the losses of a stage whose weight is not 0."""
    for name, spec in LOSSES.items():
        config: LossConfig = getattr(stage, name)
        if config.weight:
            yield name, spec, config
