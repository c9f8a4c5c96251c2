"""What is known of models, from all sources, in one table; and from the command line."""

import pathlib

import command
import numpy as np
import pandas as pd
import pytest
import reading
import tiny
from refusals import refused

from jaxalign.io import rows as rows_lib
from jaxalign.models.table import MODELS
from jaxalign.stages import Job, behavior, extract, next_word, properties
from jaxalign.stages.artefacts import Properties

HARNESS = tiny.GOLDEN / "harness"


@pytest.fixture
def job(tmp_path, mesh):
    return Job(workdir=tmp_path / "work", data_root=None, dataset=None, mesh=mesh, seed=0)


def plan(job, *sources, upstream=None, rename=()):
    settings = properties.Config(sources=sources, rename=rename)
    (step,) = properties.plan(settings, job, upstream or {})
    return step


def make(job, *sources, **options):
    """Return the wide table by pandas, and the rows."""
    (artefact,) = tiny.make([plan(job, *sources, **options)])
    table = pd.read_csv(artefact.path / Properties.TABLE, index_col="model")
    return table, rows_lib.read(artefact.path / Properties.ROWS)


def write(folder, text, name="models.csv"):
    (folder / name).write_text(text)
    return f"csv:{folder / name}"


def test_the_zoo(job):
    table, rows = make(job, "zoo")
    assert set(table.columns) == {"family", "num_parameters", "num_layers", "width"}
    counted = {name: row.num_parameters for name, row in MODELS.items() if row.num_parameters}
    assert table.num_parameters.dropna().to_dict() == counted
    # By the papers of these models: LLaMA, GPT-2, T5 v1.1 (both stacks).
    assert tuple(table.loc["llama-13b", ["family", "num_layers", "width"]]) == ("LLaMA", 40, 5120)
    assert tuple(table.loc["gpt2-xl", ["family", "num_layers", "width"]]) == ("GPT2", 48, 1600)
    assert tuple(table.loc["flan-t5-xl", ["family", "num_layers", "width"]]) == ("T5", 48, 2048)
    assert not {"tuned", "base"} & set(rows.property)


@pytest.mark.slow
def test_published_sizes_override_those_of_checkpoints(job):
    table, rows = make(job, "zoo", "published:aw2024")
    source = rows.set_index(["model", "property"]).source
    assert table.num_parameters["t5-small"] == 77e6 and table.width["t5-small"] == 512
    assert source["t5-small", "num_parameters"] == "published:aw2024; overrides 76961152 (zoo)"
    assert source["t5-small", "num_layers"] == "published:aw2024"  # which says the same
    other, _ = make(job, "published:aw2024", "zoo")
    assert other.num_parameters["t5-small"] == 76961152
    assert list(rows.columns) == rows_lib.PROPERTIES.names
    assert (rows.schema_version == rows_lib.SCHEMA_VERSION).all()


def test_the_zoo_and_the_paper_mean_the_same_models(job):
    """Layers that are published are those of the table, but for families named differently."""
    zoo, _ = make(job, "zoo")
    paper, _ = make(job, "published:aw2024")
    assert set(paper.index) <= set(zoo.index)
    np.testing.assert_array_equal(zoo.num_layers[paper.index], paper.num_layers)
    assert (zoo.family[paper.index] == paper.family).all()


def test_harness_results_are_joined_by_name(job, tmp_path):
    sizes = write(tmp_path, "model,family,tuned,base\nllama,tiny,0,\nqwen2,tiny,1,llama\n")
    table, _ = make(job, f"lm_eval:{HARNESS}", sizes)
    np.testing.assert_allclose(table.mmlu[["llama", "qwen2"]], [4 / 15, 1 / 3])
    assert table.base["qwen2"] == "llama" and list(table.tuned) == [0, 1]


@pytest.mark.slow
def test_repositories_have_the_names_of_the_zoo(job, tmp_path):
    text = (HARNESS / "llama/results_2026-01-01T00-00-00.000000.json").read_text()
    path = tmp_path / "results_flan.json"
    path.write_text(text.replace('"./llama"', '"google/flan-t5-small"'))
    table, _ = make(job, f"lm_eval:{path}")
    assert list(table.index) == ["flan-t5-small"]
    table, _ = make(job, f"lm_eval:{path}", "zoo", rename=("flan-t5-small=other",))
    assert table.mmlu["other"] == pytest.approx(4 / 15) and table.mmlu.notna().sum() == 1


@pytest.fixture
def losses(tmp_path, mesh):
    """A run that has read a text with a network, trained and not; its artefacts."""
    text = tmp_path / "text.txt"
    text.write_text(" ".join(np.random.default_rng(0).choice(tiny.WORDS, 60)))
    other = Job(workdir=tmp_path / "read", data_root=None, dataset=None, mesh=mesh, seed=0)
    settings = next_word.Config(
        models=(str(tiny.GOLDEN / "llama"),),
        text=str(text),
        context=24,
        stride=12,
        block_tokens=32,
        batch_tokens=100,
    )
    return other, tiny.make(next_word.plan(settings, other, {}))


@pytest.mark.slow
def test_losses_of_runs(job, losses):
    """Of trained networks alone; the same as this run's own and as another's."""
    other, artefacts = losses
    scores = pd.read_csv(other.workdir / "next_word/scores.csv", keep_default_na=False)
    expected = scores[scores.control_of == ""].set_index("model").loss_nats
    assert len(scores) == 2 and list(expected.index) == ["llama"]
    table, rows = make(job, f"run:{other.workdir}")
    np.testing.assert_allclose(table.nwp_loss[expected.index], expected, rtol=1e-12)
    assert "next_word, text" in rows.source[0] and "context 24, stride 12" in rows.source[0]
    own, _ = make(other, "run", upstream={"next_word": artefacts})
    pd.testing.assert_frame_equal(own, table)


