"""Every deliberate error of the package, each with the exit code the command line gives for it.

The message of an error says what went wrong, where, and what to do about it. Anything that is not a
`RealesrError` is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self


class RealesrError(Exception):
    """Base of every error raised on purpose.

    `advice` names what the user can do about it, as a key of `realesr_cli.cli.advice`, which knows
    the flags; `values` fill the fields of its sentence, such as `{name}`. `message` alone must make
    sense to a caller of the library.
    """

    exit_code = 1

    def __init__(
        self, message: str = "", *, advice: str = "", values: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.advice = advice
        self.values = dict(values or {})

    def prefixed(self, text: str) -> Self:
        """Return the same error with `text: ` before its message, to be raised from its cause."""
        return type(self)(f"{text}: {self}", advice=self.advice, values=self.values)

    def __str__(self) -> str:
        # KeyError would show its message in quotes; the subclasses below share the plain form.
        return str(self.args[0]) if self.args else ""


class RealesrWarning(UserWarning):
    """Something the user should know although the work goes on; shown once where it repeats.

    `advice` and `values` are those of `RealesrError`.
    """

    def __init__(
        self, message: str = "", *, advice: str = "", values: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.advice = advice
        self.values = dict(values or {})


class ConfigError(RealesrError, ValueError):
    """A setting, option or argument has a value that cannot be used."""

    exit_code = 2


class MissingDependencyError(RealesrError, ImportError):
    """A library is not installed or cannot be loaded; the message names the package to install."""

    exit_code = 2


class CancelledError(RealesrError):
    """The caller asked for the work to stop."""

    exit_code = 130


class WriteError(RealesrError, OSError):
    """A file could not be written."""


class ImageError(RealesrError):
    """An image could not be read, processed or written."""


class UnreadableImageError(ImageError, OSError):
    """The file is missing, empty, damaged or not an image."""


class UnsupportedImageError(ImageError, ValueError):
    """The image is valid, but of a kind or size that is not handled."""


class MissingDecoderError(MissingDependencyError, UnsupportedImageError):
    """The image is of a kind that an optional library decodes, which is not installed."""


class ImageTooLargeError(UnsupportedImageError):
    """An image has more pixels than the limit allows, or than the format can hold."""


class ImageWriteError(ImageError, WriteError):
    """The result could not be written."""


class OutputExistsError(ImageWriteError):
    """The output exists already, and is not the result that was asked for."""


class VideoError(RealesrError):
    """A video cannot be read, planned or encoded as requested."""

    exit_code = 2


class JobChangedError(VideoError):
    """An interrupted video cannot be continued: its source or a setting is another one now."""

    exit_code = 3


class DamagedVideoError(VideoError):
    """More frames of a video are damaged than are accepted."""

    exit_code = 1


class WeightsError(RealesrError):
    """Something about a model's weights."""

    exit_code = 3


class UnknownModelError(WeightsError, KeyError):
    """No model of that name is registered and no such file exists."""


class ModelUnavailableError(WeightsError, OSError):
    """The weights are not cached and cannot be fetched now (offline, or every address failed)."""


class DownloadError(WeightsError, OSError):
    """A download failed for good."""


class ChecksumMismatchError(WeightsError, ValueError):
    """A file's size or SHA-256 is not what the registry states."""


class CheckpointFormatError(WeightsError, ValueError):
    """A file is not a checkpoint that can be loaded safely."""


class UnknownArchitectureError(WeightsError, ValueError):
    """The tensors belong to a network this package does not know."""


class WeightsWriteError(WeightsError, WriteError):
    """Weights could not be written (disk full, no permission)."""


class ExportError(WeightsError, RuntimeError):
    """A model could not be exported, or the exported file does not compute what the model does."""


class DeviceError(RealesrError):
    """The device asked for cannot be used."""

    exit_code = 2


class OutOfMemoryError(DeviceError, MemoryError):
    """Not even the smallest piece of work fits in memory."""

    exit_code = 4


class DatasetError(RealesrError, ValueError):
    """Training or evaluation images are missing, unreadable or do not match."""


class TrainingError(RealesrError):
    """Training could not start or go on."""


class DivergedError(TrainingError, ArithmeticError):
    """The loss stayed non-finite, or validation stayed worse than the start."""


class ResumeMismatchError(TrainingError, ValueError):
    """The run to resume was made with other settings."""
