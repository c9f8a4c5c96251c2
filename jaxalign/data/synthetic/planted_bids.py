"""A small BIDS data set in fMRIPrep's layout, whose responses are known to follow from features.

    python -m jaxalign.data.synthetic.planted_bids FOLDER

writes recorded data (events alone), `derivatives/fmriprep` and `network.npz`, features of the
words. Layer 1 of these, averaged over the words of each TR and two TRs late, makes the responses of
every voxel without noise; layer 0 has no part in them. On top of that come what real scans have:
an offset for each run, drifts, confounds, volumes before the steady state, and volumes in which the
head moved, whose values are spoiled. If onsets, StartTime, confounds, drifts and scrubbed volumes
are all heeded, the score of layer 1 is 1.000; of what is forgotten, it falls.

How the exact answer comes about: the weights of a voxel are chosen so that its signal is orthogonal
to the cosines of the filter, and has the same mean and variance in both runs; and what is random in
the confounds is made orthogonal to the signals, over the volumes that are kept.
"""

import argparse
import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import linalg

from jaxalign.data.formats import recordings

SUBJECTS, RUNS, TASK = ("01", "02"), ("1", "2"), "story"
SPACE = "MNI152NLin2009cAsym"
TR_S, START_S, DELAY_TRS = 2.0, 1.0, 2
NUM_VOLUMES, NUM_UNITS = 160, 40
SHAPE = (4, 4, 3)
_AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1]])
_WORDS = (
    "river stone winter garden letter window silver morning captain forest music harbor candle "
    "orange teacher village summer bridge mirror kitchen ocean paper engine shadow market thunder "
    "father pocket island blanket soldier apple circle mountain doctor basket copper velvet"
).split()
_MOTION = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
_TISSUE = ["csf", "white_matter", "global_signal"]
_EXPANDED = ("", "_derivative1", "_power2", "_derivative1_power2")
_CUT_S = 128.0  # of fMRIPrep's cosines


class Words(NamedTuple):
    """Rows of the events of a run: `None` is written as n/a."""

    text: list[str | None]
    onset_s: list[float | None]
    duration_s: list[float | None]

    @property
    def spoken(self) -> list[int]:
        """Rows that are words."""
        return [i for i, text in enumerate(self.text) if text is not None]


def write(
    root: pathlib.Path, *, spaces: Sequence[str] = (SPACE,), seed: int = 0
) -> dict[str, Float[np.ndarray, "n v"]]:
    """Write the data set.

    Args:
      root: folder, which may be there.
      spaces: of the scans: `SPACE`, "fsaverage6" (surfaces) and "fsLR" (grayordinates).
      seed: of all draws.

    Returns:
      The signals of each subject, all volumes of the runs below each other, in units of the
      signal; one column per voxel of the mask that all runs share.
    """
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    derived = root / "derivatives" / "fmriprep"
    _json(root / "dataset_description.json", {"Name": "planted", "BIDSVersion": "1.10.0"})
    (root / ".bidsignore").write_text("network.npz\n")
    about: dict[str, Any] = {
        "Name": "fMRIPrep",
        "BIDSVersion": "1.4.0",
        "DatasetType": "derivative",
    }
    about["GeneratedBy"] = [{"Name": "planted", "Version": "1"}]
    derived.mkdir(parents=True, exist_ok=True)
    _json(derived / "dataset_description.json", about)
    words = {run: _words(rng) for run in RUNS}
    units = {run: rng.standard_normal((2, len(words[run].spoken), NUM_UNITS)) for run in RUNS}
    _network(root / "network.npz", units)
    X = {run: _delayed(words[run], units[run][1]) for run in RUNS}
    masks = {(subject, run): _mask(rng) for subject in SUBJECTS for run in RUNS}
    mask = np.logical_and.reduce(list(masks.values()))
    signals = {}
    for subject in SUBJECTS:
        moved = {run: _moved(rng) for run in RUNS}
        kept = {run: np.setdiff1d(np.arange(1, NUM_VOLUMES), moved[run]) for run in RUNS}
        W = _weights(rng, X, kept, int(mask.sum()))
        signal = {run: X[run] @ W for run in RUNS}
        signals[subject] = np.concatenate([signal[run] for run in RUNS])
        for run in RUNS:
            folder = derived / f"sub-{subject}" / "func"
            folder.mkdir(parents=True, exist_ok=True)
            stem = f"sub-{subject}_task-{TASK}_run-{run}"
            _events(root, stem, words[run])
            table = _confounds(rng, signal[run], kept[run], moved[run])
            _table(folder / f"{stem}_desc-confounds_timeseries.tsv", table)
            _json(folder / f"{stem}_desc-confounds_timeseries.json", {})
            bold = _bold(rng, signal[run], table, kept[run])
            for space in spaces:
                _scan(folder, f"{stem}", space, bold, (mask, masks[subject, run]))
    return signals


