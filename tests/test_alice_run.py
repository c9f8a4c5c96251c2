"""Two real models on real fMRI, run as a user runs it."""

import browser
import command
import pandas as pd
import pytest

MINILM = "all-MiniLM-L6-v2"
CONTROLS = {
    "word_rate",
    "word_length",
    "length",
    "position",
    "oasm",
    "shifted",
    "shuffled",
    "static_embedding",
    "random_embedding",
    "untrained",
}
ROIS = {"LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alice(data_root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alice") / "work"
    # A quarter of the orders and a third of the weights that users have take most of the time.
    fewer = ("--config.encode.permutations=99", "--config.encode.partition_draws=4")
    result = command.call(
        "alice.py", workdir, f"--data_root={data_root}", *fewer, timeout=2400, is_long=True
    )
    assert result.returncode == 0, result.stderr
    return workdir, result


def read_scores(workdir):
    """Undefined scores are empty cells, as are the names of what a network is a control of."""
    numbers = dict.fromkeys(("score", "ceiling"), [""])
    return pd.read_csv(workdir / "report/scores.csv", keep_default_na=False, na_values=numbers)


def test_every_region_and_model_has_group_and_subjects(alice):
    table = read_scores(alice[0])
    for model, num_layers in ((MINILM, 6), ("stories260K", 5)):
        own = table[table.model == model]
        assert set(own.roi) == ROIS
        assert own.layer.max() == num_layers
        assert own.subject.nunique() == 28  # 27 and the group
        assert len(own) == 28 * 6 * (num_layers + 1)
        assert own.score.notna().all() and own.ceiling.notna().all()
        assert set(table[table.control_of == model].model) == CONTROLS
    group = table[table.subject == "group"].drop_duplicates("roi")
    assert group.ceiling.between(0.6, 1).all()


def test_model_predicts_the_left_anterior_temporal_lobe(alice):
    """A rough NumPy pipeline reaches a group r of .59 there."""
    table = read_scores(alice[0])
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
    assert set(own.control) == {"layer 0", *CONTROLS}
    assert (own.ci_low < own.difference).all() and (own.difference < own.ci_high).all()
    # Where the neighbours of some fold are not recorded, `oasm` predicts a constant for somebody.
    assert (own[own.control != "oasm"].num_subjects == 27).all()
    assert own.num_subjects.between(25, 27).all()


def test_known_numbers(alice):
    """Those of README and CHANGELOG."""
    table = read_scores(alice[0])
    group = table[(table.subject == "group") & (table.roi == "LATL")]
    own = group[group.model == MINILM].set_index("layer").score
    controls = group[group.control_of == MINILM].groupby("model").score.max()
    assert own.idxmax() == 3 and own[3] == pytest.approx(0.596, abs=2e-3)
    assert own[0] == pytest.approx(0.585, abs=2e-3)
    assert controls["word_rate"] == pytest.approx(0.272, abs=2e-3)
    assert controls["shifted"] == pytest.approx(0.120, abs=2e-3)
    assert group.ceiling.iloc[0] == pytest.approx(0.865, abs=5e-3)


def test_permutations_have_p_values(alice):
    tests = pd.read_csv(alice[0] / "report/significance.csv")
    own = tests[tests.model == MINILM].set_index("roi")
    assert (own.num_orders == 99).all()
    assert (own.group_p >= 1 / 100).all() and (own.group_p_adjusted >= own.group_p).all()
    # One shift among them, by few TRs, scores as the recorded order does.
    assert own.group_p["LATL"] <= 0.02 and own.mean_p["LATL"] <= 0.02
    assert own.group_p_adjusted["LATL"] <= 0.03 and own.mean_p_adjusted["LATL"] <= 0.03


def test_partitions_and_ceilings_are_there(alice):
    beyond = pd.read_csv(alice[0] / "report/beyond.csv")
    assert set(beyond.controls) == {"word_rate + word_length + position"}
    own = beyond[(beyond.model == MINILM) & (beyond.roi == "LATL")].iloc[0]
    assert own.group_unique > 0.2
    assert own.group_shared == pytest.approx(
        own.group_model + own.group_controls - own.group_joint, abs=1e-9
    )
    rois = pd.read_csv(alice[0] / "report/rois.csv")
    assert (rois.group_ceiling_low < rois.group_ceiling).all()
    assert (rois.group_ceiling < rois.group_ceiling_high).all()
    models = pd.read_csv(alice[0] / "report/models.csv")
    assert set(models.roi) == ROIS and models.p_t.between(0, 1).all()


def test_bad_subject_is_named_and_left_out(alice):
    workdir, result = alice
    assert "Left out, 1 of 28 subjects, because every target is constant: s33." in result.stdout
    assert "s33" in result.stderr
    table = pd.read_csv(workdir / "report/scores.csv")
    assert "s33" not in set(table.subject)
    assert "s33" in (workdir / "report/index.html").read_text()


def test_the_page_holds_in_a_browser(alice, tmp_path):
    browser.check_page(alice[0] / "report/index.html", tmp_path)
