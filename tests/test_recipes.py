"""Configurations that follow from what a data set holds."""

import numpy as np
import pytest
import recordings
from recordings import write_table
from refusals import refused

from jaxalign import config, recipes

WORDS = ["stimulus_id", "text", "passage", "run", "onset_s", "offset_s"]
TIMES = ["stimulus_id", "participant", "reading_time_ms", "word_in_sentence"]
HEARD = ("window:10", "mean_all", (1, 2, 3, 4), 6, "none")
ALONE = ("none", "mean", (0,), 0, "passage")


def table(folder, *, timed, **columns):
    folder.mkdir(exist_ok=True)
    rows = [[f"w{i}", "dog", "p", "r", i, i + 0.5] for i in range(3)]
    kept = 6 if timed else 3
    write_table(
        folder / "stimuli.csv",
        [*WORDS[:kept], *columns],
        [[*row[:kept], *(x[i] for x in columns.values())] for i, row in enumerate(rows)],
    )


def responses(folder, *, timed):
    labels = {"run": ["r"] * 3, "subject": ["s"], "roi": ["A"], "target": ["m"], "units": "z"}
    at = {"time_s": np.arange(3.0), "tr_s": 1.0}
    if not timed:  # with an empty array of times, as `Responses.to_bytes` writes
        at = {"time_s": np.empty(0), "tr_s": 0.0, "stimulus_id": ["w0", "w1", "w2"]}
    np.savez(folder / "responses.npz", values=np.eye(3)[:, :1], **labels, **at)


def reading_times(folder):
    write_table(folder / "behavior.csv", TIMES, [["w0", "p1", 300, 1], ["w1", "p1", 310, 2]])


def reading(folder, *models):
    """Return how words are read and responses scored, from the configuration."""
    _, stages = config.unpack(recipes.on_data(str(folder), models))
    assert list(stages) == ["extract", "encode", "report"]
    read, score = stages["extract"], stages["encode"]
    return read.context, read.pooling, score.delays, score.gap, score.groups


@pytest.mark.parametrize("words,trs", [(True, True), (True, False), (False, False)])
def test_own_responses(tmp_path, words, trs):
    """Delays and gaps are of TRs, whether or not words have times."""
    table(tmp_path / "data", timed=words)
    responses(tmp_path / "data", timed=trs)
    expected = (HEARD if words else ALONE)[:2] + (HEARD if trs else ALONE)[2:]
    assert reading(tmp_path / "data", "model") == expected
    with refused("a model must be named, behind the data"):
        recipes.on_data(str(tmp_path / "data"), ())


def test_own_scans(tmp_path):
    table(tmp_path, timed=True)
    (tmp_path / "images.csv").write_text("subject,run\n")
    assert reading(tmp_path, "model") == HEARD


def test_own_reading_times(tmp_path):
    """Without a model there is given surprisal; frequency is regressed on where it is known."""
    table(tmp_path / "data", timed=False)
    reading_times(tmp_path / "data")
    data = str(tmp_path / "data")
    _, stages = config.unpack(recipes.on_data(data, ("model",)))
    assert list(stages) == ["extract", "behavior"] and stages["extract"].surprisal
    assert stages["behavior"].baseline == ("length",)
    table(tmp_path / "data", timed=False, zipf=[5, 6, 7])
    _, stages = config.unpack(recipes.on_data(data, ()))
    assert list(stages) == ["behavior"]
    assert stages["behavior"].baseline == ("length", "log_frequency")
    responses(tmp_path / "data", timed=False)
    assert reading(data, "model") == ALONE
    assert "behavior" in config.unpack(recipes.on_reading_times(data, ("model",)))[1]


def test_data_sets_of_the_table():
    assert reading("alice", "model") == reading("wehbe2014", "model") == HEARD
    assert reading("pereira2018-mean", "model") == ALONE
    _, stages = config.unpack(recipes.on_data("naturalstories", ("model",)))
    assert stages["behavior"].baseline == ("length", "log_frequency")
    with refused("data set alice has no reading times"):
        recipes.on_reading_times("alice", ("model",))