def _words(rng: np.random.Generator) -> Words:
    """Draw words of some 0.7 s, and rows of events that are something else."""
    text: list[str | None] = []
    onset_s: list[float | None] = []
    duration_s: list[float | None] = []
    time_s = 0.4
    while time_s < TR_S * NUM_VOLUMES:
        length_s = round(float(rng.uniform(0.3, 0.9)), 2)
        kind = rng.integers(40)
        text.append(None if kind == 0 else str(rng.choice(_WORDS)))
        onset_s.append(None if kind == 1 else round(time_s, 2))
        duration_s.append(None if kind < 3 else length_s)
        time_s += length_s + round(float(rng.uniform(0, 0.2)), 2)
    return Words(text, onset_s, duration_s)


def _delayed(words: Words, units: Float[np.ndarray, "m u"]) -> Float[np.ndarray, "n u"]:
    """Average units over the words of each TR, `DELAY_TRS` before the volume; a slow loop."""
    found = np.zeros((NUM_VOLUMES, units.shape[1]))
    for volume in range(NUM_VOLUMES):
        begin = START_S + TR_S * (volume - DELAY_TRS)
        rows = [
            place
            for place, row in enumerate(words.spoken)
            if (onset := words.onset_s[row]) is not None and begin <= onset < begin + TR_S
        ]
        if rows:
            found[volume] = units[rows].mean(axis=0)
    return found


def _moved(rng: np.random.Generator) -> Int[np.ndarray, " o"]:
    """Draw volumes with motion, far enough apart that nothing between them is scrubbed too."""
    return np.sort(rng.choice(np.arange(10, NUM_VOLUMES - 10, 9), size=5, replace=False))


def _cosines() -> Float[np.ndarray, "n q"]:
    order = int(2 * NUM_VOLUMES * TR_S / _CUT_S)
    phase = np.pi * (np.arange(NUM_VOLUMES) + 0.5) / NUM_VOLUMES
    return np.cos(phase[:, None] * np.arange(1, order + 1))


def _weights(
    rng: np.random.Generator,
    X: dict[str, Float[np.ndarray, "n u"]],
    kept: dict[str, Int[np.ndarray, " k"]],
    num_targets: int,
) -> Float[np.ndarray, "u v"]:
    """Draw weights whose signals no filter changes, of the same mean and variance in both runs."""
    own = [X[run][kept[run]] for run in RUNS]
    slow = [_cosines()[kept[run]] for run in RUNS]
    barred = [x.T @ (c - c.mean(axis=0)) for x, c in zip(own, slow, strict=True)]
    free = linalg.null_space(np.concatenate([*(x.T for x in barred), [_step(own)]]))
    difference = free.T @ (np.cov(own[0].T, ddof=0) - np.cov(own[1].T, ddof=0)) @ free
    columns = []
    while len(columns) < num_targets:
        a, b = rng.standard_normal((2, free.shape[1]))
        c0, c1, c2 = a @ difference @ a, 2 * a @ difference @ b, b @ difference @ b
        if c0 * c2 < 0:  # then a + t b has the same variance in both runs for two real t
            w = free @ (a + b * (-c1 + np.sqrt(c1**2 - 4 * c0 * c2)) / (2 * c2))
            columns.append(w / np.std(own[0] @ w))
    return np.stack(columns, axis=1)


