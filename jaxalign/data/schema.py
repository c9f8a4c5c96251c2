"""What every data set becomes: stimuli, responses and behaviour, checked when built."""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import metrics
from jaxalign.data import labels
from jaxalign.data.formats import coordinates, grids, npz
from jaxalign.data.formats.grids import Grid
from jaxalign.data.formats.tables import first_repeated
from jaxalign.data.images.stored import Pixels
from jaxalign.errors import InputError
from jaxalign.io.place import Place

Unit = Literal["word", "sentence", "image"]
GROUP = "group"  # in the place of a subject: the mean over subjects
MEAN = "mean"  # in the place of a participant: only means over participants were published

# Array in a file of responses -> its dimensions, and whether it holds text; the others hold one
# text per sample or target.
_NPZ = {
    "values": (2, False),
    "signal": (2, False),
    "coordinates": (2, False),
    "space": (0, True),
    "time_s": (1, False),
    "tr_s": (0, False),
    "units": (0, True),
}
_LONGEST_TR_S = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stimuli:
    """What was presented, in its order: words with times, sentences, or images.

    Attributes:
      stimulus_id: unique.
      text: what was read or heard, not empty; of images their captions, or () if there are none.
      passage: the text that a part belongs to; context never crosses it. An image is its own.
      run: the scanning run in which it was presented; delays never cross it.
      unit: what a stimulus is.
      onset_s, offset_s: time within the run; empty arrays where presentation was not timed. Both
        are NaN for a word whose time is not known: it is read in the context of those that
        follow, and is in no TR.
      pixels: of images; None of words and sentences.
      space_before: whether the passage has white space before each part; empty where that is not
        said. Before the first part of a passage it plays no part.
      language: of the text, as "en" or "nl"; empty where that is not said.
    """

    stimulus_id: Sequence[str]
    text: Sequence[str]
    passage: Sequence[str]
    run: Sequence[str]
    unit: Unit
    onset_s: Float[np.ndarray, " m"] = dataclasses.field(default_factory=lambda: np.empty(0))
    offset_s: Float[np.ndarray, " o"] = dataclasses.field(default_factory=lambda: np.empty(0))
    pixels: Pixels | None = None
    space_before: Sequence[bool] = ()
    language: str = ""

    def __post_init__(self):
        m = len(self.stimulus_id)
        if len(self.space_before) not in (0, m):
            raise InputError(
                f"stimuli: space_before must have one entry per stimulus_id ({m}), found "
                f"{len(self.space_before)}."
            )
        if (self.unit == "image") != (self.pixels is not None):
            raise InputError("stimuli: images, and nothing else, must have pixels.")
        needed = ("passage", "run") if self.pixels and not self.text else ("text", "passage", "run")
        for name in needed:
            if len(getattr(self, name)) != m:
                raise InputError(
                    f"stimuli: {name} must have one entry per stimulus_id ({m}), "
                    f"found {len(getattr(self, name))}."
                )
        for name in ("stimulus_id", "passage", "run"):
            is_id = name == "stimulus_id"
            labels.refuse_missing(
                f"stimuli: {name}", getattr(self, name), self.unit, may_be_nan=is_id
            )
        if repeated := first_repeated(self.stimulus_id):
            raise InputError(f"stimuli: stimulus_id must be unique, found {repeated!r} twice.")
        for i, text in enumerate(self.text):
            if not text.strip():
                name = self.stimulus_id[i]
                raise InputError(f"stimuli: text must not be empty, but that of {name!r} is.")
        if m == 0:
            raise InputError(f"stimuli: there must be at least one {self.unit}, found none.")
        if not self.is_timed and len(self.offset_s) == 0:
            return
        if not len(self.onset_s) == len(self.offset_s) == m:
            raise InputError(
                f"stimuli: onset_s and offset_s must have {m} entries, found "
                f"{len(self.onset_s)} and {len(self.offset_s)}."
            )
        self._check_times()

    def _check_times(self):
        unknown = np.isnan(self.onset_s)
        if (unknown != np.isnan(self.offset_s)).any():
            i = int(np.argmax(unknown != np.isnan(self.offset_s)))
            raise InputError(
                f"stimuli: {self._at(i)} must have both onset_s and offset_s, or neither: one is "
                "missing."
            )
        before: dict[str, int] = {}
        for i in np.flatnonzero(~unknown).tolist():
            if not -np.inf < self.onset_s[i] <= self.offset_s[i] < np.inf:
                raise InputError(
                    f"stimuli: {self._at(i)} must end after it begins, but ends at "
                    f"{self.offset_s[i]} s."
                )
            last = before.get(self.run[i], i)
            # Two clocks may round the same border differently.
            if last != i and self.onset_s[i] < self.offset_s[last] - 1e-6:
                raise InputError(
                    f"stimuli: words must not overlap, but {self._at(i)} begins before "
                    f"{self._at(last)} ends ({self.offset_s[last]} s)."
                )
            before[self.run[i]] = i

    def _at(self, i: int) -> str:
        return f"{self.text[i]!r} ({self.stimulus_id[i]}, {self.onset_s[i]} s)"

    def __len__(self) -> int:
        return len(self.stimulus_id)

    @property
    def is_timed(self) -> bool:
        """Whether the parts have onsets."""
        return len(self.onset_s) > 0

    @property
    def hash(self) -> str:
        """Hash of all content, 16 digits; of pixels as far as they are there."""
        columns = [self.unit, *map(list, (self.stimulus_id, self.text, self.passage, self.run))]
        columns += [list(map(int, self.space_before)), self.language]
        digest = hashlib.sha256(json.dumps(columns).encode())
        digest.update(self.onset_s.tobytes() + self.offset_s.tobytes())
        if self.pixels:
            digest.update(self.pixels.hash.encode())
        return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Responses:
    """Recorded responses, one row per sample (a TR or a stimulus), one column per target.

    Attributes:
      values: finite, in `units`.
      run: run of each sample; samples of a run are adjacent.
      subject, roi, target: of each column; (subject, roi, target) is unique. Targets of the same
        roi and name are comparable across subjects.
      units: what the values are measured in.
      stimulus_id: what was presented, of untimed responses; empty where `time_s` is given.
      time_s: start of each TR, on the clock of the stimuli's onsets; empty for untimed responses.
        TRs that were censored are left out, and leave a gap of whole TRs.
      tr_s: repetition time; 0 for untimed responses.
      signal: the noiseless response, of simulations; [0 0] otherwise.
      coordinates, space: where targets lie, in mm, and in which space; see
        `data/formats/coordinates.py`. [0 3] and "" where that is not known.
      grids: images that targets were read from, in which maps of them may be written; see
        `data/formats/grids.py`. () where that is not known.
    """

    values: Float[np.ndarray, "n v"]
    run: Sequence[str]
    subject: Sequence[str]
    roi: Sequence[str]
    target: Sequence[str]
    units: str
    stimulus_id: Sequence[str] = ()
    time_s: Float[np.ndarray, " t"] = dataclasses.field(default_factory=lambda: np.empty(0))
    tr_s: float = 0.0
    signal: Float[np.ndarray, "_ _"] = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    coordinates: Float[np.ndarray, "c x"] = dataclasses.field(
        default_factory=lambda: coordinates.NONE
    )
    space: str = ""
    grids: tuple[Grid, ...] = ()

    def __post_init__(self):
        n, v = self.values.shape
        for name, size in (("run", n), ("subject", v), ("roi", v), ("target", v)):
            if len(getattr(self, name)) != size:
                raise InputError(
                    f"responses: {name} must have {size} entries for values {n} x {v}, "
                    f"found {len(getattr(self, name))}."
                )
        labels.refuse_missing("responses: run", self.run, "sample")
        for name in ("subject", "roi", "target"):
            labels.refuse_missing(f"responses: {name}", getattr(self, name), "target")
        run_starts = [run for run, _ in itertools.groupby(self.run)]
        if repeated := first_repeated(run_starts):
            raise InputError(
                f"responses: samples of a run must be adjacent, but those of {repeated!r} are not."
            )
        if GROUP in self.subject:
            raise InputError(f"responses: no subject may be called {GROUP!r}, the mean over them.")
        columns = list(zip(self.subject, self.roi, self.target, strict=True))
        if repeated := first_repeated(columns):
            raise InputError(
                f"responses: subject {repeated[0]!r}, roi {repeated[1]!r}, target {repeated[2]!r} "
                "must be there once, found twice: subject ids must be unique."
            )
        bad = ~np.isfinite(self.values)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"responses must be finite, found {int(bad.sum())} that are not; the first is "
                f"{self.values[row, column]} at sample {row} of subject "
                f"{self.subject[column]!r}, roi {self.roi[column]!r}: mend or leave it out."
            )
        if self.is_timed == (len(self.stimulus_id) > 0):
            raise InputError("responses must have either time_s or stimulus_id, and not both.")
        name = "time_s" if self.is_timed else "stimulus_id"
        if (size := len(getattr(self, name))) != n:
            raise InputError(f"responses: {name} must have {n} entries, found {size}.")
        if self.is_timed:
            self._check_times()
        self._check_copies()
        if self.signal.size and self.signal.shape != (n, v):
            raise InputError(f"responses: signal must be {n} x {v}, found {self.signal.shape}.")
        coordinates.check(self.coordinates, self.space, v)

    def _check_times(self):
        if not 0 < self.tr_s <= _LONGEST_TR_S:
            hint = ", as if in milliseconds" if self.tr_s > _LONGEST_TR_S else ""
            raise InputError(
                f"responses: tr_s must be positive, in seconds and at most {_LONGEST_TR_S}, found "
                f"{self.tr_s}{hint}."
            )
        if not np.isfinite(self.time_s).all():
            raise InputError("responses: time_s must be finite, found NaN or infinity.")
        run = np.asarray(self.run)
        steps = np.diff(self.time_s)[run[1:] == run[:-1]] / self.tr_s
        single = steps[np.rint(steps) == 1]
        # A rounded tr_s adds up in a gap, where the steps of TRs that follow each other do not.
        pace = single.mean() if len(single) else 1.0
        whole = np.rint(steps / pace)
        off = np.where(whole == 1, np.abs(steps - 1), np.abs(steps / pace - whole))
        uneven = (whole < 1) | (off > 1e-3 * (1 + (whole > 1) * whole / max(len(single), 1)))
        if uneven.any():
            raise InputError(
                f"responses: time_s must advance by tr_s = {self.tr_s} s within a run, or by a "
                f"multiple of it where TRs were left out, found a step of "
                f"{steps[np.argmax(uneven)] * self.tr_s:.4f} s."
            )

    def _check_copies(self):
        """Refuse two subjects with the same data (a published data set had such a pair)."""
        seen = {}
        for subject in dict.fromkeys(self.subject):
            own = self.values[:, [s == subject for s in self.subject]]
            if np.ptp(own, axis=0).max() == 0:
                continue
            other = seen.setdefault(hashlib.sha256(own.tobytes()).digest(), subject)
            if other != subject:
                raise InputError(
                    f"responses of two subjects must differ: those of {other!r} and {subject!r} "
                    "are identical."
                )

    @property
    def is_timed(self) -> bool:
        """Whether samples are TRs."""
        return len(self.time_s) > 0

    @property
    def constant(self) -> np.ndarray:
        """Whether each target is constant."""
        return metrics.is_constant(self.values)

    @property
    def hash(self) -> str:
        """Hash of all content, 16 hexadecimal digits."""
        return _hash(self)

    def samples(self, keep: Sequence[bool]) -> "Responses":
        """Return the responses to some stimuli, which are no TRs."""
        index = np.flatnonzero(keep).tolist()
        return dataclasses.replace(
            self,
            values=self.values[index],
            run=[self.run[i] for i in index],
            stimulus_id=[self.stimulus_id[i] for i in index],
            signal=self.signal[index] if self.signal.size else self.signal,
        )

    def columns(self, keep: Sequence[bool]) -> "Responses":
        """Return the responses of some targets."""
        index = np.flatnonzero(keep)
        take = lambda labels: [labels[i] for i in index]
        return dataclasses.replace(
            self,
            values=self.values[:, index],
            subject=take(self.subject),
            roi=take(self.roi),
            target=take(self.target),
            signal=self.signal[:, index] if self.signal.size else self.signal,
            coordinates=self.coordinates[index] if self.coordinates.size else self.coordinates,
        )

    def to_bytes(self) -> bytes:
        """Return the `.npz` that `load` reads: one array per attribute, of the same name."""
        buffer = io.BytesIO()
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        np.savez(buffer, **grids.to_arrays(plain.pop("grids")), **plain)
        return buffer.getvalue()

    @staticmethod
    def is_file_timed(path: pathlib.Path) -> bool:
        """Say whether an `.npz` of responses has times; other arrays are not read.

        Raises:
          InputError: if it cannot be opened.
        """
        return npz.read(path, lambda file: "time_s" in file.files and file["time_s"].size > 0)

    @classmethod
    def load(cls, path: Place) -> "Responses":
        """Read an `.npz` with one array per attribute; those that have a default may lack.

        Raises:
          InputError: if it cannot be read, lacks or adds an array, or what it holds are no
            responses; see `Responses`.
        """
        known = {field.name for field in dataclasses.fields(cls)} - {"grids"}
        found = npz.read(path, lambda file: {name: file[name] for name in file.files})
        of_grids = {name: found.pop(name) for name in list(found) if grids.is_array(name)}
        required = {"values", "run", "subject", "roi", "target", "units"}
        if missing := required - found.keys():
            raise InputError(f"{path} must hold array {min(missing)!r}: it is missing.")
        if unknown := found.keys() - known:
            raise InputError(f"{path}: array {min(unknown)!r} is none of {sorted(known)}.")
        read = {}
        for name, array in found.items():
            dimensions, is_text = _NPZ.get(name, (1, True))
            if array.ndim != dimensions or (not is_text and array.dtype.kind not in "fiu"):
                raise InputError(
                    f"{path}: {name} must be {'text' if is_text else 'numbers'} in {dimensions} "
                    f"dimensions, found {array.dtype} of shape {array.shape}."
                )
            if is_text:
                if dimensions:  # as text a missing number would be a name
                    labels.refuse_missing(
                        f"{path}: {name}", array, may_be_nan=name == "stimulus_id"
                    )
                read[name] = [str(x) for x in array] if dimensions else str(array)
            else:
                read[name] = array.astype(np.float64) if dimensions else float(array)
        with naming(path):
            return cls(**read, grids=grids.from_arrays(of_grids))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behavior:
    """Reading times, one row per word, one column per participant.

    Attributes:
      stimulus_id: unique; those of the data set's stimuli, or some of them.
      reading_time_ms: positive; NaN where none was recorded or kept.
      participant: of each column, unique; the single column `MEAN` where only means are published.
      word_in_sentence: position of the word in its sentence, from 1.
      alignment: to which word a time is ascribed where there is more than one view of it, as the
        adapter names it ("published", "corrected", ...).
      num_participants: over how many participants each mean is; empty unless the column is `MEAN`
        and the numbers are published.
    """

    stimulus_id: Sequence[str]
    reading_time_ms: Float[np.ndarray, "m s"]
    participant: Sequence[str]
    word_in_sentence: Sequence[int]
    alignment: str
    num_participants: Int[np.ndarray, " k"] = dataclasses.field(
        default_factory=lambda: np.empty(0, np.int64)
    )

    def __post_init__(self):
        m, s = self.reading_time_ms.shape
        for name, size in (("stimulus_id", m), ("word_in_sentence", m), ("participant", s)):
            if len(getattr(self, name)) != size:
                raise InputError(
                    f"behavior: {name} must have {size} entries for reading_time_ms {m} x {s}, "
                    f"found {len(getattr(self, name))}."
                )
        if m == 0 or s == 0:
            raise InputError(f"behavior: reading_time_ms must not be empty, found {m} x {s}.")
        labels.refuse_missing("behavior: participant", self.participant, "column")
        for name in ("stimulus_id", "participant"):
            if repeated := first_repeated(getattr(self, name)):
                raise InputError(f"behavior: {name} must be unique, found {repeated!r} twice.")
        if MEAN in self.participant and s > 1:
            raise InputError(
                f"behavior: participant {MEAN!r} is the mean over participants and must be the "
                f"only column, found {s}."
            )
        if not self.alignment:
            raise InputError("behavior: alignment must be named, found an empty text.")
        if (first := min(self.word_in_sentence)) < 1:
            at = self.stimulus_id[list(self.word_in_sentence).index(first)]
            raise InputError(f"behavior: word_in_sentence must be >= 1, found {first} for {at!r}.")
        self._check_counts(m)
        self._check_times()

    def _check_counts(self, m: int):
        size = len(self.num_participants)
        if size and (self.participant[0] != MEAN or size != m):
            raise InputError(
                f"behavior: num_participants must have {m} entries beside the single column "
                f"{MEAN!r}, and none otherwise; found {size} beside {self.participant[0]!r}."
            )

    def _check_times(self):
        bad = ~(np.isnan(self.reading_time_ms) | (self.reading_time_ms > 0))
        bad |= np.isinf(self.reading_time_ms)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"behavior: reading_time_ms must be positive, or NaN where none was recorded; "
                f"found {self.reading_time_ms[row, column]} for {self.stimulus_id[row]!r} of "
                f"participant {self.participant[column]!r}."
            )
        seen = {}
        for column, name in enumerate(self.participant):
            own = self.reading_time_ms[:, column]
            if np.isnan(own).all():
                raise InputError(
                    f"behavior: participant {name!r} must have a reading_time_ms, found only NaN."
                )
            if np.nanmin(own) == np.nanmax(own):
                continue
            other = seen.setdefault(hashlib.sha256(own.tobytes()).digest(), name)
            if other != name:
                raise InputError(
                    f"behavior: reading_time_ms of two participants must differ: those of "
                    f"{other!r} and {name!r} are identical."
                )

    def __len__(self) -> int:
        return len(self.stimulus_id)

    @property
    def hash(self) -> str:
        """Hash of all content, 16 hexadecimal digits."""
        return _hash(self)


def _hash(found: Responses | Behavior) -> str:
    """Hash every field: arrays by their type, shape and bytes, and what else there is as JSON."""
    digest = hashlib.sha256()
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if field.name == "grids":  # b"" of none
            digest.update(grids.digest(value))
        elif isinstance(value, np.ndarray):
            digest.update(f"{field.name} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).data)
        else:
            plain = value if isinstance(value, str | float) else list(value)
            digest.update(json.dumps([field.name, plain]).encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def naming(path: Place) -> Iterator[None]:
    """Put the file in front of what is refused while something is built from it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