def test_words_with_times_are_read_in_one_way(tmp_path):
    """By `jaxalign.score` too, where the protocol leaves it open."""
    table(tmp_path / "data", timed=True)
    responses(tmp_path / "data", timed=True)
    read = recipes.find_benchmark(str(tmp_path / "data"), "jaxalign")[1].reading
    assert (read.context, read.pooling, read.delays) == HEARD[:3]
    fixed = recipes.find_benchmark(str(tmp_path / "data"), "huth")[1]
    assert fixed.scored_under.name == "huth"


def test_a_data_set_is_read_with_the_options_of_the_run(tmp_path, rng):
    """One session of NSD: without the option the others are missing."""
    recordings.nsd(tmp_path, rng, num_sessions=1, shape=(2, 2, 3))
    options = ("num_sessions=1",)
    name, found = recipes.find_benchmark("nsd-subj01", "jaxalign", tmp_path, options=options)
    assert (name, found.is_timed) == ("nsd-subj01-jaxalign", False)
    with refused("data set nsd-subj01 needs", "betas_session02.hdf5"):
        recipes.find_benchmark("nsd-subj01", "jaxalign", tmp_path)
    with refused("nan must be 'refuse' for data set nsd-subj01"):
        recipes.find_benchmark("nsd-subj01", "jaxalign", tmp_path, nan="leave_out", options=options)


def test_a_protocol_by_name_fixes_the_rest_whatever_the_files(tmp_path):
    """Of TRs, sentences, images and reading times, of networks and of activations in files."""
    table(tmp_path / "trs", timed=True)
    responses(tmp_path / "trs", timed=True)
    table(tmp_path / "parts", timed=False)
    responses(tmp_path / "parts", timed=False)
    make = lambda name, *models, protocol: config.unpack(
        recipes.on_data(str(tmp_path / name), models, protocol)
    )[1]
    for name, delays in (("trs", (1, 2, 3, 4)), ("parts", (0,))):
        found = make(name, "gpt2", "early=path/to/model", protocol="wehbe2014")
        assert found["extract"].models == ("gpt2", "early=path/to/model")
        assert (found["extract"].context, found["extract"].pooling) == ("window:20", "mean")
        assert (found["encode"].protocol, found["encode"].delays) == ("wehbe2014", delays)
        assert found["report"].title == f"{name}-wehbe2014"
        given = make(name, "net.npz", protocol="wehbe2014")
        assert (given["encode"].protocol, given["encode"].delays) == ("wehbe2014", delays)
    reading_times(tmp_path / "parts")
    found = make("parts", "gpt2", protocol="futrell2018-pearsonr")
    assert list(found) == ["extract", "behavior"] and found["extract"].one_stream
    with refused("protocol futrell2018-pearsonr scores reading times", "trs lacks"):
        make("trs", "gpt2", protocol="futrell2018-pearsonr")
    with refused("a model must be named, behind the data"):
        make("trs", protocol="jaxalign")
    with refused("protocol must be one of", "'nobody2020'"):
        make("trs", "gpt2", protocol="nobody2020")


def test_images_under_a_protocol_have_the_controls_of_images(tmp_path):
    (tmp_path / "stimuli.csv").write_text("stimulus_id,image\nw0,0.png\nw1,1.png\nw2,2.png\n")
    responses(tmp_path, timed=False)
    for protocol in ("", "jaxalign"):
        found = recipes.on_data(str(tmp_path), ["clip-vit-l14"], protocol)
        assert "shuffled" in found.encode.controls and "position" not in found.encode.controls
        assert found.encode.protocol == protocol
    found = recipes.on_data("alice", ["gpt2"], "brainscore-ridge")
    assert found.report.title == "alice-brainscore-ridge"
