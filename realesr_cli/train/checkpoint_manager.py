"""What happens between steps: validation, sample sheets, and checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from realesr_cli.errors import CancelledError, DivergedError, TrainingError, WriteError
from realesr_cli.train.checkpoint import (
    checkpoint_path,
    list_checkpoints,
    mark_best,
    prune_checkpoints,
    save_checkpoint,
    save_generator,
    set_aside,
)
from realesr_cli.train.events import Listener, Notice, Saved, Scores, Validated
from realesr_cli.train.loggers import MetricsLog
from realesr_cli.train.monitors import MAX_SKIPPED, assess_validation, best_by
from realesr_cli.train.session import SAMPLES, Session
from realesr_cli.train.state import TrainState
from realesr_cli.train.validation import Validator, save_sheet, upscale_samples


class CheckpointManager:
    """Validates and saves during one stage; the first process does, the others wait for it."""

    def __init__(
        self,
        session: Session,
        state: TrainState,
        validator: Validator | None,
        log: MetricsLog,
        listener: Listener,
    ) -> None:
        self.session = session
        self.state = state
        self.validator = validator
        self.log = log
        self.listener = listener
        self.config = session.config
        self.stage = session.config.stages[state.progress.stage]
        self.saved_at = time.monotonic()
        """When the newest checkpoint was saved, or the stage started."""
        # Without validation no score can select the best.
        self.by = best_by(self.stage, self.config.validation) if validator else "last"

    def before_first_step(self) -> None:
        """Score the weights the stage starts from, which later scores are compared with."""
        if self.session.world.first and self.validator and not self.state.progress.stage_start:
            self._validate(self.validator)
        self.session.world.wait()

    def after_step(self, healthy: Callable[[], bool], *, stopping: bool) -> None:
        """Validate and save when due, if the weights are healthy.

        Raises DivergedError when steps keep being skipped, when scores stay below the start, and
        when the weights are not healthy at the end; WeightsWriteError where a checkpoint cannot be
        saved.
        """
        progress, config, world = self.state.progress, self.config, self.session.world
        if progress.skipped >= MAX_SKIPPED:
            raise self._diverged(f"the loss was not finite for {MAX_SKIPPED} steps in a row")
        last = progress.step == self.stage.iterations
        validator = None if stopping else self.validator
        validating = validator is not None and (
            last or progress.step % config.validation.every == 0
        )
        saving = last or stopping or progress.step % config.checkpoints.every == 0
        exploded, worse = False, ""
        if world.first and (validating or saving or self._is_overdue()):
            # Not while steps are skipped: the newest checkpoint must be one to continue from.
            if (last or not progress.skipped) and healthy():
                best = False
                if validating and validator is not None:
                    best, worse = self._validate(validator)
                if saving or best or worse or self._is_overdue():
                    self._save(best=best)
            else:
                exploded = last
        if validating or saving:
            worse, exploded = world.share(worse), world.any(exploded)
        if exploded:
            raise self._diverged("the weights are not finite, or the outputs are out of range")
        if worse:
            raise DivergedError(self._describe_failure(worse))

    @contextlib.contextmanager
    def save_on_error(self) -> Iterator[None]:
        """Save the state after the last whole step if an error ends the block, where possible.

        Raises TrainingError instead of the error of a lost connection to another process.
        """
        try:
            yield
        except (DivergedError, CancelledError, WriteError):
            raise
        except Exception as error:
            outcome = self._save_last_step()
            if not self.session.world.is_connection_error(error):
                raise
            reason = str(error).strip().splitlines()[0]
            raise TrainingError(
                f"the connection to another process was lost ({reason}); {outcome}",
                advice="resume",
            ) from error

    def _save_last_step(self) -> str:
        """Save after an error and return what was done; never raises."""
        progress = self.state.progress
        if not self.session.world.first:
            return "the first process saves the checkpoint"
        if not self.state.consistent or progress.skipped:
            return "the state cannot be saved in the middle of an update"
        if checkpoint_path(self.session.out, self.config, progress).exists() or not progress.step:
            return "there is nothing new to save"
        try:
            self._save(best=False)
        except Exception as error:
            return f"the state cannot be saved: {error}"
        return f"step {progress.step:,} is saved"

    def _is_overdue(self) -> bool:
        minutes = self.config.checkpoints.minutes
        return bool(minutes) and time.monotonic() - self.saved_at > minutes * 60

    def _diverged(self, reason: str) -> DivergedError:
        """Set checkpoints aside whose next step failed; return an error that names the newest."""
        session, progress = self.session, self.state.progress
        step = progress.step - progress.skipped
        first = checkpoint_path(session.out, self.config, replace(progress, step=step))
        if session.world.first:
            set_aside(session.out, first)
        found = list_checkpoints(session.out)
        newest = f"the newest healthy checkpoint is {found[-1]}" if found else "none was saved yet"
        return DivergedError(
            f"{reason}; {newest}. Lower optimizer.lr, set optimizer.clip, or use runtime.precision "
            "= fp32",
            advice="resume-changed",
        )

    def _validate(self, validator: Validator) -> tuple[bool, str]:
        """Score, report and log the averaged generator.

        Return whether it is the best so far, and what is worse if the run has to stop.
        """
        session, old = self.session, self.state.progress
        outputs = upscale_samples(self.state.averaged, validator.samples, session.machine.device)
        scores = validator.score(outputs)
        validation, bicubic = self.config.validation, validator.bicubic
        verdict = assess_validation(old, scores, self.stage, validation, bicubic)
        self.state.progress = progress = verdict.progress
        first = not old.stage_start
        name = f"{progress.stage + 1}-{self.stage.name}-{progress.step:09d}.png"
        sheet = session.out / SAMPLES / name
        save_sheet(sheet, validator.samples, outputs, validation.sheet)
        self.listener(
            Validated(
                self.stage.name,
                progress.step,
                scores,
                stage_start=Scores(**progress.stage_start),
                run_start=Scores(**progress.run_start),
                bicubic=bicubic,
                best=verdict.best and self.by != "last",
                sheet=sheet,
            )
        )
        for message in verdict.messages:
            self.listener(Notice(message))
        self._log_scores(scores, bicubic)
        # Before the checkpoint, so that a run stopped at any moment has its model.
        if verdict.best:
            self._save_model()
        return verdict.best and not first, ", ".join(verdict.worse) if verdict.stop else ""

    def _log_scores(self, scores: Scores, bicubic: Scores) -> None:
        progress = self.state.progress
        values = {
            "stage": self.stage.name,
            "step": progress.step,
            **scores.plain(),
            **{f"stage_start_{k}": v for k, v in progress.stage_start.items()},
            **{f"run_start_{k}": v for k, v in progress.run_start.items()},
            **{f"bicubic_{k}": v for k, v in bicubic.plain().items()},
        }
        self.log.write(
            "validation", self.config.steps_before(progress.stage) + progress.step, values
        )

    def _save(self, *, best: bool) -> None:
        path = save_checkpoint(self.session.out, self.state, self.config)
        self.saved_at = time.monotonic()
        if best and self.by != "last":
            mark_best(path)
        prune_checkpoints(self.session.out, self.config.checkpoints.keep)
        self.listener(Saved(path))
        if self.by == "last":
            self._save_model()

    def _save_model(self) -> None:
        save_generator(self.session.out, self.state, self.config)

    def _describe_failure(self, worse: str) -> str:
        progress = self.state.progress
        kept = checkpoint_path(self.session.out, self.config, progress)
        model = (
            f"the best weights, of step {progress.best_step}"
            if self.by != "last"
            else "the newest weights"
        )
        return (
            f"scores were below the start for {progress.worse} validations in a row (at the last "
            f"one {worse}); generator.safetensors has {model}. Lower optimizer.lr or raise "
            f"validation.patience (state: {kept.name})"
        )
