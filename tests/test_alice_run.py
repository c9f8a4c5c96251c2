"""Two real models on real fMRI, run as a user runs it."""

import pathlib
import subprocess
import sys

import pandas as pd
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
MINILM = "all-MiniLM-L6-v2"
ROIS = {"LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alice(data_root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alice") / "work"
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "jaxalign.main",
            f"--config={REPOSITORY / 'configs/alice.py'}",
            f"--workdir={workdir}",
            f"--data_root={data_root}",
        ],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_every_region_and_model_has_group_and_subjects(alice):
    table = pd.read_csv(alice[0] / "report/scores.csv", keep_default_na=False, na_values=["nan"])
    for model, num_layers in ((MINILM, 6), ("stories260K", 5)):
        own = table[table.model == model]
        assert set(own.roi) == ROIS
        assert own.layer.max() == num_layers
        assert own.subject.nunique() == 28  # 27 and the group
        assert len(own) == 28 * 6 * (num_layers + 1)
        assert own.score.notna().all() and own.ceiling.notna().all()
        controls = table[table.control_of == model]
        assert set(controls.model) == {
            "word_rate",
            "word_length",
            "position",
            "shifted",
            "untrained",
        }
    group = table[table.subject == "group"].drop_duplicates("roi")
    assert group.ceiling.between(0.6, 1).all()


def test_model_predicts_the_left_anterior_temporal_lobe(alice):
    """A rough NumPy pipeline reaches a group r of .59 there."""
    table = pd.read_csv(alice[0] / "report/scores.csv", keep_default_na=False, na_values=["nan"])
    group = table[(table.subject == "group") & (table.roi == "LATL")]
    own = group[group.model == MINILM].set_index("layer").score
    controls = group[group.control_of == MINILM].groupby("model").score.max()
    assert own.max() >= 0.55
    assert own.max() > own[0]
    assert own.max() > controls["word_rate"] + 0.1
    assert own.max() > controls["shifted"] + 0.1


def test_differences_from_controls_have_intervals(alice):
    table = pd.read_csv(alice[0] / "report/controls.csv")
    own = table[table.model == MINILM]
    assert set(own.roi) == ROIS
    assert set(own.control) == {
        "layer 0",
        "word_rate",
        "word_length",
        "position",
        "shifted",
        "untrained",
    }
    assert (own.ci_low < own.difference).all() and (own.difference < own.ci_high).all()
    assert (own.num_subjects == 27).all()


def test_bad_subject_is_named_and_left_out(alice):
    workdir, result = alice
    assert "Left out, 1 of 28 subjects, because every target is constant: s33." in result.stdout
    assert "s33" in result.stderr
    table = pd.read_csv(workdir / "report/scores.csv")
    assert "s33" not in set(table.subject)
    assert "s33" in (workdir / "report/index.html").read_text()
