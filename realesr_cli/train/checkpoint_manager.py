"""What happens between steps: validation, sample sheets, checkpoints, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence

from realesr_cli.errors import DivergedError
from realesr_cli.train.checkpoint import (
    checkpoint_path,
    checkpoints,
    mark_best,
    prune,
    save_checkpoint,
    save_generator,
)
from realesr_cli.train.events import Note, Saved, Validated
from realesr_cli.train.log import Log
from realesr_cli.train.monitors import SKIPS_ALLOWED, best_by, update_best
from realesr_cli.train.region_cache import Pixels
from realesr_cli.train.session import Session
from realesr_cli.train.state import TrainState
from realesr_cli.train.validation import (
    Scores,
    bicubic_scenes,
    save_sheet,
    score,
    upscale_scenes,
)

SAMPLES = "samples"


class CheckpointManager:
    """Scores and saves one stage; only the first process does, the others wait for it."""

    def __init__(self, session: Session, state: TrainState, log: Log | None) -> None:
        self.session = session
        self.state = state
        self.log = log
        config = session.config
        self.stage = config.stages[state.progress.stage]
        # Without validation there is nothing to be best by.
        self.by = best_by(self.stage, config.validation) if session.scenes else "last"
        # In every stage the last one's, so that scores of a run can be compared.
        self.perceptual = session.perceptual[config.stages[-1].perceptual]
        self.bicubic: Scores | None = None
        if session.scenes and session.caller.world.first:
            if self.perceptual is not None:
                self.perceptual.to(session.machine.device)
            self.bicubic = self._score(bicubic_scenes(session.scenes, config.scale))

    def before_first_step(self) -> None:
        """Score the weights the stage starts from, which every later score is held against."""
        if self.session.caller.world.first and self.session.scenes and not self._baseline:
            self._validate()
        self.session.caller.world.wait()

    def after_step(self, *, stopping: bool) -> None:
        """Validate and save where it is time; raise Diverged when scores stay below the start.

        Raises WeightsWriteError where a checkpoint cannot be saved.
        """
        step, config = self.state.progress.step, self.session.config
        last = step == self.stage.iterations
        every = config.validation.every
        scoring = bool(self.session.scenes) and (last or step % every == 0) and not stopping
        # Not amid steps that fail: the newest checkpoint shall be one to go back to.
        due = step % config.checkpoints.every == 0 and not self.state.progress.skipped
        saving = last or stopping or due
        world = self.session.caller.world
        worse = best = False
        if world.first:
            if scoring:
                best, worse = self._validate()
            if saving or best or worse:
                self._save(best=best)
        if scoring or saving:
            worse = world.any(worse, self.session.machine.device)
        if worse:
            raise DivergedError(self._gave_up())

    def check_skipped(self) -> None:
        """Raise Diverged after ten steps in a row whose loss was not finite."""
        if self.state.progress.skipped < SKIPS_ALLOWED:
            return
        found = checkpoints(self.session.out)
        good = f"the last good checkpoint is {found[-1]}" if found else "nothing was saved yet"
        raise DivergedError(
            f"the loss was not finite for {SKIPS_ALLOWED} steps in a row; {good}. Lower "
            "optimizer.lr, set optimizer.clip or take --precision fp32, and go on with --resume "
            "--accept-changes"
        )

    @property
    def _baseline(self) -> dict[str, float]:
        return self.state.progress.baseline

    def _validate(self) -> tuple[bool, bool]:
        """Score the averaged generator, report and log it. Whether it is best, and too bad."""
        session, progress = self.session, self.state.progress
        outputs = upscale_scenes(self.state.ema, session.scenes, session.machine.device)
        scores = self._score(outputs)
        first = not progress.baseline
        verdict = update_best(progress, scores, self.stage, session.config.validation)
        if first:
            progress.baseline = scores.plain()
        progress.origin = progress.origin or progress.baseline
        name = f"{progress.stage + 1}-{self.stage.name}-{progress.step:09d}.png"
        sheet = session.out / SAMPLES / name
        save_sheet(sheet, session.scenes, outputs, session.config.validation.sheet)
        assert self.bicubic is not None
        session.caller.listener(
            Validated(
                self.stage.name,
                progress.step,
                scores,
                Scores(**progress.baseline),
                Scores(**progress.origin),
                self.bicubic,
                verdict.best and self.by != "last",
                sheet,
            )
        )
        for message in verdict.messages:
            session.caller.listener(Note(message))
        self._log_scores(scores)
        # Before the checkpoint, so that a run stopped at any moment has its model.
        if verdict.best:
            self._save_model()
        return verdict.best and not first, verdict.stop

    def _score(self, outputs: Sequence[Pixels]) -> Scores:
        session = self.session
        return score(session.scenes, outputs, session.config.scale, self.perceptual)

    def _log_scores(self, scores: Scores) -> None:
        if self.log is None:
            return
        progress, bicubic = self.state.progress, self.bicubic
        values = {
            "stage": self.stage.name,
            "step": progress.step,
            **scores.plain(),
            **{f"start_{k}": v for k, v in progress.baseline.items()},
            **{f"origin_{k}": v for k, v in progress.origin.items()},
            **{f"bicubic_{k}": v for k, v in (bicubic.plain() if bicubic else {}).items()},
        }
        self.log.write("validation", self.session.before(progress.stage) + progress.step, values)

    def _save(self, *, best: bool) -> None:
        session = self.session
        path = save_checkpoint(session.out, self.state, session.config)
        if best and self.by != "last":
            mark_best(path)
        prune(session.out, session.config.checkpoints.keep)
        session.caller.listener(Saved(path))
        if self.by == "last":
            self._save_model()

    def _save_model(self) -> None:
        save_generator(self.session.out, self.state, self.session.config)

    def _gave_up(self) -> str:
        progress = self.state.progress
        below = progress.baseline["psnr"] - progress.best.get("psnr", 0.0)
        kept = checkpoint_path(self.session.out, self.session.config, progress)
        better = (
            f"the best weights, of step {progress.best_step}, are kept in generator.safetensors"
            if self.by != "last"
            else f"the newest weights are in generator.safetensors, {below:.2f} dB below the start"
        )
        return (
            f"scores were below the start for {progress.worse} validations in a row; {better}. "
            f"Lower optimizer.lr or raise validation.stop_if_worse (state: {kept.name})"
        )
