"""What fMRIPrep of several versions writes is found by its names alone, in empty files."""

import json

import pytest
from refusals import refused

from jaxalign.data.formats import bids_names
from jaxalign.data.sets import bids_layout
from jaxalign.data.sets.bids_layout import Wanted

RUN = "sub-100185_ses-1_task-game_run-01"
MNI = f"{RUN}_space-MNI152NLin2009cAsym"
# Files of one run, by the version that writes them so.
WRITTEN = {
    "20.1": [
        f"{MNI}_desc-preproc_bold.nii.gz",
        f"{MNI}_desc-preproc_bold.json",
        f"{MNI}_desc-brain_mask.nii.gz",
        f"{MNI}_boldref.nii.gz",
        f"{RUN}_space-fsLR_den-91k_bold.dtseries.nii",
        f"{RUN}_space-fsLR_den-91k_bold.dtseries.json",
        f"{RUN}_desc-confounds_regressors.tsv",
        f"{RUN}_desc-confounds_regressors.json",
    ],
    "23.1": [
        f"{MNI}_res-2_desc-preproc_bold.nii.gz",
        f"{MNI}_res-2_desc-preproc_bold.json",
        f"{MNI}_res-2_desc-brain_mask.nii.gz",
        f"{MNI}_res-2_desc-aparcaseg_dseg.nii.gz",
        f"{RUN}_space-T1w_desc-preproc_bold.nii.gz",
        f"{RUN}_space-T1w_desc-brain_mask.nii.gz",
        f"{RUN}_hemi-L_space-fsaverage5_bold.func.gii",
        f"{RUN}_hemi-L_space-fsaverage5_bold.json",
        f"{RUN}_hemi-R_space-fsaverage5_bold.func.gii",
        f"{RUN}_hemi-R_space-fsaverage5_bold.json",
        f"{RUN}_space-fsLR_den-91k_bold.dtseries.nii",
        f"{RUN}_space-fsLR_den-91k_bold.json",
        f"{RUN}_from-scanner_to-T1w_mode-image_xfm.txt",
        f"{RUN}_desc-confounds_timeseries.tsv",
        f"{RUN}_desc-confounds_timeseries.json",
    ],
    "newest": [
        f"{RUN}_desc-preproc_bold.nii.gz",
        f"{RUN}_desc-preproc_bold.json",
        f"{RUN}_space-run_desc-brain_mask.nii.gz",
        f"{RUN}_space-run_boldref.nii.gz",
        f"{RUN}_space-orig_desc-hmc_boldref.nii.gz",
        f"{RUN}_echo-1_desc-preproc_bold.nii.gz",
        f"{RUN}_desc-confounds_timeseries.tsv",
    ],
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    func = tmp_path / "sub-100185/ses-1/func"
    func.mkdir(parents=True)
    return func


@pytest.mark.parametrize(
    "version,space,found",
    [
        ("20.1", "MNI152NLin2009cAsym", (f"{MNI}_desc-preproc_bold.json", 1, 2)),
        ("20.1", "fsLR", (f"{RUN}_space-fsLR_den-91k_bold.dtseries.json", 0, 2)),
        ("23.1", "MNI152NLin2009cAsym", (f"{MNI}_res-2_desc-preproc_bold.json", 1, 2)),
        ("23.1", "fsaverage5", (f"{RUN}_hemi-L_space-fsaverage5_bold.json", 0, 2)),
        ("23.1", "fsLR:den-91k", (f"{RUN}_space-fsLR_den-91k_bold.json", 0, 2)),
        ("23.1", "T1w", ("", 1, 2)),
        ("newest", "", (f"{RUN}_desc-preproc_bold.json", 1, 1)),
    ],
)
def test_scans_are_found_with_what_belongs_to_them(folder, version, space, found):
    for name in WRITTEN[version]:
        (folder / name).write_text("")
    layout = bids_layout.find(folder.parents[2], Wanted(space=space))
    (run,) = layout.runs
    sidecar = run.sidecars[-1].name if run.sidecars else ""
    assert (sidecar, len(run.masks), len(run.confounds)) == found
    assert (run.subject, run.label) == ("100185", "ses-1_task-game_run-01")
    assert layout.is_shared == (space not in ("T1w", ""))
    assert len(run.images) == (2 if space == "fsaverage5" else 1)


def test_spaces_and_descriptions_are_asked_for(folder):
    for name in WRITTEN["23.1"]:
        (folder / name).write_text("")
    with refused(
        "set space=NAME in --config.options, of",
        "MNI152NLin2009cAsym:res-2, T1w, fsLR:den-91k, fsaverage5",
    ):
        bids_layout.find(folder.parents[2], Wanted())
    for name in ("denoised", "smooth"):
        (folder / f"{RUN}_space-T2w_desc-{name}_bold.nii.gz").write_text("")
    with refused("more than one desc: set desc=NAME in --config.options, of denoised, smooth"):
        bids_layout.find(folder.parents[2], Wanted(space="T2w"))
    found = bids_layout.find(folder.parents[2], Wanted(space="T2w", desc="denoised"))
    assert (found.desc, len(found.runs)) == ("denoised", 1)


def test_several_derivatives_are_asked_for(tmp_path):
    for name in ("fmriprep", "xcp_d"):
        func = tmp_path / "derivatives" / name / "sub-1/func"
        func.mkdir(parents=True)
        (func / "sub-1_task-x_space-T1w_desc-preproc_bold.nii.gz").write_text("")
    with refused("several derivatives with scans", "derivatives=NAME", "of fmriprep, xcp_d"):
        bids_layout.find(tmp_path, Wanted())
    found = bids_layout.find(tmp_path, Wanted(), "xcp_d")
    assert (found.root, found.raw) == (tmp_path / "derivatives/xcp_d", tmp_path)


@pytest.mark.parametrize(
    "said",
    [{"DatasetLinks": {"raw": "../../raw"}}, {"SourceDatasets": [{"URL": "file://../../raw"}]}],
)
def test_derivatives_name_their_recorded_data(tmp_path, said):
    """Events lie there, at the top for all runs of the task; what lies deeper holds."""
    derived, raw = tmp_path / "out/fmriprep", tmp_path / "raw"
    (derived / "sub-1/func").mkdir(parents=True)
    (derived / "sub-1/func/sub-1_task-x_run-1_desc-preproc_bold.nii.gz").write_text("")
    (derived / "sub-1/func/sub-1_task-x_run-2_desc-preproc_bold.nii.gz").write_text("")
    (derived / "dataset_description.json").write_text(json.dumps(said))
    (raw / "sub-1/func").mkdir(parents=True)
    (raw / "task-x_events.tsv").write_text("")
    (raw / "sub-1/func/sub-1_task-x_run-2_events.tsv").write_text("")
    found = bids_layout.find(derived, Wanted()).runs
    assert [run.events and run.events.name for run in found] == [
        "task-x_events.tsv",
        "sub-1_task-x_run-2_events.tsv",
    ]


@pytest.mark.parametrize(
    "name", ["sub-01_bold", "sub-01__bold.nii", "sub_task-x_bold.nii", "sub-1_sub-2_bold.nii"]
)
def test_other_names_are_none_of_bids(tmp_path, name):
    assert bids_names.parse(tmp_path / name) is None