@pytest.mark.slow
def test_reading_times_of_runs(job, tmp_path, mesh):
    """The absolute correlation of the run's own data set, as its table has it."""
    root = tmp_path / "reading"
    reading.write(root, np.random.default_rng(0))
    other = Job(
        workdir=tmp_path / "behaved",
        data_root=None,
        dataset=reading.dataset(root),
        mesh=mesh,
        seed=0,
    )
    tiny.make(behavior.plan(behavior.Config(), other, {}))
    scores = pd.read_csv(other.workdir / "behavior/scores.csv", keep_default_na=False)
    expected = scores[
        (scores.measure == "futrell2018-pearsonr")
        & (scores.offset == 0)
        & (scores.context != "control")
    ]
    assert len(expected) == 1
    table, rows = make(job, f"run:{other.workdir}")
    assert list(table.index) == list(expected.model)
    assert table.behavior.iloc[0] == pytest.approx(float(expected.value.iloc[0]), rel=1e-12)
    assert "behavior, reading, alignment" in rows.source[0]


def test_layers_of_runs(job, make_job, sentences):
    other = make_job(sentences, workdir="other")
    # What is finished counts by its settings; the activations are not looked at.
    for step in extract.plan(tiny.bert(context="none", static_embedding=True), other, {}):
        step.artefact.start()
        step.artefact.finish()
    table, _ = make(job, f"run:{other.workdir}")
    assert table.to_dict("index") == {"bert": {"num_layers": 3, "width": 32}}


def test_fingerprints_follow_the_content(job, tmp_path):
    source = write(tmp_path, "model,mmlu\nnet,.5\n")
    first = plan(job, source).artefact.fingerprint
    assert plan(job, source, "zoo").artefact.fingerprint != first
    assert plan(job, source, rename=("a=b",)).artefact.fingerprint != first
    write(tmp_path, "model,mmlu\nnet,.5\n\n")
    assert plan(job, source).artefact.fingerprint == first
    write(tmp_path, "model,mmlu\nnet,.6\n")
    assert plan(job, source).artefact.fingerprint != first


@pytest.mark.parametrize(
    "sources, parts",
    [
        ((), ["properties.sources must name at least one source"]),
        (("zoo", "zoo"), ["properties.sources must differ"]),
        (("models.csv",), ["must be zoo, published:NAME, lm_eval:PATH, run", "got 'models.csv'"]),
        (("csv:",), ["got 'csv:'"]),
        (("zoo:all",), ["got 'zoo:all'"]),
        (("run:",), ["got 'run:'"]),
        (("published:aw2025",), ["published figures must be one of aw2024", "got 'aw2025'"]),
        (("csv:none.csv",), ["must name files that are there: 'none.csv' is not"]),
        (("lm_eval:none",), ["must name files that are there: 'none' is not"]),
        (("run:none",), ["none must be the workdir of a run: there is no such folder"]),
        (("run",), ["properties.sources has 'run', so the run must have one of extract"]),
    ],
)
def test_bad_sources_are_refused_before_the_run(job, sources, parts):
    with refused(*parts):
        plan(job, *sources)


def test_tables_that_do_not_hold_together_are_refused_before_the_run(job, tmp_path):
    with refused("base of net must be a model of the table, but none is called 'gone'"):
        plan(job, write(tmp_path, "model,tuned,base\nnet,1,gone\n"))
    with refused("properties.rename", "must give width of llama-7b once, found it 2 times"):
        source = write(tmp_path, "model,width\nllama-7b,4\nother,8\n")
        plan(job, source, rename=("other=llama-7b",))
    with refused("properties.rename must hold NAME=OTHER, got 'a'"):
        plan(job, "zoo", rename=("a",))


def test_runs_without_results_are_refused(job, tmp_path):
    (tmp_path / "empty").mkdir()
    with refused("empty must hold what one of the stages extract", "found nothing"):
        plan(job, f"run:{tmp_path / 'empty'}")
    job.workdir.mkdir()
    with refused("properties.sources must call this run itself 'run'"):
        plan(job, f"run:{job.workdir}")


CONFIG = """
from jaxalign import config
from jaxalign.stages import collect, properties


def get_config():
    return config.pack(
        config.Common(),
        collect=collect.Config(published=("aw2024",)),
        properties=properties.Config(sources=("published:aw2024", {harness!r}, {own!r})),
    )
"""


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    """Harness results of two local models become properties beside published ones."""
    own = write(tmp_path, "model,family,tuned,base\nllama,tiny,0,\nqwen2,tiny,1,llama\n")
    path = tmp_path / "config.py"
    path.write_text(CONFIG.format(harness=f"lm_eval:{HARNESS}", own=own))
    found = command.call(path, tmp_path / "work")
    assert found.returncode == 0, found.stderr
    (written,) = (tmp_path / "work/properties").glob("*/properties.csv")
    table = pd.read_csv(written, index_col="model")
    assert len(table) == 35
    np.testing.assert_allclose(table.mmlu[["llama", "qwen2"]], [4 / 15, 1 / 3])
    assert table["task:mmlu_anatomy:acc"].notna().sum() == 2
    assert table.mmlu["vicuna-33b"] == 0.59
    (rows,) = (tmp_path / "work/collect").glob("*/rows.parquet")
    assert len(rows_lib.read(rows)) == 132
    again = command.call(path, tmp_path / "work")
    assert "Nothing to compute: all 2 artefacts are up to date" in again.stderr
    pathlib.Path(own.removeprefix("csv:")).write_text("model,family\nllama,\n,b\n")
    refusal = command.call(path, tmp_path / "work")
    assert refusal.returncode == 2
    assert refusal.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "models.csv, line 3: a model must have a name" in refusal.stderr
