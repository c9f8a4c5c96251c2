"""The Python interface: scores of benchmarks, what is kept, and tables of finished runs."""

import inspect
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import small
from quiet import close
from refusals import refused

import jaxalign
from jaxalign.api import pages
from jaxalign.data import datasets
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.literature import benchmarks, protocols
from jaxalign.models import table as models_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("interface")


@pytest.fixture(scope="module")
def data(folder):
    return small.write(folder / "data")


@pytest.fixture(scope="module")
def score(folder, data):
    """Score the small encoder on the small data, in one work directory."""

    def call(protocol="jaxalign", controls=("word_length",), workdir="work", **options):
        return jaxalign.score(
            small.BERT, data, protocol, controls=controls, workdir=folder / workdir, **options
        )

    return call


def marks(workdir):
    """When each artefact was finished."""
    return {path: path.stat().st_mtime_ns for path in workdir.glob("*/*/done.json")}


# What importing costs


@pytest.mark.slow
def test_importing_the_package_imports_nothing_heavy():
    heavy = ("jax", "flax", "pandas", "transformers", "matplotlib", "jaxalign.api")
    code = (
        "import sys, jaxalign\n"
        f"heavy = {heavy!r}\n"
        "assert not set(heavy) & set(sys.modules), set(heavy) & set(sys.modules)\n"
        "assert {'score', 'load_scores', 'list_models'} <= set(dir(jaxalign))\n"
        "jaxalign.list_models()\n"
        "assert not {'jax', 'flax', 'pandas'} & set(sys.modules)\n"
        "from jaxalign import score\n"
        "assert 'jax' in sys.modules and callable(score)\n"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr


def test_every_name_of_the_interface_is_there_and_typed():
    for name in jaxalign._INTERFACE:
        found = getattr(jaxalign, name)
        if inspect.isfunction(found):
            signature = inspect.signature(found)
            assert signature.return_annotation is not inspect.Signature.empty, name
            assert all(x.annotation is not x.empty for x in signature.parameters.values()), name
    marker = os.path.join(os.path.dirname(jaxalign.__file__), "py.typed")
    assert os.path.isfile(marker)


def test_lists():
    assert jaxalign.list_models() == tuple(models_table.MODELS)
    assert jaxalign.list_benchmarks() == tuple(benchmarks.BENCHMARKS)
    assert jaxalign.list_protocols() == tuple(protocols.PROTOCOLS)


# Scores of recordings


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["jaxalign", "brainscore-ridge"])
def test_score_is_that_of_its_own_arrays(score, data, protocol):
    """Activations and responses, brought together by hand, give every part of it again."""
    found = score(protocol)
    (folder,) = {
        path.parent.parent
        for path in (found.workdir / "extract").glob("*/*/zarr.json")
        if json.loads((path.parent.parent / "settings.json").read_text())["name"] == "bert"
        and json.loads((path.parent.parent / "settings.json").read_text())["settings"]["pooling"]
        == protocols.find(protocol).extraction.pooling
    }
    X, ids = layers_of(folder)
    dataset = datasets.find(str(data), None)
    responses, stimuli = dataset.responses, dataset.stimuli
    place = {x: i for i, x in enumerate(ids)}
    X = X[:, [place[x] for x in responses.stimulus_id]]
    passage = dict(zip(stimuli.stimulus_id, stimuli.passage, strict=True))
    expected = jaxalign.score_arrays(
        X,
        responses.values,
        protocol=protocol,
        groups=[passage[x] for x in responses.stimulus_id],
        subjects=responses.subject,
        targets=responses.roi if protocol == "jaxalign" else None,
        ceiling=None if protocol == "jaxalign" else np.nan,
    )
    assert found.folds_hash == expected.folds_hash and found.protocol == protocol
    for name in ("score", "raw", "raw_low", "raw_high", "ceiling", "ceiling_low", "ceiling_high"):
        close(getattr(found, name), getattr(expected, name), atol=1e-4)
    for name in ("per_layer", "per_fold", "per_target", "r2_per_target"):
        close(getattr(found, name), getattr(expected, name), atol=1e-4)
    np.testing.assert_array_equal(found.layers, expected.layers)
    assert (found.num_nan, found.benchmark) == (0, f"data-{protocol}")


