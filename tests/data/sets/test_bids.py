"""A planted BIDS data set is read back whole in each space, and refused where something is missing.

The data set is written once, and copied for tests that spoil it.
"""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from refusals import refused

from jaxalign import config, recipes, runner
from jaxalign.core import features
from jaxalign.data import datasets, samples
from jaxalign.data.sets import bids_layout
from jaxalign.data.synthetic import planted_bids as planted

SPACES = (planted.SPACE, "fsaverage6", "fsLR")
SCRUBBED = ("strategy=scrubbing", f"space={planted.SPACE}")
DERIVED = "derivatives/fmriprep"
FUNC = f"{DERIVED}/sub-01/func"
STEM = "sub-01_task-story_run-1"
BOLD = f"{FUNC}/{STEM}_space-{planted.SPACE}_desc-preproc_bold"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("bids") / "ds"
    return root, planted.write(root, spaces=SPACES)


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written[0], tmp_path / "ds")


def find(root, *options):
    return datasets.find(str(root), None, options=options)


def read(root, *options):
    return find(root, *options).responses


def words(root, *options):
    return find(root, *options).stimuli


def held_out_r(dataset, delay=planted.DELAY_TRS, layer="layer_1"):
    """Fit the second run by the first with least squares, and return r of each target."""
    responses = dataset.responses
    network = np.load(dataset.adapter.root / "network.npz")
    assert network["stimulus_id"].tolist() == dataset.stimuli.stimulus_id
    placement = samples.Placement(dataset.stimuli, responses, "mean", delay)
    found = samples.from_stimuli(network[layer].astype(float), placement)
    X = features.delay(found.values, found.run, (delay,))[found.recorded]
    X = np.c_[X, np.ones(len(X))]
    is_first = np.array([run.endswith("run-1") for run in responses.run])
    W = np.linalg.lstsq(X[is_first], responses.values[is_first], rcond=None)[0]
    pairs = zip((X[~is_first] @ W).T, responses.values[~is_first].T, strict=True)
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in pairs])


@pytest.mark.parametrize("space", SPACES)
def test_what_was_planted_is_read_back(written, space):
    root, signals = written
    dataset = find(root, "strategy=scrubbing", f"space={space}")
    found = dataset.responses
    run = np.array([name[-1] for name in found.run]).astype(int)
    volume = (found.time_s - planted.START_S) / planted.TR_S
    np.testing.assert_allclose(volume, np.rint(volume))
    row = (run - 1) * planted.NUM_VOLUMES + np.rint(volume).astype(int)
    for subject in planted.SUBJECTS:
        own = found.values[:, [x == subject for x in found.subject]]
        for name in ("1", "2"):
            kept = run == int(name)
            pairs = zip(own[kept].T, signals[subject][row[kept]].T, strict=True)
            assert min(np.corrcoef(y, x)[0, 1] for y, x in pairs) > 1 - 1e-6
    assert min(held_out_r(dataset)) > 0.9999
    # Maps can be written in the space that was read.
    grids = [(x.subject, x.space, x.hemisphere) for x in found.grids]
    sides = ("L", "R") if space == "fsaverage6" else ("",)
    assert grids == [(s, space, side) for s in planted.SUBJECTS for side in sides]
    places = {label for grid in found.grids for label in grid.labels}
    assert places == set(zip(found.roi, found.target, strict=True))


def test_what_is_forgotten_costs(written):
    """Without scrubbing, without confounds, half a TR late, or at another delay."""
    root, _ = written
    dataset = find(root, *SCRUBBED)
    assert max(held_out_r(dataset, delay=planted.DELAY_TRS + 1)) < 0.5
    assert max(held_out_r(dataset, layer="layer_0")) < 0.5
    for strategy in ("simple", "none", "high_pass,scrub"):
        other = find(root, f"strategy={strategy}", f"space={planted.SPACE}")
        assert np.median(held_out_r(other)) < 0.95, strategy


