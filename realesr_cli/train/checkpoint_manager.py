"""What happens between steps: validation, sample sheets, and checkpoints."""

from __future__ import annotations

from realesr_cli.errors import DivergedError
from realesr_cli.train.checkpoint import (
    checkpoint_path,
    list_checkpoints,
    mark_best,
    prune_checkpoints,
    save_checkpoint,
    save_generator,
)
from realesr_cli.train.events import Listener, Notice, Saved, Scores, Validated
from realesr_cli.train.loggers import MetricsLog
from realesr_cli.train.monitors import MAX_SKIPPED, assess_validation, best_by
from realesr_cli.train.session import Session
from realesr_cli.train.state import TrainState
from realesr_cli.train.validation import Validator, save_sheet, upscale_samples

SAMPLES = "samples"


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
        # Without validation no score can select the best.
        self.by = best_by(self.stage, self.config.validation) if validator else "last"

    def before_first_step(self) -> None:
        """Score the weights the stage starts from, which later scores are compared with."""
        if self.session.world.first and self.validator and not self.state.progress.stage_start:
            self._validate(self.validator)
        self.session.world.wait()

    def after_step(self, *, stopping: bool) -> None:
        """Validate and save when due.

        Raises DivergedError when scores stay below the start, and WeightsWriteError where a
        checkpoint cannot be saved.
        """
        step, config, world = self.state.progress.step, self.config, self.session.world
        last = step == self.stage.iterations
        validator = None if stopping else self.validator
        validating = validator is not None and (last or step % config.validation.every == 0)
        # Not while steps are skipped: the newest checkpoint must be one to go back to.
        due = step % config.checkpoints.every == 0 and not self.state.progress.skipped
        saving = last or stopping or due
        failed = best = False
        if world.first:
            if validating and validator is not None:
                best, failed = self._validate(validator)
            if saving or best or failed:
                self._save(best=best)
        if validating or saving:
            failed = world.any(failed, self.session.machine.device)
        if failed:
            raise DivergedError(self._describe_failure())

    def check_skipped(self) -> None:
        """Raise DivergedError after ten steps in a row whose loss was not finite."""
        if self.state.progress.skipped < MAX_SKIPPED:
            return
        found = list_checkpoints(self.session.out)
        newest = f"the newest checkpoint is {found[-1]}" if found else "no checkpoint was saved yet"
        raise DivergedError(
            f"the loss was not finite for {MAX_SKIPPED} steps in a row; {newest}. Lower "
            "optimizer.lr, set optimizer.clip, or use runtime.precision = fp32",
            advice="resume-changed",
        )

    def _validate(self, validator: Validator) -> tuple[bool, bool]:
        """Score, report and log the averaged generator; return whether it is best, or failed."""
        session, old = self.session, self.state.progress
        outputs = upscale_samples(self.state.ema, validator.samples, session.machine.device)
        scores = validator.score(outputs)
        verdict = assess_validation(old, scores, self.stage, self.config.validation)
        self.state.progress = progress = verdict.progress
        first = not old.stage_start
        name = f"{progress.stage + 1}-{self.stage.name}-{progress.step:09d}.png"
        sheet = session.out / SAMPLES / name
        save_sheet(sheet, validator.samples, outputs, self.config.validation.sheet)
        self.listener(
            Validated(
                self.stage.name,
                progress.step,
                scores,
                stage_start=Scores(**progress.stage_start),
                run_start=Scores(**progress.run_start),
                bicubic=validator.bicubic,
                best=verdict.best and self.by != "last",
                sheet=sheet,
            )
        )
        for message in verdict.messages:
            self.listener(Notice(message))
        self._log_scores(scores, validator.bicubic)
        # Before the checkpoint, so that a run stopped at any moment has its model.
        if verdict.best:
            self._save_model()
        return verdict.best and not first, verdict.stop

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
        if best and self.by != "last":
            mark_best(path)
        prune_checkpoints(self.session.out, self.config.checkpoints.keep)
        self.listener(Saved(path))
        if self.by == "last":
            self._save_model()

    def _save_model(self) -> None:
        save_generator(self.session.out, self.state, self.config)

    def _describe_failure(self) -> str:
        progress = self.state.progress
        below = progress.stage_start["psnr"] - progress.best.get("psnr", 0.0)
        kept = checkpoint_path(self.session.out, self.config, progress)
        model = (
            f"generator.safetensors has the best weights, of step {progress.best_step}"
            if self.by != "last"
            else f"generator.safetensors has the newest weights, {below:.2f} dB below the start"
        )
        return (
            f"scores were below the start for {progress.worse} validations in a row; {model}. "
            f"Lower optimizer.lr or raise validation.patience (state: {kept.name})"
        )