def layers_of(folder):
    """Return activations [L m u] and ids of an artefact of the stage extract."""
    import tensorstore as ts

    opened = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(folder / "activations.zarr")},
    }
    values = np.asarray(ts.open(opened).result().read().result(), np.float64)
    return values, json.loads((folder / "stimulus_ids.json").read_text())


@pytest.mark.slow
def test_table_rows_and_what_a_notebook_shows(score):
    found = score()
    assert found.model == "bert" and list(found.controls) == ["word_length"]
    assert found.table.index.tolist() == ["bert", "word_length"]
    assert found.table.raw["word_length"] == found.controls["word_length"].raw
    assert set(found.rows.columns) == set(rows_lib.SCHEMA.names)
    own = found.rows[found.rows.model == "bert"]
    assert set(own.fingerprint) == {found.fingerprint} and set(own.layer) == {0, 1, 2, 3}
    for text in ("bert on data-jaxalign", f"{found.raw:.4f}", "word_length", str(found.workdir)):
        assert text in repr(found)
    assert {"score", "raw", "per_layer"} <= set(dir(found))
    with pytest.raises(AttributeError, match="no attribute 'skore'"):
        found.skore  # noqa: B018


@pytest.mark.slow
def test_what_was_scored_is_not_scored_again(score, capsys):
    first = score()
    before = marks(first.workdir)
    capsys.readouterr()
    again = score()
    assert again.raw == first.raw and again.fingerprint == first.fingerprint
    assert marks(first.workdir) == before
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_what_is_unfinished_is_made_again_alone(score, tmp_path, capsys):
    first = score(workdir=tmp_path / "whole")  # where no other test scores
    workdir = shutil.copytree(first.workdir, tmp_path / "killed")
    (workdir / "encode" / first.fingerprint / "done.json").unlink()
    assert set(jaxalign.load_scores(workdir).model) == {"word_length"}
    before = marks(workdir)
    capsys.readouterr()
    again = score(workdir=workdir)
    after = marks(workdir)
    assert {path.parent.name for path in set(after) - set(before)} == {first.fingerprint}
    assert all(after[path] == time for path, time in before.items())
    assert again.raw == first.raw
    assert "encode bert: done in" in capsys.readouterr().err


def test_default_work_directory_and_relative_paths(score, data, tmp_path, monkeypatch):
    shutil.copytree(score().workdir, tmp_path / "runs/python")
    monkeypatch.chdir(tmp_path)
    model = os.path.relpath(small.BERT)
    found = jaxalign.score(model, os.path.relpath(data), "jaxalign", controls=())
    assert found.workdir == tmp_path / "runs/python" and not found.controls
    assert found.fingerprint == score().fingerprint


def test_other_settings_share_what_they_read(score, tmp_path):
    first = score(workdir=tmp_path)
    second = score(workdir=tmp_path, settings={"encode.layers": [1, 2]}, controls=())
    assert first.fingerprint != second.fingerprint
    assert len(list((first.workdir / "extract").iterdir())) == 1
    close(second.per_layer, first.per_layer[1:3], atol=1e-6)
    assert set(second.layers.ravel()) <= {1, 2}


# Reading times and texts


@pytest.mark.slow
def test_reading_times(folder):
    data = small.write_reading(folder / "reading")
    options = {"settings": {"extract.context": "accumulate:restart"}}
    workdir = folder / "reading-work"
    found = jaxalign.score(small.LLAMA, data, "futrell2018-pearsonr", workdir=workdir, **options)
    assert (found.model, found.dataset) == ("llama", "reading")
    assert list(found.controls) == ["length"]
    own = found.rows[(found.rows.model == "llama") & (found.rows.offset == 0)]
    row = own[own.measure == "futrell2018-pearsonr"].iloc[0]
    assert found.raw == abs(row.r) and (found.raw_low, found.raw_high) == (row.ci_low, row.ci_high)
    assert np.isnan(found.ceiling) and np.isnan(found.score)
    length = found.controls["length"].raw
    table = pd.read_csv(data / "stimuli.csv").merge(pd.read_csv(data / "behavior.csv"))
    table = table[table.word_in_sentence > 1]
    letters = table.text.map(lambda word: sum(x.isalnum() for x in word))
    assert length == pytest.approx(abs(np.corrcoef(letters, table.reading_time_ms)[0, 1]), abs=1e-6)
    assert found.protocol == "futrell2018-pearsonr"
    options["settings"]["behavior.sentence_initial"] = True
    other = jaxalign.score(small.LLAMA, data, "futrell2018-pearsonr", workdir=workdir, **options)
    assert other.protocol == "futrell2018-pearsonr-own-reading" and other.raw != found.raw
    assert other.protocol in set(other.rows.measure) and found.protocol not in set(
        other.rows.measure
    )