def _step(own: list[Float[np.ndarray, "k u"]]) -> Float[np.ndarray, " u"]:
    return own[0].mean(axis=0) - own[1].mean(axis=0)


def _confounds(
    rng: np.random.Generator,
    signal: Float[np.ndarray, "n v"],
    kept: Int[np.ndarray, " k"],
    moved: Int[np.ndarray, " o"],
) -> dict[str, Float[np.ndarray, " n"]]:
    """Draw fMRIPrep's columns; NaN, in the first row of derivatives, is written as n/a."""
    found = {}
    basis = linalg.orth(np.c_[np.ones(len(kept)), signal[kept]])
    for name in [f"{x}{kind}" for x in (*_TISSUE, *_MOTION) for kind in _EXPANDED]:
        values = np.cumsum(rng.standard_normal(NUM_VOLUMES)) / 10
        values[kept] -= basis @ (basis.T @ values[kept])
        if "derivative1" in name:
            values[0] = np.nan
        found[name] = values
    moves = np.isin(np.arange(NUM_VOLUMES), moved)
    first = lambda values: np.r_[np.nan, values[1:]]
    found["framewise_displacement"] = first(np.where(moves, 2.5, 0.1))
    found["std_dvars"] = first(np.where(moves, 3.0, 1.0))
    found["dvars"] = first(np.where(moves, 90.0, 30.0))
    for number, cosine in enumerate(_cosines().T):
        found[f"cosine{number:02d}"] = cosine
    found["non_steady_state_outlier00"] = (np.arange(NUM_VOLUMES) == 0).astype(float)
    for number, volume in enumerate(moved):
        found[f"motion_outlier{number:02d}"] = (np.arange(NUM_VOLUMES) == volume).astype(float)
    return found


def _bold(
    rng: np.random.Generator,
    signal: Float[np.ndarray, "n v"],
    table: dict[str, Float[np.ndarray, " n"]],
    kept: Int[np.ndarray, " k"],
) -> Float[np.ndarray, "n v"]:
    """Add to a signal all that is to be removed: level, drifts, confounds, spoiled volumes."""
    names = [f"{x}{kind}" for x in (*_MOTION, "csf", "white_matter") for kind in _EXPANDED]
    nuisance = np.stack([np.nan_to_num(table[x]) for x in names], axis=1)
    bold = rng.uniform(300, 900, size=signal.shape[1]) + 10 * signal
    bold += 5 * nuisance @ rng.standard_normal((len(names), signal.shape[1]))
    bold += 20 * _cosines() @ rng.standard_normal((_cosines().shape[1], signal.shape[1]))
    spoiled = np.setdiff1d(np.arange(NUM_VOLUMES), kept)
    bold[spoiled] += 500 * rng.standard_normal((len(spoiled), signal.shape[1]))
    return bold


def _mask(rng: np.random.Generator) -> Bool[np.ndarray, "x y z"]:
    """Mark most voxels, as brain masks of runs do that differ at their rim."""
    mask = np.ones(SHAPE, bool)
    mask[0] = rng.random(SHAPE[1:]) < 0.7
    return mask


