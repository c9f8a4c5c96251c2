"""What is regressed out of a run, filtered and scrubbed: fMRIPrep's confounds through nilearn.

The strategy is one of nilearn's presets ("simple", "scrubbing", "compcor", "ica_aroma"), some of
its components ("motion", "wm_csf", "high_pass", "scrub", ...), or "none". Volumes that it excludes
(motion outliers, and those before the steady state) are left out before anything is fitted, and
are no samples: see `Cleaned.kept`.

Source: Ciric et al. (2017), NeuroImage 154, 174-187; Lindquist et al. (2019), Human Brain Mapping
40, 2358-2376 (the order of censoring and regression), both as nilearn has them.
"""

import contextlib
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from absl import logging
from jaxtyping import Float, Int

from jaxalign.core import features
from jaxalign.errors import InputError, one_line

NONE = "none"
PRESETS = ("simple", "scrubbing", "compcor", "ica_aroma")
COMPONENTS = ("motion", "high_pass", "wm_csf", "global_signal", "compcor", "ica_aroma", "scrub")
MODELS = ("basic", "power2", "derivatives", "full")
STANDARDIZE = ("run", "none")
_BLOCK = 16_384  # targets that are cleaned at once, in float64


class Cleaning(NamedTuple):
    """How a run is cleaned.

    Attributes:
      strategy: one of `PRESETS`, some of `COMPONENTS`, or `NONE`.
      motion, wm_csf, global_signal: one of `MODELS`; "": the preset's, or nilearn's.
      num_compcor: components of CompCor; 0: all that fMRIPrep kept.
      fd_mm, std_dvars: volumes above either are scrubbed.
      segment: volumes that a stretch between scrubbed ones must have, or is scrubbed too.
      high_pass_hz: cut of cosines that are fitted with the confounds; 0: none.
      standardize: "run": mean 0 and variance 1 of each target within each run; "none".
    """

    strategy: tuple[str, ...] = ("simple",)
    motion: str = ""
    wm_csf: str = ""
    global_signal: str = ""
    num_compcor: int = 0
    fd_mm: float = 0.5
    std_dvars: float = 1.5
    segment: int = 5
    high_pass_hz: float = 0.0
    standardize: str = "run"

    @property
    def has_confounds(self) -> bool:
        """Whether a file of confounds is read."""
        return self.strategy != (NONE,)

    @property
    def is_scrubbed(self) -> bool:
        """Whether volumes are left out where the head moved."""
        return "scrub" in self.strategy or self.strategy == ("scrubbing",)

    @property
    def label(self) -> str:
        """What was done, in the words of the options; for rows and pages."""
        parts = ["confounds " + "+".join(self.strategy)]
        for name in ("motion", "wm_csf", "global_signal"):
            if value := getattr(self, name):
                parts.append(f"{name} {value}")
        if self.num_compcor:
            parts.append(f"{self.num_compcor} compcor")
        if self.is_scrubbed:
            parts.append(f"FD {self.fd_mm:g} mm, DVARS {self.std_dvars:g}, segment {self.segment}")
        if self.high_pass_hz:
            parts.append(f"high-pass {self.high_pass_hz:g} Hz")
        if self.standardize == "run":
            parts.append("z per run")
        return ", ".join(parts)


class Confounds(NamedTuple):
    """Of a run: what is regressed out [volumes, confounds] or None, and which volumes are left."""

    table: pd.DataFrame | None
    kept: Int[np.ndarray, " n"] | None  # None: all


class Cleaned(NamedTuple):
    """Values of the volumes that are left, and their numbers in the run, from 0."""

    values: Float[np.ndarray, "n v"]
    kept: Int[np.ndarray, " n"]