def test_scrubbed_volumes_are_no_samples_and_leave_gaps(written, caplog):
    root, _ = written
    found = read(root, *SCRUBBED)
    assert "18 of 320 volumes are no samples, neither in training nor in test" in caplog.text
    assert "sub-01 12, sub-02 12" in caplog.text  # five moved and one unsteady volume of each run
    steps = np.diff(found.time_s) / planted.TR_S
    assert set(np.rint(steps[steps > 0])) == {1, 2}
    assert found.time_s[0] == planted.START_S + planted.TR_S  # the first is not in a steady state
    assert len(found.run) == 302


def test_words_of_events_follow_the_rules(written, caplog):
    root, _ = written
    found = find(root, *SCRUBBED).stimuli
    rows = (root / "sub-01/func" / f"{STEM}_events.tsv").read_text().splitlines()[1:]
    cells = [row.split("\t") for row in rows]
    words = [row for row in cells if row[2] != "n/a"]
    run = [i for i, name in enumerate(found.run) if name == "task-story_run-1"]
    assert [found.text[i] for i in run] == [row[2] for row in words]
    onsets = np.array([np.nan if row[0] == "n/a" else float(row[0]) for row in words])
    np.testing.assert_array_equal(found.onset_s[run], onsets)
    untimed = np.isnan(onsets)
    assert untimed.sum() > 3
    assert np.isnan(found.offset_s[run][untimed]).all()
    # Without a duration a word lasts until the next one that has an onset.
    open_end = [i for i, row in enumerate(words) if row[1] == "n/a" and row[0] != "n/a"]
    later = [np.nanmin(onsets[i + 1 :]) for i in open_end]
    np.testing.assert_array_equal(found.offset_s[run][open_end], later)
    assert "rows 36 have no text, and are no words; 48 words have no onset" in caplog.text
    assert set(found.passage) == set(found.run)


def test_rows_name_what_was_done(written):
    label = find(written[0], *SCRUBBED, "fd_mm=0.4", "wm_csf=basic").name
    assert label == (
        f"ds ({planted.SPACE}, confounds scrubbing, wm_csf basic, FD 0.4 mm, DVARS 1.5, "
        "segment 5, z per run)"
    )
    plain = find(written[0], "strategy=none", "standardize=none", "space=fsLR").name
    assert plain == "ds (fsLR:den-91k, confounds none)"


def test_derivatives_find_their_recorded_data(written):
    root, _ = written
    found = find(root / DERIVED, *SCRUBBED)
    assert found.stimuli.hash == find(root, *SCRUBBED).stimuli.hash
    assert found.responses.hash == find(root, *SCRUBBED).responses.hash


def test_a_subject_and_a_run_are_chosen(written):
    found = find(written[0], *SCRUBBED, "subjects=sub-02", "runs=01")
    assert (set(found.responses.subject), set(found.responses.run)) == (
        {"02"},
        {"task-story_run-1"},
    )
    assert set(found.stimuli.run) == {"task-story_run-1"}
    with refused("subjects of data set", "must be among 01, 02, found '03'"):
        read(written[0], "subjects=03")
    with refused("runs of data set", "must be among 1, 2, found '3'"):
        read(written[0], "runs=3")


