"""Small files of exactly the formats in which recordings are published, written by code."""

import csv
import json

import h5py
import numpy as np
import scipy.io

from jaxalign.data.sets import wehbe2014
from jaxalign.data.sets.nsd_rois import LABELS

NSD_SPLITS = ("train2017", "val2017")  # of COCO, by turns


def write_table(path, header, rows, *, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerows([header, *rows])


def write_npy(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def write_hdf5(path, arrays, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **options)


def rewrite_hdf5(path, **arrays):
    """Replace arrays of a file; None takes one away."""
    with h5py.File(path, "r+") as file:
        for name, values in arrays.items():
            if name in file:
                del file[name]
            if values is not None:
                file[name] = values


def truncate(path, share=0.6):
    """Cut a file, as an interrupted download does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def text_grid(tiers, *, kind="long"):
    """Return a TextGrid of interval tiers, {name: [(start, end, label), ...]}, as Praat writes it.

    Args:
      tiers: by name.
      kind: "long", "short" or "chronological".
    """
    end = max(entries[-1][1] for entries in tiers.values())
    quoted = lambda label: '"' + label.replace('"', '""') + '"'
    if kind == "chronological":
        lines = ['"Praat chronological TextGrid text file"', f"0 {end}   ! Time domain."]
        lines += [f"{len(tiers)}   ! Number of tiers."]
        lines += [f'"IntervalTier" {quoted(name)} 0 {end}' for name in tiers]
        entries = [
            (a, b, i, name, label)
            for i, (name, own) in enumerate(tiers.items(), start=1)
            for a, b, label in own
        ]
        for a, b, i, name, label in sorted(entries):
            lines += ["", f"! {name}:", f"{i} {a} {b}", quoted(label)]
        return "\n".join(lines) + "\n"
    head = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    if kind == "short":
        lines = [*head, "0", f"{end}", "<exists>", f"{len(tiers)}"]
        for name, entries in tiers.items():
            lines += ['"IntervalTier"', quoted(name), "0", f"{end}", f"{len(entries)}"]
            for a, b, label in entries:
                lines += [f"{a}", f"{b}", quoted(label)]
        return "\n".join(lines) + "\n"
    lines = [*head, "xmin = 0", f"xmax = {end}", "tiers? <exists>", f"size = {len(tiers)}"]
    lines += ["item []:"]
    for i, (name, entries) in enumerate(tiers.items(), start=1):
        lines += [f"    item [{i}]:", '        class = "IntervalTier"']
        lines += [f"        name = {quoted(name)}", "        xmin = 0", f"        xmax = {end}"]
        lines += [f"        intervals: size = {len(entries)}"]
        for k, (a, b, label) in enumerate(entries, start=1):
            lines += [f"        intervals [{k}]:", f"            xmin = {a}"]
            lines += [f"            xmax = {b}", f"            text = {quoted(label)}"]
    return "\n".join(lines) + "\n"


def harry_potter(root, rng, *, subjects=("F", "H"), num_voxels=3):
    """Write the arrays of Toneva and Wehbe (2019): all TRs and words, few voxels.

    Runs have 326 to 350 TRs. Words begin every half second from 20 s into each run.
    """
    folder = root / wehbe2014.FOLDER
    lengths = (326, 338, 337, 350)
    runs = np.repeat([1, 2, 3, 4], lengths)
    time_s = 2.0 * np.arange(1351)
    starts = [time_s[runs == k][0] for k in (1, 2, 3, 4)]
    per_run = (1272, 1300, 1302, 1302)
    onsets = np.concatenate(
        [start + 10 + 0.5 * np.arange(n) for start, n in zip(starts, per_run, strict=True)]
    )
    words = np.array([f"word{i}" for i in range(len(onsets))])
    write_npy(folder / wehbe2014.WORDS, words)
    write_npy(folder / wehbe2014.WORD_TIMES, onsets)
    write_npy(folder / wehbe2014.TR_TIMES, time_s)
    write_npy(folder / wehbe2014.RUNS, runs.astype(np.float64))
    for subject in subjects:
        values = rng.normal(size=(1211, num_voxels))
        write_npy(folder / f"fMRI/data_subject_{subject}.npy", values)
    return folder


SPOKEN = ((0.0, 0.5, "so"), (0.5, 0.9, "sp"), (0.9, 1.5, "there"), (1.5, 2.0, "{LG}"))


def huth_stories(root, rng, stories, *, num_voxels=4, kind="long"):
    """Write `derivative/` of ds003020: {subject: {story: TRs of its scan}}.

    The story is `so`, a pause, `there`, laughter, `we` and a breath.
    """
    folder = root / "ds003020/derivative"
    (folder / "TextGrids").mkdir(parents=True)
    lengths = {}
    for subject, own in stories.items():
        for story, num_trs in own.items():
            lengths[story] = num_trs
            values = rng.normal(size=(num_trs - 20, num_voxels)).astype(np.float32)
            arrays = {"data": values}
            if story == "wheretheressmoke":
                single = rng.normal(size=(5, *values.shape)).astype(np.float32)
                arrays = {"data": single.mean(axis=0), "individual_repeats": single}
            write_hdf5(folder / f"preprocessed_data/{subject}/{story}.hf5", arrays)
    for story, num_trs in lengths.items():
        end = 2.0 * num_trs
        words = [*SPOKEN, (2.0, 2.75, "we"), (2.75, end, "br")]
        tiers = {"phone": [(0.0, 1.0, "S"), (1.0, end, "OW1")], "word": words}
        grid = text_grid(tiers, kind=kind)
        (folder / f"TextGrids/{story}.TextGrid").write_text(grid)
    (folder / "respdict.json").write_text(json.dumps(lengths))
    return folder


def shortclips(root, rng, *, subjects=("S01", "S02"), runs=(6, 5, 7), num_test=4, num_voxels=3):
    """Write responses and features in the Gallant lab's layout; test repeats are three."""
    folder = root / "shortclips"
    onsets = np.cumsum([0, *runs])[:-1]
    for subject in subjects:
        arrays = {
            "Y_train": rng.normal(size=(sum(runs), num_voxels)).astype(np.float32),
            "Y_test": rng.normal(size=(3, num_test, num_voxels)).astype(np.float32),
            "run_onsets": onsets,
        }
        write_hdf5(folder / f"responses/{subject}_responses.hdf", arrays)
    for name, width in (("wordnet", 5), ("motion_energy", 2)):
        arrays = {
            "X_train": rng.normal(size=(sum(runs), width)),
            "X_test": rng.normal(size=(num_test, width)),
            "run_onsets": onsets,
        }
        write_hdf5(folder / f"features/{name}.hdf", arrays)
    return folder


def denizens(root, rng, *, subjects=("01", "02"), num_voxels=3):
    """Write responses to two training stories (one as an array of one array) and the test story."""
    folder = root / "narratives_reading_listening_fmri"
    for subject in subjects:
        path = folder / f"responses/subject{subject}_listening_fmri_data_trn.hdf"
        stories = {
            "story_01": rng.normal(size=(30, num_voxels)),
            "story_02": rng.normal(size=(1, 26, num_voxels)),
        }
        write_hdf5(path, stories)
        path = folder / f"responses/subject{subject}_listening_fmri_data_val.hdf"
        write_hdf5(path, {"story_11": rng.normal(size=(2, 28, num_voxels))})
    return folder


def nsd(
    root,
    rng,
    *,
    subjects=("subj01",),
    num_sessions=2,
    kind="hdf5",
    shape=(5, 4, 3),
    ncsnr=None,
    num_properties=2,
):
    """Write the first sessions of NSD on a small grid; return what was written, for comparison.

    Of the shared images nsdId 0, 10, ... 9990 the first 60 are shown, in the same order to
    everybody: 50 three times and 10 twice. All others are a subject's own, once. With `ncsnr`, a
    volume, betas are a signal of the image and noise in that ratio, which is published with them.
    """
    import nibabel as nib

    folder = root / "nsd"
    num_trials = 750 * num_sessions
    mask = np.where(rng.random(shape) < 0.5, 1, rng.integers(-1, 1, shape)).astype(np.int16)
    mask[0, 0, :2] = 1
    atlas = np.where(rng.random(shape) < 0.7, rng.integers(1, 4, shape), -1).astype(np.float64)
    atlas[0, 0, :3] = [2, 0, 3]
    shared = np.arange(0, 10000, 10)
    table = np.zeros((10000 + num_trials * len(subjects), 24), np.int64)
    written = {"mask": mask, "atlas": atlas, "images": {}, "betas": {}}
    for number, subject in enumerate(subjects):
        again = np.r_[np.repeat(shared[:50], 3), np.repeat(shared[50:60], 2)]
        own = 10000 + num_trials * number + np.arange(num_trials - len(again))
        shown = rng.permutation(np.r_[again, own])
        k = int(subject[4:])
        for image in np.unique(shown):
            trials = 1 + np.flatnonzero(shown == image)
            table[image, 3 * (k - 1) : 3 * (k - 1) + len(trials)] = trials
        trial = np.arange(num_trials)
        rows = np.c_[
            np.full(num_trials, k),
            1 + trial // 750,
            1 + trial % 750 // 63,
            1 + trial % 750 % 63,
            shown + 1,
            np.zeros(num_trials, int),
        ]
        header = ["SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID"]
        path = folder / f"nsddata/ppdata/{subject}/behav/responses.tsv"
        write_table(path, header, rows.tolist(), separator="\t")
        rois = folder / f"nsddata/ppdata/{subject}/func1pt8mm/roi"
        rois.mkdir(parents=True)
        nib.save(nib.Nifti1Image(mask, np.eye(4)), rois / "nsdgeneral.nii.gz")
        labels = {"prf-visualrois": atlas}
        draw = np.random.default_rng(number).integers
        for volume in ("floc-faces", "streams"):
            labels[volume] = draw(-1, 4, shape).astype(np.float64)
            labels[volume][0, 0, :3] = [1, 2, 3]
        for volume, values in labels.items():
            nib.save(nib.Nifti1Image(values, np.eye(4)), rois / f"{volume}.nii.gz")
            names = folder / f"nsddata/freesurfer/{subject}/label/{volume}.mgz.ctab"
            names.parent.mkdir(parents=True, exist_ok=True)
            lines = ["0 Unknown", *(f"{i} {x}" for i, x in enumerate(LABELS[volume], start=1))]
            names.write_text("\n".join(lines) + "\n")
        betas = rng.integers(-3000, 3000, (*shape, num_trials)).astype(np.int16)
        if ncsnr is not None:
            # Voxels of all subjects answer to the same properties of images.
            seen = np.random.default_rng(99).normal(size=(num_properties, len(table)))[:, shown]
            weights = rng.normal(size=(*shape, num_properties))
            weights *= ncsnr[..., None] / np.linalg.norm(weights, axis=-1, keepdims=True)
            signal = weights @ seen
            betas = np.rint(500 * (signal + rng.normal(size=betas.shape))).astype(np.int16)
        stem = folder / f"nsddata_betas/ppdata/{subject}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
        stem.mkdir(parents=True)
        if ncsnr is not None:
            nib.save(nib.Nifti1Image(ncsnr.astype(np.float32), np.eye(4)), stem / "ncsnr.nii.gz")
        for session in range(num_sessions):
            part = betas[..., 750 * session : 750 * (session + 1)]
            path = stem / f"betas_session{session + 1:02d}.{kind}"
            if kind == "hdf5":
                write_hdf5(path, {"betas": part.transpose()}, chunks=(750, 1, 1, 1))
            else:
                nib.save(nib.Nifti1Image(part, np.eye(4)), path)
        written.setdefault("labels", {})[subject] = labels
        written["images"][subject], written["betas"][subject] = shown, betas
    columns = [f"subject{i}_rep{k}" for i in range(1, 9) for k in range(3)]
    is_shared = np.isin(np.arange(len(table)), shared).tolist()
    rows = [
        [i, 100 + i, NSD_SPLITS[i % 2], i, is_shared[i], *cells]
        for i, cells in enumerate(table.tolist())
    ]
    header = ["", "cocoId", "cocoSplit", "nsdId", "shared1000", *columns]
    write_table(folder / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", header, rows)
    return written


def nsd_design(root, written):
    """Write NSD's plan of the experiment as MATLAB does, of the one subject that was written."""
    ((subject, shown),) = written["images"].items()
    shared = np.arange(0, 10000, 10)
    own = np.setdiff1d(shown, shared)
    images = np.tile(np.r_[shared, 70000 + np.arange(9000)], (8, 1))
    images[int(subject[4:]) - 1, 1000 : 1000 + len(own)] = own
    place = {image: i for i, image in enumerate(images[int(subject[4:]) - 1].tolist())}
    order = np.full(30000, 10000)
    order[: len(shown)] = [1 + place[image] for image in shown.tolist()]
    path = root / "nsd/nsddata/experiments/nsd/nsd_expdesign.mat"
    content = {"masterordering": order[None], "subjectim": images + 1, "sharedix": shared[None] + 1}
    scipy.io.savemat(path, {name: x.astype(np.float64) for name, x in content.items()})
    return path


def coco_captions(root, images, texts):
    """Write COCO's captions of images of NSD: of each `texts(nsdId)`, ids in their order."""
    for odd, split in enumerate(NSD_SPLITS):
        rows = [
            {"image_id": 100 + i, "id": 10 * i + k, "caption": text}
            for i in images
            if i % 2 == odd
            for k, text in enumerate(texts(i))
        ]
        path = root / f"nsd/annotations/captions_{split}.json"
        path.parent.mkdir(exist_ok=True)
        # COCO's file is in no order.
        path.write_text(json.dumps({"images": [], "annotations": rows[::-1]}))


def touch_all(root):
    """Make every file, empty, that the rows of large recordings need."""
    harry = [wehbe2014.WORDS, wehbe2014.WORD_TIMES, wehbe2014.TR_TIMES, wehbe2014.RUNS]
    harry += [f"fMRI/data_subject_{s}.npy" for s in "FHIJKLMN"]
    huth = ["respdict.json", "TextGrids/souls.TextGrid"]
    huth += [f"preprocessed_data/UTS0{i}/souls.hf5" for i in range(1, 9)]
    stories = [
        f"responses/subject0{i}_{how}_fmri_data_{part}.hdf"
        for i in range(1, 10)
        for how in ("reading", "listening")
        for part in ("trn", "val")
    ]
    scenes = ["nsddata/experiments/nsd/nsd_stim_info_merged.csv"]
    for i, num_sessions in enumerate((40, 40, 32, 30, 40, 32, 40, 30), start=1):
        own = f"ppdata/subj0{i}"
        betas = f"nsddata_betas/{own}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
        scenes += [f"nsddata/{own}/behav/responses.tsv"]
        scenes += [f"nsddata/{own}/func1pt8mm/roi/nsdgeneral.nii.gz"]
        scenes += [f"{betas}/betas_session{k:02d}.hdf5" for k in range(1, num_sessions + 1)]
    for folder, names in (
        ("wehbe2014", harry),
        ("ds003020/derivative", huth),
        ("narratives_reading_listening_fmri", stories),
        ("shortclips", [f"responses/S0{i}_responses.hdf" for i in range(1, 6)]),
        ("nsd", scenes),
    ):
        for name in names:
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