def _scan(
    folder: pathlib.Path,
    stem: str,
    space: str,
    bold: Float[np.ndarray, "n v"],
    masks: tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]],
) -> None:
    """Write a scan of one space, its JSON file, and of volumes the brain mask of its run."""
    nib = recordings.library("nibabel", "brain images")
    about = {"RepetitionTime": TR_S, "StartTime": START_S, "SliceTimingCorrected": True}
    about |= {"TaskName": TASK, "SkullStripped": False}
    if space == SPACE:
        mask, of_run = masks
        values = np.random.default_rng(0).uniform(0, 50, (*SHAPE, NUM_VOLUMES)).astype(np.float32)
        values[mask] = bold.T
        image = nib.Nifti1Image(values, _AFFINE)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((2.0, 2.0, 2.0, TR_S))
        image.header["sform_code"] = image.header["qform_code"] = 4
        name = f"{stem}_space-{space}_desc"
        nib.save(image, folder / f"{name}-preproc_bold.nii.gz")
        _json(folder / f"{name}-preproc_bold.json", about)
        nib.save(
            nib.Nifti1Image(of_run.astype(np.uint8), _AFFINE), folder / f"{name}-brain_mask.nii.gz"
        )
        return
    half = bold.shape[1] // 2
    sides = {"L": bold[:, :half], "R": bold[:, half:]}
    if space == "fsLR":
        _grayordinates(nib, folder / f"{stem}_space-fsLR_den-91k_bold.dtseries.nii", sides)
        _json(folder / f"{stem}_space-fsLR_den-91k_bold.json", about)
        return
    for side, values in sides.items():
        arrays = [
            nib.gifti.GiftiDataArray(x.astype(np.float32), intent="NIFTI_INTENT_TIME_SERIES")
            for x in values
        ]
        name = f"{stem}_hemi-{side}_space-{space}_bold"
        nib.save(nib.gifti.GiftiImage(darrays=arrays), folder / f"{name}.func.gii")
        _json(folder / f"{name}.json", about)


def _grayordinates(nib: Any, path: pathlib.Path, sides: dict[str, np.ndarray]) -> None:
    models = [
        nib.cifti2.BrainModelAxis.from_surface(
            np.arange(values.shape[1]),
            values.shape[1] + 2,
            name="CortexLeft" if side == "L" else "CortexRight",
        )
        for side, values in sides.items()
    ]
    time = nib.cifti2.SeriesAxis(START_S, TR_S, NUM_VOLUMES)
    values = np.concatenate(list(sides.values()), axis=1).astype(np.float32)
    image = nib.Cifti2Image(values, header=(time, models[0] + models[1]))
    image.update_headers()
    nib.save(image, path)


def _events(root: pathlib.Path, stem: str, words: Words) -> None:
    folder = root / stem.split("_")[0] / "func"
    folder.mkdir(parents=True, exist_ok=True)
    columns = (words.onset_s, words.duration_s, words.text)
    rows = [["n/a" if x is None else x for x in row] for row in zip(*columns, strict=True)]
    _rows(folder / f"{stem}_events.tsv", [["onset", "duration", "word"], *rows])


def _network(path: pathlib.Path, units: dict[str, Float[np.ndarray, "l m u"]]) -> None:
    ids = [f"task-{TASK}_run-{run}.{i:04d}" for run in RUNS for i in range(units[run].shape[1])]
    every = np.concatenate([units[run] for run in RUNS], axis=1)
    np.savez(path, stimulus_id=ids, layer_0=every[0], layer_1=every[1])


def _table(path: pathlib.Path, columns: dict[str, Float[np.ndarray, " n"]]) -> None:
    cells = [
        ["n/a" if np.isnan(x) else repr(float(x)) for x in row]
        for row in zip(*columns.values(), strict=True)
    ]
    _rows(path, [list(columns), *cells])


def _rows(path: pathlib.Path, rows: list[list]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)


def _json(path: pathlib.Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Write the data set into the folder of the command line."""
    parser = argparse.ArgumentParser(description="Write a planted BIDS data set.")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--spaces", default=SPACE, help="with commas between")
    parser.add_argument("--seed", type=int, default=0)
    found = parser.parse_args()
    write(found.folder, spaces=tuple(found.spaces.split(",")), seed=found.seed)


if __name__ == "__main__":
    main()