def test_parcels_are_averaged_before_they_are_cleaned(copy):
    """Means of labels within the brain masks; of BIDS the table of names has its own columns."""
    atlas = np.zeros(planted.SHAPE, np.int16)
    atlas[1:3], atlas[3] = 1, 2
    affine = nib.load(copy / f"{BOLD}.nii.gz").affine
    nib.save(nib.Nifti1Image(atlas, affine), copy / "parcels.nii.gz")
    (copy / "parcels.tsv").write_text("index\tname\n1\tfront\n2\tback\n")
    options = (*SCRUBBED, "atlas=parcels.nii.gz", "labels=parcels.tsv")
    means = find(copy, *options)
    found = means.responses
    assert list(zip(found.subject, found.roi, strict=True)) == [
        (s, roi) for s in planted.SUBJECTS for roi in ("front", "back")
    ]
    assert "means of parcels" in means.name
    voxels = read(copy, *options, "targets=voxels", "standardize=none")
    own = [i for i, x in enumerate(voxels.roi) if x == "front" and voxels.subject[i] == "01"]
    first = np.array([run.endswith("run-1") for run in found.run])
    expected = voxels.values[first][:, own].mean(axis=1)
    r = np.corrcoef(expected, found.values[first, 0])[0, 1]
    assert r > 1 - 1e-6  # of the first run, which is standardised by itself
    assert min(held_out_r(means)) > 0.9999


def test_in_a_space_of_its_own_each_subject_has_its_atlas(copy):
    """Nothing is compared between voxels of two brains; means of ROIs are, by their names."""
    for path in copy.glob(f"{DERIVED}/sub-*/func/*_space-{planted.SPACE}_*"):
        path.rename(path.with_name(path.name.replace(planted.SPACE, "T1w")))
    image = nib.load(copy / f"{BOLD.replace(planted.SPACE, 'T1w')}.nii.gz")
    for subject, label in (("01", 1), ("02", 2)):
        atlas = np.zeros(planted.SHAPE, np.int16)
        atlas[label] = label
        nib.save(nib.Nifti1Image(atlas, image.affine), copy / f"parcels_{subject}.nii.gz")
    (copy / "names.csv").write_text("label,roi\n1,front\n2,back\n")
    options = ("strategy=scrubbing", "space=T1w")
    atlas = ("atlas=parcels_{subject}.nii.gz", "labels=names.csv")
    found = read(copy, *options, *atlas, "targets=voxels")
    assert {x.split(".")[0] for x in found.target} == {"01", "02"}
    assert set(zip(found.subject, found.roi, strict=True)) == {("01", "front"), ("02", "back")}
    assert read(copy, *options, *atlas).target == ["mean", "mean"]


def test_vertices_of_the_medial_wall_are_left_out(copy, caplog):
    """fMRIPrep sets them to NaN where it is told to."""
    for path in copy.glob(f"{FUNC}/*_hemi-L_*.func.gii"):
        image = nib.load(path)
        for array in image.darrays:
            array.data[3] = np.nan
        nib.save(image, path)
    found = read(copy, "strategy=scrubbing", "space=fsaverage6")
    own = [x for x, s in zip(found.target, found.subject, strict=True) if s == "01"]
    assert len(own) == 38
    assert "L.3" not in own
    assert "subject 01: 1 of 39 targets are NaN throughout and left out" in caplog.text


# What is missing


@pytest.mark.parametrize(
    "lost,options,message",
    [
        (f"{BOLD}.json", SCRUBBED, "needs a JSON file with RepetitionTime, next to it or above it"),
        (f"{BOLD}.json", (*SCRUBBED, "tr_s=2"), "has no JSON file, so that StartTime is not known"),
        (f"{BOLD}.nii.gz", SCRUBBED, "every subject must have the same runs, but sub-01 lacks"),
        (
            f"{FUNC}/{STEM}_space-{planted.SPACE}_desc-brain_mask.nii.gz",
            SCRUBBED,
            "needs a brain mask next to it, ..._desc-brain_mask.nii.gz: give a mask=PATH or",
        ),
        (
            f"{FUNC}/{STEM}_desc-confounds_timeseries.tsv",
            SCRUBBED,
            "needs fMRIPrep's confounds next to it, ..._desc-confounds_timeseries.tsv: set",
        ),
        (
            f"sub-01/func/{STEM}_events.tsv",
            SCRUBBED,
            "run task-story_run-1 of sub-01 has no events.tsv, beside the scan, above it or in",
        ),
        (
            f"{FUNC}/{STEM}_hemi-R_space-fsaverage6_bold.func.gii",
            ("space=fsaverage6",),
            "run task-story_run-1 must have hemi-L and hemi-R, found",
        ),
    ],
)
def test_what_is_missing_is_refused_by_name(copy, lost, options, message):
    (copy / lost).unlink()
    with refused(message):
        find(copy, *options).adapter.files()