@pytest.mark.slow
def test_text(folder):
    text = folder / "text.txt"
    text.write_text("The dog sat on a mat and saw red birds fly over old stone walls. " * 20)
    found = jaxalign.score(small.LLAMA, text, "wikitext2-nwp", controls=(), workdir=folder / "text")
    (row,) = found.rows.itertuples()
    assert found.score == found.raw == row.loss_nats > 0
    assert (found.dataset, found.benchmark) == ("text.txt", "text.txt-wikitext2-nwp")
    assert not found.controls
    assert found.protocol == row.protocol == "wikitext2-nwp"
    other = jaxalign.score(
        small.LLAMA,
        text,
        "wikitext2-nwp",
        controls=(),
        workdir=folder / "text",
        settings={"next_word.context": 32, "next_word.stride": 32},
    )
    assert set(other.rows.protocol) == {other.protocol} == {"wikitext2-nwp-own-reading"}
    np.testing.assert_equal((found.raw_low, found.raw_high), (row.loss_low, row.loss_high))


# What is refused


@pytest.mark.parametrize(
    "change,message",
    [
        ({"benchmark": "nowhere"}, "benchmark must be one of alice-jaxalign.*got 'nowhere'"),
        ({"protocol": None}, "protocol must be given for the data"),
        ({"protocol": "mine"}, "protocol must be one of jaxalign.*got 'mine'"),
        ({"protocol": "aw2024-average"}, "protocol must be of one data set, got 'aw2024-average'"),
        ({"protocol": "wikitext2-nwp"}, "protocol must be of kind encoding or reading_time for"),
        ({"benchmark": "wikitext2-test"}, "must be of kind next_word for wikitext2-test"),
        ({"benchmark": "alice-jaxalign", "data_root": ""}, "dataset alice lies in the data folder"),
        (
            {"benchmark": "demo", "protocol": "jaxalign"},
            "data set demo has no responses: nobody was recorded",
        ),
        ({"model": "gpt17"}, "model must be a name in the table"),
        ({"controls": ["words"]}, "encode.controls must be among.*got 'words'"),
        (
            {"settings": {"encode.nm_folds": 4}},
            "settings must be of this run, got 'encode.nm_folds': did you mean 'encode.num_folds'?",
        ),
        ({"settings": {"seed": "one"}}, "settings: seed must be of type int, got 'one'"),
        ({"settings": {"encode.num_folds": 2}}, "encode.num_folds must be"),
        ({"settings": {"encode.protocol": ""}}, "settings must leave encode.protocol alone"),
        ({"download": True}, "--download knows"),
    ],
)
def test_refusals(data, tmp_path, change, message, monkeypatch):
    monkeypatch.delenv("JAXALIGN_DATA", raising=False)
    given = {"model": small.BERT, "benchmark": data, "protocol": "jaxalign"} | change
    with refused(*message.split(".*")):
        jaxalign.score(**given, workdir=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_controls_that_reading_times_do_not_have(folder):
    data = small.write_reading(folder / "other-reading")
    with refused("controls must be () or ('untrained',) under futrell2018-pearsonr"):
        jaxalign.score(small.LLAMA, data, "futrell2018-pearsonr", controls=["shifted"])


# Tables of finished runs


def test_load_scores_of_artefacts(score, tmp_path):
    one = score(workdir=tmp_path)
    two = score(workdir=tmp_path, settings={"encode.layers": [1, 2]}, controls=())
    found = jaxalign.load_scores(one.workdir)
    assert set(found.fingerprint) == {*one.rows.fingerprint, two.fingerprint}
    for result in (one, two):
        own = found[found.fingerprint == result.fingerprint].reset_index(drop=True)
        expected = result.rows[result.rows.model == "bert"].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, expected, check_exact=True)


