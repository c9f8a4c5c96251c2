"""A training: its steps, the models that are kept of it, and the states from which it goes on."""

import math
import pathlib
import shutil
from collections.abc import Sequence

import jax
from absl import logging
from tqdm import tqdm

from jaxalign import processes, stopping
from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.models import lora, zoo
from jaxalign.models.families import base
from jaxalign.pricing import chips
from jaxalign.stages import Job
from jaxalign.stages.artefacts import Tuning
from jaxalign.stages.tune import kept as kept_lib
from jaxalign.stages.tune import log as log_lib
from jaxalign.stages.tune import work as work_lib
from jaxalign.stages.tune.config import Config
from jaxalign.stages.tune.given import Given
from jaxalign.stages.tune.kept import Kept
from jaxalign.stages.tune.log import Line, Log
from jaxalign.training import batches
from jaxalign.training import step as step_lib

STATES = "states"  # folder of what the training goes on from; it goes when all is done


def tune(config: Config, job: Job, model: zoo.Model, given: Given, artefact: Artefact) -> dict:
    """Train, and keep the model after some steps; goes on after the last state that was saved.

    Raises:
      InputError: if a loss is not finite, or states of another training lie there.
      stopping.Stopped: if the run is asked to stop; the state of the last step is saved then.
    """
    folder, made = pathlib.Path(str(artefact.path)), Tuning(artefact)
    if processes.decide(lambda: _is_whole(folder, made, given)):
        return _end(folder, given)
    from jaxalign.io import states as states_lib  # Orbax is slow to import

    dtype = config.compute_dtype if config.lora_rank else "float32"
    network = model.load(job.mesh, dtype=dtype, rules=mesh_lib.TRAINING_RULES)
    if config.lora_rank:
        lora.add(network, rank=config.lora_rank, alpha=config.alpha, seed=given.seed)
    base.keep_for_gradients(network, config.keep_for_gradients)
    parts, trained = step_lib.divide(network, job.mesh)
    del network  # its arrays are used up
    state = step_lib.begin(trained, given.recipe, job.mesh)
    del trained
    losses = step_lib.Losses(parts.graph, compute_dtype=config.compute_dtype)
    kept = Kept(model, parts, config.checkpoint_dtype, job.mesh, made)
    saved = states_lib.States(folder / STATES, artefact.fingerprint)
    try:
        begun = processes.decide(lambda: _resumable(folder, made, given, saved.steps()))
        saved.keep_until(begun)
        if begun:
            name = artefact.name
            logging.info("tune %s: resuming after step %d of %d", name, begun, given.num_steps)
            state = saved.load(begun, state)
        loop = _Loop(config, given, folder, kept, saved)
        is_whole = loop.run(step_lib.make(state, given.recipe, losses), state, begun)
    finally:
        saved.close()
    if not is_whole:
        stopping.check()
    processes.decide(lambda: rows_lib.write_table(folder / Tuning.MODELS, _models(made, given)))
    return _end(folder, given)


def _is_whole(folder: pathlib.Path, made: Tuning, given: Given) -> bool:
    """Return whether all but the marker is there; what was finished and damaged is removed.

    Nothing says which files of it still go together.
    """
    if made.artefact.is_marked:
        (folder / run_dir.DONE).unlink()
        for name in (f"{Tuning.MODELS}.parquet", f"{Tuning.MODELS}.csv"):
            (folder / name).unlink(missing_ok=True)
        _clear(folder, made, given, after=-1)
        shutil.rmtree(folder / STATES, ignore_errors=True)
    return rows_lib.has_table(folder / Tuning.MODELS)