def test_a_choice_is_asked_for(written):
    listed = "set space=NAME in --config.options, of MNI152NLin2009cAsym, fsLR:den-91k, fsaverage6"
    with refused("scans with more than one space", listed):
        read(written[0])
    with refused("space of data set", "must be one of", "found 'T1w'"):
        read(written[0], "space=T1w")


@pytest.mark.parametrize(
    "changes,options,message",
    [
        ({"StartTime": None}, (), "SliceTimingCorrected is true, so StartTime must say"),
        ({"RepetitionTime": None}, (), "needs a JSON file with RepetitionTime"),
        ({"RepetitionTime": 1.5}, (), "RepetitionTime and StartTime of the subjects before"),
        ({"StartTime": 0.0}, (), "RepetitionTime and StartTime of the subjects before"),
        ({}, ("tr_s=1.5",), "RepetitionTime of its JSON file is 2 s, and tr_s is 1.5 s"),
        ({}, ("start_s=0",), "StartTime of its JSON file is 1 s, and start_s is 0 s"),
    ],
)
def test_a_clock_that_is_not_sure_is_refused(copy, changes, options, message):
    path = copy / f"{BOLD}.json"
    about = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in about.items() if v is not None}))
    with refused(message):
        read(copy, *SCRUBBED, *options)


def test_json_files_above_apply(copy):
    """What all runs share may lie at the top, as BIDS has it; what lies deeper holds."""
    before = find(copy, *SCRUBBED).responses.hash
    for path in copy.glob(f"{DERIVED}/sub-*/func/*_desc-preproc_bold.json"):
        path.unlink()
    above = {"RepetitionTime": 2.0, "StartTime": 0.0, "SliceTimingCorrected": True}
    (copy / DERIVED / "desc-preproc_bold.json").write_text(json.dumps(above))
    for subject in planted.SUBJECTS:
        path = copy / DERIVED / f"sub-{subject}" / f"sub-{subject}_task-story_bold.json"
        path.write_text(json.dumps({"StartTime": 1.0}))
    assert find(copy, *SCRUBBED).responses.hash == before