def test_load_scores_of_reports_and_several(score, tmp_path):
    one = score()
    report = tmp_path / "work/report"
    report.mkdir(parents=True)
    rows = one.rows.assign(fingerprint="other")
    rows_lib.write(report / "scores.parquet", rows.to_dict("records"))
    with refused(f"workdir {tmp_path / 'work'} must hold score rows", "found report"):
        jaxalign.load_scores(tmp_path / "work")
    run_dir.vouch(report, "", ["scores.parquet"])
    assert len(jaxalign.load_scores(tmp_path / "work")) == len(rows)
    both = jaxalign.load_scores([one.workdir, tmp_path / "work"])
    assert len(both) == len(jaxalign.load_scores(one.workdir)) + len(rows)
    assert len(jaxalign.load_scores([report / "scores.parquet"])) == len(rows)
    with refused("scores must be there once, but those of bert on data with fingerprint other"):
        jaxalign.load_scores([tmp_path / "work", report / "scores.parquet"])


def test_load_scores_refuses(tmp_path):
    with refused("workdirs must name at least one work directory, got none"):
        jaxalign.load_scores([])
    with refused("workdir must be a directory: there is none at", "nowhere"):
        jaxalign.load_scores(tmp_path / "nowhere")
    with refused(f"workdir {tmp_path} must hold score rows", "found nothing"):
        jaxalign.load_scores(tmp_path)
    (tmp_path / "scores.parquet").write_bytes(b"no table")
    with refused("scores.parquet must be a Parquet file of score rows"):
        jaxalign.load_scores(tmp_path / "scores.parquet")


# Reports


@pytest.mark.slow
def test_report_of_a_score(score, tmp_path):
    """Tables are those of the rows; what an earlier report has left is gone."""
    found = score()
    folder = tmp_path / "some/page"
    first = jaxalign.report(found, path=folder, title="Mine")
    assert first.page.read_text(encoding="utf-8").count("Mine") >= 1
    assert set(first.files) == {x.name for x in folder.iterdir()} - {"files.json"}
    rois = pd.read_csv(folder / "rois.csv")
    assert rois.roi.tolist() == first.tables["rois"].roi.tolist() == ["A", "B"]
    people = found.rows[(found.rows.model == "word_length") & (found.rows.subject != "group")]
    control = first.tables["controls"].set_index(["control", "roi"]).control_score
    for roi, own in people.groupby("roi"):
        assert control["word_length", roi] == pytest.approx(own.score.mean())
    whole = first.tables["alignment"].set_index("model")
    assert whole.raw["bert"] == found.raw and whole.control_of["word_length"] == "bert"
    assert found.rows.git_commit.iloc[0] in first.page.read_text(encoding="utf-8")
    for text in ("Mine", str(first.page), "rois"):
        assert text in repr(first)
    again = jaxalign.report(jaxalign.load_scores(folder / "scores.parquet"), path=folder)
    assert "alignment" not in again.tables and not (folder / "alignment.csv").exists()
    assert set(again.files) == {x.name for x in folder.iterdir()} - {"files.json"}


@pytest.mark.slow
def test_models_are_compared(score, tmp_path):
    """Two copies of a model, of two sizes; in a frame and as a file."""
    rows = score().rows
    own = rows[rows.control_of == ""]
    both = pd.concat([own.assign(model=x, fingerprint=x) for x in ("a", "b")])
    models = pd.DataFrame({"model": ["a", "b"], "num_parameters": [1e6, 2e6], "family": "f"})
    models.to_csv(tmp_path / "models.csv", index=False)
    known = [pages._properties(x) for x in (models, models.set_index("model"))]
    pd.testing.assert_frame_equal(*known)
    options = {"path": tmp_path / "page", "compare": {"num_resamples": 99}}
    found = jaxalign.report(both, models=tmp_path / "models.csv", **options).tables
    assert "num_parameters" in " ".join(found["findings"].predictor)
    read = found["properties"].set_index("model")
    pd.testing.assert_frame_equal(read, known[0], check_names=False)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"scores": []}, "scores must hold rows, got none"),
        ({"scores": "nowhere"}, "workdir must be a directory: there is none at 'nowhere'"),
        ({"scores": pd.DataFrame({"model": ["a"]})}, "scores must have the columns of"),
        ({"models": "no.csv"}, "models must be a frame or a CSV file: there is none at no.csv"),
        ({"models": pd.DataFrame({"model": ["bert"], "wit": [1]})}, "a property must be one of"),
        (
            {"models": pd.DataFrame({"model": ["bert", "bert"], "mmlu": [0.1, 0.2]})},
            "models must give mmlu of bert once, found it 2 times",
        ),
        (
            {"models": pd.DataFrame({"model": ["bert"], "tuned": [1], "base": ["other"]})},
            "base of bert must be a model of the table",
        ),
        ({"compare": {"paper": "aw2024"}}, "compare needs models"),
        (
            {"models": pd.DataFrame({"model": ["bert"], "mmlu": [0.1]}), "compare": {"sed": 1}},
            "compare must have keys among apart.*got 'sed'",
        ),
    ],
)
def test_report_refuses(score, tmp_path, change, message):
    given = {"scores": score()} | change
    with refused(*message.split(".*")):
        jaxalign.report(given.pop("scores"), path=tmp_path / "page", **given)
    assert not (tmp_path / "page").exists()