def check(how: Cleaning) -> None:
    """Refuse settings that nilearn does not know, or that contradict each other.

    Raises:
      InputError: naming the option.
    """
    one = len(how.strategy) == 1 and how.strategy[0] in (NONE, *PRESETS)
    unknown = [x for x in how.strategy if x not in COMPONENTS]
    if not how.strategy or (unknown and not one) or len(set(how.strategy)) < len(how.strategy):
        raise InputError(
            f"strategy must be one of {', '.join((NONE, *PRESETS))}, or some of "
            f"{', '.join(COMPONENTS)}, each once; found {','.join(how.strategy)!r}."
        )
    if not one and "compcor" in how.strategy and "high_pass" not in how.strategy:
        raise InputError("strategy must have high_pass beside compcor, which was high-passed.")
    for name in ("motion", "wm_csf", "global_signal"):
        value = getattr(how, name)
        if value not in ("", *MODELS):
            raise InputError(f"{name} must be one of {', '.join(MODELS)}, found {value!r}.")
        if value and not one and name not in how.strategy or (value and not how.has_confounds):
            raise InputError(f"{name} must be left out where strategy has no {name}.")
    for name in ("fd_mm", "std_dvars"):
        if not getattr(how, name) > 0:
            raise InputError(f"{name} must be positive, found {getattr(how, name)}.")
    if how.segment < 0 or how.num_compcor < 0 or not 0 <= how.high_pass_hz < np.inf:
        raise InputError(
            "segment, num_compcor and high_pass_hz must not be negative, found "
            f"{how.segment}, {how.num_compcor} and {how.high_pass_hz}."
        )
    if how.standardize not in STANDARDIZE:
        raise InputError(
            f"standardize must be one of {', '.join(STANDARDIZE)}, found {how.standardize!r}."
        )
    filtered = how.has_confounds and ("high_pass" in how.strategy or how.strategy[0] in PRESETS)
    if how.high_pass_hz and filtered:
        raise InputError(
            "high_pass_hz must be 0 beside a strategy that has high_pass (fMRIPrep's cosines): "
            "name its other components, or leave high_pass_hz out."
        )


def load(images: Sequence[pathlib.Path], table: pathlib.Path, how: Cleaning) -> Confounds:
    """Read the confounds of a run.

    Args:
      images: the scan, or of surfaces those of both hemispheres; nilearn finds the table by them.
      table: fMRIPrep's, for messages.
      how: what is read of it.

    Raises:
      InputError: if nilearn is not installed, or the table lacks what the strategy needs.
    """
    options: dict[str, Any] = {x: getattr(how, x) for x in ("motion", "wm_csf", "global_signal")}
    options = {name: value for name, value in options.items() if value}
    if how.num_compcor:
        options["n_compcor"] = how.num_compcor
    if how.is_scrubbed:
        options |= {
            "scrub": how.segment,
            "fd_threshold": how.fd_mm,
            "std_dvars_threshold": how.std_dvars,
        }
    named = [str(x) for x in images]
    given = named if len(named) > 1 else named[0]
    with _nilearn(table) as (fmriprep, _):
        if how.strategy[0] in PRESETS and len(how.strategy) == 1:
            found = fmriprep.load_confounds_strategy(given, how.strategy[0], **options)
        else:
            found = fmriprep.load_confounds(given, strategy=how.strategy, **options)
    regressors, kept = found
    if kept is not None and not len(kept):
        raise InputError(
            f"{table}: strategy {'+'.join(how.strategy)} must leave a volume, but scrubs all: "
            "leave the run out, or raise fd_mm and std_dvars."
        )
    return Confounds(regressors, kept)


def clean(
    values: Float[np.ndarray, "n v"], found: Confounds, how: Cleaning, tr_s: float, where: str
) -> Cleaned:
    """Leave out scrubbed volumes, regress out confounds and slow drifts, and standardise.

    The mean of a target stays, unless it is standardised. A target that is NaN throughout stays so.

    Args:
      values: of all volumes of a run.
      found: from `load`, or of nothing.
      how: what is done.
      tr_s: repetition time, for the filter.
      where: the run, for messages.

    Raises:
      InputError: if confounds are of other volumes, are not finite, or leave no degree of freedom.
    """
    num_volumes = len(values)
    kept = np.arange(num_volumes) if found.kept is None else np.asarray(found.kept)
    regressors = found.table
    if regressors is not None:
        if len(regressors) != num_volumes:
            raise InputError(
                f"{where}: confounds must have a row for each of {num_volumes} volumes, found "
                f"{len(regressors)}."
            )
        bad = [x for x in regressors if not np.isfinite(regressors[x].to_numpy()[kept]).all()]
        if bad:
            raise InputError(
                f"{where}: confounds must be numbers in every volume that is kept (n/a in the "
                f"first row of a derivative apart), but {', '.join(map(repr, bad[:4]))} are not."
            )
    table = np.zeros((num_volumes, 0)) if regressors is None else regressors.to_numpy(np.float64)
    if how.high_pass_hz:
        table = np.concatenate(
            [table, _cosines(num_volumes, tr_s, how.high_pass_hz, where)], axis=1
        )
    if table.shape[1] >= len(kept) - 1:
        raise InputError(
            f"{where}: {table.shape[1]} confounds leave nothing of {len(kept)} volumes: choose "
            "fewer."
        )
    # What is too large for its type becomes infinite, and is refused with the responses.
    with np.errstate(over="ignore", invalid="ignore"):
        cleaned = _regressed(values, table[kept], kept) if table.shape[1] else values[kept]
        if how.standardize == "run":
            cleaned = _standardized(cleaned)
    return Cleaned(cleaned, kept)