def rewrite(path, change):
    """Rewrite a table with tabs by its rows of cells."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text("".join("\t".join(row) + "\n" for row in change(rows)))


@pytest.mark.parametrize(
    "change,message",
    [
        (
            lambda rows: [
                [x for x, h in zip(row, rows[0], strict=True) if "trans" not in h] for row in rows
            ],
            "does not serve the strategy that was asked for: The following keywords",
        ),
        (lambda rows: rows[:-3], "confounds must have a row for each of 160 volumes, found 157"),
        (
            lambda rows: [*rows[:5], ["n/a"] + rows[5][1:], *rows[6:]],
            "confounds must be numbers in every volume that is kept",
        ),
    ],
)
def test_confounds_that_do_not_serve_are_refused(copy, change, message):
    rewrite(copy / f"{FUNC}/{STEM}_desc-confounds_timeseries.tsv", change)
    with refused(f"{STEM}_desc-confounds_timeseries.tsv", message):
        read(copy, *SCRUBBED)


@pytest.mark.parametrize(
    "change,message",
    [
        (
            lambda rows: [row if i != 4 else [*row[:2], "other"] for i, row in enumerate(rows)],
            "sub-02 must have been presented the words of sub-01, found 'other' for",
        ),
        (
            lambda rows: [rows[0], ["0.1", *rows[1][1:]], *rows[2:]],
            "sub-02 must have been presented words when sub-01 was, to 0.2 s",
        ),
        (
            lambda rows: [["onset", "duration", "value"], *rows[1:]],
            "must have one of the columns word, text, sentence, or column=NAME must name",
        ),
        (
            lambda rows: [[*row[:2], "n/a" if i else "word"] for i, row in enumerate(rows)],
            "run task-story_run-1 of sub-02 must hold words, found none",
        ),
    ],
)
def test_events_that_do_not_serve_are_refused(copy, change, message):
    rewrite(copy / "sub-02/func/sub-02_task-story_run-1_events.tsv", change)
    with refused(message):
        words(copy, *SCRUBBED)


@pytest.mark.parametrize(
    "options,message",
    [
        (("strategy=motions",), "strategy must be one of none, simple, scrubbing"),
        (("strategy=compcor,motion",), "strategy must have high_pass beside compcor"),
        (
            ("strategy=motion", "wm_csf=full"),
            "wm_csf must be left out where strategy has no wm_csf",
        ),
        (("high_pass_hz=0.01",), "high_pass_hz must be 0 beside a strategy that has high_pass"),
        (("targets=means",), "targets=means must have an atlas"),
        (("fd_mm=x",), "fd_mm must be a number, found 'x'"),
        (("standardize=all",), "standardize must be one of run, none"),
        (("unit=letter",), "unit must be one of word, sentence"),
    ],
)
def test_options_that_contradict_are_refused(written, options, message):
    with refused(message):
        find(written[0], *options)


def test_a_filter_of_its_own_does_what_fmriprep_s_cosines_do(written):
    cosines = find(
        written[0], *SCRUBBED[1:], "strategy=motion,wm_csf,scrub,high_pass", "wm_csf=full"
    )
    own = find(
        written[0],
        *SCRUBBED[1:],
        *("strategy=motion,wm_csf,scrub", "wm_csf=full", f"high_pass_hz={1 / 128}"),
    )
    np.testing.assert_allclose(own.responses.values, cosines.responses.values, atol=1e-4)


# Words beside the scans


def test_words_of_a_table_or_a_text_grid_replace_events(copy):
    """A file for each run, called by it or by the sound file that the events name."""
    folder = copy / "transcripts"
    folder.mkdir()
    for run in planted.RUNS:
        (folder / f"task-story_run-{run}.csv").write_text(
            "word,onset,duration\n" + "".join(f"w{i},{i},0.5\n" for i in range(50))
        )
    found = find(copy, *SCRUBBED, "words=transcripts").stimuli
    assert found.text[:2] == ["w0", "w1"]
    assert len(found) == 100
    for run in planted.RUNS:
        (folder / f"task-story_run-{run}.csv").unlink()
    grid = 'File type = "ooTextFile"\nObject class = "TextGrid"\n0 9 <exists> 1\n'
    grid += '"IntervalTier" "words" 0 9 3\n0 1 ""\n1 2 "once"\n2 9 "upon"\n'
    (folder / "tale.TextGrid").write_text(grid)
    for path in copy.glob("sub-*/func/*_events.tsv"):
        path.write_text("onset\tduration\tstim_file\n3.5\t9\ttale.wav\n60\t9\ttale.wav\n")
    found = find(copy, *SCRUBBED, "words=transcripts", "skip=sp").stimuli
    assert found.text == ["once", "upon"] * 4
    np.testing.assert_array_equal(found.onset_s[:4], [4.5, 5.5, 61, 62])
    assert found.passage[0] == "tale"
    with refused("words:", "must hold a .TextGrid, .tsv, .csv for run task-story_run-1 of sub-01"):
        (folder / "tale.TextGrid").unlink()
        words(copy, *SCRUBBED, "words=transcripts")


def test_a_table_of_stimuli_replaces_events(copy):
    rows = "stimulus_id,text,passage,run,onset_s,offset_s\na,The,p,task-story_run-1,1,2\n"
    (copy / "stimuli.csv").write_text(rows + "b,end,p,task-story_run-2,1,2\n")
    dataset = find(copy, *SCRUBBED)
    assert dataset.stimuli.text == ["The", "end"]
    assert dataset.responses.values.shape == (302, 78)


def test_sentences_are_passages_of_their_own(copy):
    for path in copy.glob("sub-*/func/*_events.tsv"):
        run = path.name.split("run-")[1][0]
        rows = [f"{4 * i}\t3\tSentence {i} of run {run}.\n" for i in range(40)]
        path.write_text("onset\tduration\tsentence\n" + "".join(rows))
    found = find(copy, *SCRUBBED).stimuli
    assert (found.unit, len(found), len(set(found.passage))) == ("sentence", 80, 80)


# Data that are not fMRIPrep's


def test_recorded_scans_are_read_with_a_mask(copy):
    """Without derivatives the recorded scans themselves, here under a JSON file of the task."""
    mask = copy / "mask.nii.gz"
    shutil.copy(copy / f"{FUNC}/{STEM}_space-{planted.SPACE}_desc-brain_mask.nii.gz", mask)
    for path in copy.glob(f"{DERIVED}/sub-*/func/*_desc-preproc_bold.nii.gz"):
        name = path.name.replace(f"_space-{planted.SPACE}_desc-preproc", "")
        shutil.copy(path, copy / path.parent.parent.name / "func" / name)
    shutil.rmtree(copy / "derivatives")
    (copy / "task-story_bold.json").write_text('{"RepetitionTime": 2.0}')
    with refused("needs fMRIPrep's confounds", "set strategy=none"):
        read(copy, "mask=mask.nii.gz")
    dataset = find(copy, "mask=mask.nii.gz", "strategy=none", "high_pass_hz=0.01")
    assert dataset.name == "ds (native, confounds none, high-pass 0.01 Hz, z per run)"
    found = dataset.responses
    assert found.time_s[0] == 0  # as BIDS has it, where nothing is said
    assert len(found.run) == 320
    # In a subject's own space a voxel is nobody else's.
    assert {x.split(".")[0] for x in found.target} == {"01", "02"}


def test_names_that_are_none_of_bids_are_passed_over(tmp_path):
    assert not bids_layout.is_bids(tmp_path)
    for name in ("sub-01/func/notes.txt", "sub-01/func/sub-01__bold.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert bids_layout.is_bids(tmp_path)
    with refused("must hold scans, sub-*/func/*_bold.*, not of single echos: found none"):
        read(tmp_path)


@pytest.mark.slow
def test_one_configuration_leads_to_the_page(copy, tmp_path):
    """The planted layer scores 1.000; without a JSON file nothing is begun."""
    settings = recipes.on_data(str(copy), [str(copy / "network.npz")])
    changes = {"options": ("strategy=scrubbing", f"space={planted.SPACE}"), "encode.controls": ()}
    settings = config.override(settings, changes)
    work = tmp_path / "work"
    runner.run(runner.plan(settings, workdir=work))
    rows = pd.read_csv(work / "report/scores.csv")
    assert set(rows.dataset) == {find(copy, *SCRUBBED).name}
    score = rows.set_index(["layer", "subject"]).score
    assert score[1].min() > 0.999
    assert score[0].max() < 0.2
    assert "18 of 320 volumes are no samples" in (work / "report/summary.txt").read_text()
    # Activations are used again for responses that were cleaned in another way.
    other = config.override(settings, {"options": ("strategy=none", changes["options"][1])})
    done = {
        step.artefact.stage: step.artefact.is_done
        for step in runner.plan(other, workdir=work).steps
    }
    assert done == {"imported": True, "encode": False, "report": False}
    (copy / f"{BOLD}.json").unlink()
    with refused("needs a JSON file with RepetitionTime"):
        runner.plan(settings, workdir=tmp_path / "other")
    assert not (tmp_path / "other").exists()