def _clear(folder: pathlib.Path, made: Tuning, given: Given, *, after: int) -> None:
    """Remove models of later steps, and half of one; they are the same when they are made again."""
    for step in given.checkpoints:
        if step > after:
            shutil.rmtree(made.folder_of(step), ignore_errors=True)
    for left in folder.glob(f"*{kept_lib.UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _resumable(folder: pathlib.Path, made: Tuning, given: Given, steps: Sequence[int]) -> int:
    """Return the last state's step before which all is there: models and lines of the log; else 0.

    What was made after it is removed.
    """
    for step in steps:
        models = [made.folder_of(x) for x in given.checkpoints if x <= step]
        lines = log_lib.read(folder / Tuning.LOG, step)
        if all(x.is_dir() for x in models) and lines is not None:
            _clear(folder, made, given, after=step)
            return step
    _clear(folder, made, given, after=-1)
    return 0


class _Loop:
    """The steps of a training.

    The line of a step is written while the next one runs, so that devices do not wait.
    """

    def __init__(self, config: Config, given: Given, folder: pathlib.Path, kept: Kept, saved):
        self.config, self._given, self._kept, self._saved = config, given, kept, saved
        self._path = folder / Tuning.LOG
        self._flop = work_lib.useful(config, kept.model, given)
        self._pending: list[tuple[int, step_lib.Metrics]] = []

    def run(self, run, state: step_lib.State, begun: int) -> bool:
        """Take the steps that are left, or those until the run is to stop; return whether all."""
        lines = log_lib.read(self._path, begun)
        assert lines is not None
        log = Log(self._path, lines, self._peak()) if processes.is_first() else None
        try:
            return self._steps(run, state, begun, log)
        finally:
            if log is not None:
                log.close()

    def _steps(self, run, state: step_lib.State, begun: int, log: Log | None) -> bool:
        given, num = self._given, self._given.num_steps
        label = self._kept.made.artefact.name
        hidden = not processes.is_first()
        with tqdm(
            total=num,
            initial=begun,
            desc=f"tune {label}",
            unit=" steps",
            mininterval=1.0,
            disable=hidden,
        ) as progress:
            for step in range(begun, num + 1):
                if step in given.checkpoints and not self._kept.has(step):
                    self._drain(log)
                    self._kept.write(step, state.trained)
                    self._restart(log)
                if step == num:
                    break
                is_asked = stopping.requested()
                if step > begun and (is_asked or step % self.config.save_every == 0):
                    self._drain(log)
                    self._saved.save(step, state)
                    self._restart(log)
                if is_asked:
                    break
                batch = batches.place(given.batch_of(step), self._kept.mesh)
                state, metrics = run(state, self._kept.parts.frozen, batch)
                self._drain(log)
                self._pending.append((step, metrics))
                progress.update()
            self._drain(log)
        return step == num

    def _drain(self, log: Log | None) -> None:
        """Write the line of the step under way, once it has ended."""
        for step, metrics in self._pending:
            loss, norm, rate = (float(mesh_lib.to_host(x)) for x in metrics)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                name, dtype = self._kept.made.artefact.name, self.config.compute_dtype
                raise InputError(
                    f"tune {name}: loss and gradient of step {step + 1} must be finite in {dtype}, "
                    f"found {loss:g} and {norm:g}: choose a lower tune.learning_rate"
                    + ("." if dtype == "float32" else ", or tune.compute_dtype=float32.")
                )
            if log is not None:
                seen = self._given.seen
                tokens, targets = int(seen.tokens[step]), int(seen.targets[step])
                line = Line(step + 1, loss, rate, norm, tokens, targets)
                log.add(line, self._flop[step])
        self._pending.clear()

    def _restart(self, log: Log | None) -> None:
        if log is not None:
            log.start()

    def _peak(self) -> float:
        """Return the operations that all devices reach in one second at most, if it is known."""
        machine = chips.at_hand()
        if machine is None:
            return math.nan
        each = machine.chip.peak(self.config.compute_dtype)
        devices = 1 if machine.chip.name == "cpu" else jax.device_count()
        return each * devices


def _models(made: Tuning, given: Given):
    """Return the table of models: what each has seen, and the mean loss since the one before."""
    return kept_lib.table(made, given, made.log().loss.to_numpy(float))


def _end(folder: pathlib.Path, given: Given) -> dict:
    """Remove the states, and return facts for the marker."""
    processes.decide(lambda: shutil.rmtree(folder / STATES, ignore_errors=True))
    return {
        "num_steps": given.num_steps,
        "num_tokens": int(given.seen.tokens.sum()),
        "num_targets": int(given.seen.targets.sum()),
        "rows": given.rows.counts.__dict__,
    }