def _cosines(num_volumes: int, tr_s: float, cut_hz: float, where: str) -> Float[np.ndarray, "t q"]:
    """Return the cosines below a frequency, of the whole run: what is censored leaves gaps in them.

    `signal.clean` would add them itself, unless a confound correlates with one of them by more than
    0.9, as slow motion does: then it adds none, and nothing is filtered.
    """
    with _nilearn(None):
        from nilearn.glm import first_level

        times = tr_s * np.arange(num_volumes)
        design = first_level.make_first_level_design_matrix(
            times, drift_model="cosine", high_pass=cut_hz
        )
    found = design.drop(columns="constant").to_numpy(np.float64)
    if not found.shape[1]:
        logging.warning(
            "%s: no cosine is slower than high_pass_hz = %g in %d volumes: nothing is filtered",
            *(where, cut_hz, num_volumes),
        )
    return found


def _regressed(
    values: Float[np.ndarray, "t v"],
    table: Float[np.ndarray, "n q"],
    kept: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "n v"]:
    """Return what confounds leave of the volumes that are kept, block by block.

    A target that is NaN in one of these volumes cannot be cleaned, and stays as it is.
    """
    found = np.empty((len(kept), values.shape[1]), values.dtype)
    for start in range(0, values.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        own = values[kept, block].astype(np.float64)
        lost = ~np.isfinite(own).all(axis=0)
        with _nilearn(None) as (_, signal):
            cleaned = signal.clean(
                np.where(lost, 0, own),
                confounds=table,
                detrend=False,
                standardize=None,
                standardize_confounds=True,
                filter=False,
            )
        cleaned[:, lost] = own[:, lost]
        found[:, block] = cleaned
    return found


def _standardized(values: Float[np.ndarray, "n v"]) -> Float[np.ndarray, "n v"]:
    lost = ~np.isfinite(values).all(axis=0)
    found = features.standardize(np.where(lost, 0, values), np.zeros(len(values), int))
    return np.where(lost, values, found).astype(values.dtype)


@contextlib.contextmanager
def _nilearn(path: pathlib.Path | None) -> Iterator[tuple[Any, Any]]:
    """Give nilearn's two modules, and turn what it raises and warns into lines of our own."""
    try:
        from nilearn import signal
        from nilearn.interfaces import fmriprep
    except ModuleNotFoundError as error:
        raise InputError(
            "confounds are regressed out with nilearn, which is not installed: pip install "
            "jaxalign[brain], or set strategy=none and high_pass_hz=0."
        ) from error
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            yield fmriprep, signal
        except InputError:
            raise
        except (ValueError, LookupError, OSError) as error:
            if path is None:
                raise
            raise InputError(
                f"{path} does not serve the strategy that was asked for: {one_line(error)}."
            ) from error
    for text in dict.fromkeys(" ".join(str(x.message).split()) for x in said if _is_of_data(x)):
        logging.warning("%s: %s", path.name if path else "nilearn", text)


def _is_of_data(warning: warnings.WarningMessage) -> bool:
    """Whether a warning is about what was read, not about functions that will change."""
    return not issubclass(warning.category, DeprecationWarning | FutureWarning)