def test_report_refuses_rows_that_say_nothing(score, tmp_path):
    rows = score().rows
    path = tmp_path / "page"
    with refused("scores must be there once, but those of bert on data"):
        jaxalign.report([rows, score()], path=path)
    with refused("scores must hold those of a model, found controls alone"):
        jaxalign.report(rows[rows.control_of != ""], path=path)
    told = [rows.assign(instruction=x, fingerprint=x) for x in ("Read it.", "Look.")]
    with refused("instruction must be one that bert was given: ''", "'Look.', 'Read it.'"):
        jaxalign.report(told, path=path)
    path.write_text("")
    with refused("path must be a folder, but", "page is a file"):
        jaxalign.report(rows, path=path)


@pytest.mark.slow
def test_report_of_a_model_with_and_without_an_instruction(score, tmp_path):
    """The tables of regions are of one way, and the page says what is not in them."""
    rows = score().rows
    both = [rows, rows.assign(instruction="Read it.", fingerprint="other", score=0.0)]
    made = jaxalign.report(both, path=tmp_path / "page")
    alone = jaxalign.report(rows, path=tmp_path / "alone")
    pd.testing.assert_frame_equal(made.tables["rois"], alone.tables["rois"])
    said = f"with no instruction and with all of their units: {len(rows)} of {2 * len(rows)} scores"
    assert said in made.summary and "several ways" not in alone.summary


# Real models on real data


@pytest.mark.slow
def test_minilm_on_alice(data_root, tmp_path):
    """The same as configs/score.py finds."""
    found = jaxalign.score(
        "all-MiniLM-L6-v2", "alice-jaxalign", controls=(), workdir=tmp_path, data_root=data_root
    )
    group = found.rows[(found.rows.subject == "group") & (found.rows.roi == "LATL")]
    group = group.set_index("layer").score
    assert group.idxmax() == 3 and group.max() == pytest.approx(0.596, abs=2e-3)
    assert 0.1 < found.raw < found.ceiling
    other = jaxalign.score(
        "all-MiniLM-L6-v2", "alice", "himalaya", controls=(), workdir=tmp_path, data_root=data_root
    )
    assert other.benchmark == "alice-himalaya"
    assert len(list((tmp_path / "extract").iterdir())) == 1


@pytest.mark.slow
def test_minilm_on_pereira_mean(data_root, tmp_path):
    found = jaxalign.score(
        "all-MiniLM-L6-v2",
        "Pereira2018.mean-jaxalign",
        controls=("word_length", "length"),
        workdir=tmp_path,
        data_root=data_root,
    )
    assert 0.2 < found.raw < 0.6 and len(found.per_layer) == 7
    # Least squares on words and characters in these folds, by NumPy. configs/pereira_mean.py, whose
    # folds are of drawn topics, has .42.
    assert found.controls["length"].raw == pytest.approx(0.337, abs=0.02)


@pytest.mark.slow
def test_small_model_on_natural_stories(data_root, tmp_path):
    found = jaxalign.score(
        "stories260K",
        "NaturalStories-pearsonr",
        workdir=tmp_path,
        data_root=data_root,
        settings={"extract.context": "accumulate:restart"},
    )
    assert found.raw == pytest.approx(0.375, abs=0.01)
    assert found.controls["gpt3-davinci"].raw == pytest.approx(0.2070, abs=5e-5)
