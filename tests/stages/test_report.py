"""The report of stages together: instructions and brains on the page, trackers beside it."""

import base64
import dataclasses
import html
import importlib.util
import re

import numpy as np
import pandas as pd
import pytest
import tiny
import trainings
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.formats import coordinates
from jaxalign.data.schema import Responses
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import Job, collect, encode, properties, report, simulate_instructions
from jaxalign.stages.artefacts import Tuning

SIMULATION = simulate_instructions.Config(
    rois=("early", "noise"),
    planted=("IU1", ""),
    beside=("", ""),
    first=("IC",),
    second=("IU1",),
    num_subjects=3,
    num_voxels=10,
    num_samples=120,
    num_units=4,
    alphas=(10.0,),
    num_folds=3,
    partition_draws=0,
    partition_rounds=0,
)
ENCODING = encode.Config(
    alphas=(1.0, 100.0), num_folds=3, groups="passage", controls=("position",), layers=(0, 1)
)


@pytest.fixture(scope="module")
def simulation(tmp_path_factory, mesh):
    job = Job(
        workdir=tmp_path_factory.mktemp("sim"), data_root=None, dataset=None, mesh=mesh, seed=0
    )
    return job, tiny.make(simulate_instructions.plan(SIMULATION, job, {}))


def made(config, job, upstream):
    return tiny.make(report.plan(config, job, upstream))[0]


def encoded(folder, mesh, space):
    """Encode the small sentences, whose responses lie somewhere."""
    rng = np.random.default_rng(0)
    tiny.write_sentences(folder / "data", rng)
    path = folder / "data/responses.npz"
    responses = Responses.load(path)
    xyz = rng.uniform(-50, 50, (len(responses.target), 3))
    path.write_bytes(dataclasses.replace(responses, coordinates=xyz, space=space).to_bytes())
    job = Job(
        workdir=folder / "work",
        data_root=None,
        dataset=datasets.find(str(folder / "data"), None),
        mesh=mesh,
        seed=0,
    )
    _, artefacts = tiny.run(job, tiny.bert(untrained_seed=-1), ENCODING)
    return job, artefacts


@pytest.fixture(scope="module")
def placed(tmp_path_factory, mesh):
    return encoded(tmp_path_factory.mktemp("placed"), mesh, coordinates.MNI)


def section(folder, title):
    """Return what is under a heading of the page."""
    page = (folder / "index.html").read_text()
    found = re.search(rf"<h2>{title}</h2>(.*?)</section>", page, re.DOTALL)
    return found[1] if found else ""


@pytest.mark.slow
def test_a_simulation_alone_says_that_it_is_one(simulation):
    job, artefacts = simulation
    folder = made(report.Config(title="Asked"), job, {"instructions": artefacts}).path
    text = section(folder, "Instructions")
    assert re.search(r"<p>(.*?)</p>", text)[1].startswith("This is a SIMULATION: no model was")
    charts = re.findall(r"<h3>(.*?)</h3>\n<p>(.*?)</p>", text)
    # The map, groups of concepts, the shares, bars and circles of two measures.
    assert len(charts) == 7
    assert all(alt.startswith("This is a SIMULATION") for _, alt in charts)
    assert "early IU1 (ahead by" in charts[0][1]
    won = pd.read_csv(folder / "instruction_winners.csv").set_index("roi")
    assert won.winner_label["early"] == "IU1" and won.is_clear["early"]
    for name in ("map", "winners", "shares", "partition"):
        assert (folder / f"instruction_{name}.tex").read_text().startswith("\\begin")
    assert len(list(folder.glob("venn_*.svg"))) == 2
    assert len(rows_lib.read(folder / "scores.parquet")) == 0


def collected(folder, job, simulation, *, change):
    """Give the simulation's scores as those of another run, which asked a model."""
    rows = change(rows_lib.read(simulation[1][0].path / "rows.parquet"))
    (folder / "report").mkdir(parents=True)
    rows_lib.write(folder / "report/scores.parquet", rows.to_dict("records"))
    run_dir.vouch(folder / "report", "", ["scores.parquet"])
    return tiny.make(collect.plan(collect.Config(runs=(str(folder),)), job, {}))


@pytest.mark.slow
def test_models_that_were_asked_stand_beside_the_simulation(tmp_path, mesh, simulation):
    own = "Count the words."
    job = Job(workdir=tmp_path / "work", data_root=None, dataset=None, mesh=mesh, seed=0)

    def change(rows):
        texts = dict.fromkeys(rows.instruction)
        first, second = list(texts)[:2]
        rows = rows[rows.instruction.isin([first, second])].assign(dataset="toy", model="net")
        return rows.assign(instruction=rows.instruction.replace({second: own}))

    rows = collected(tmp_path / "other", job, simulation, change=change)
    upstream = {"collect": rows, "instructions": simulation[1]}
    folder = made(report.Config(instruction=own), job, upstream).path
    paragraphs = re.findall(r"<p>(.*?)</p>", section(folder, "Instructions"))
    assert paragraphs[0].endswith("net on toy 2. Layers are chosen inside the training data.")
    assert paragraphs[1].startswith("This is a SIMULATION")
    texts = f"Instructions: IU1: 'Describe the most dominant color in the image.'; P1: '{own}'."
    assert texts in html.unescape(section(folder, "Instructions"))
    charts = re.findall(r"<h3>(.*?)</h3>\n<p>(.*?)</p>", section(folder, "Instructions"))
    assert [alt.startswith("This is a SIMULATION") for _, alt in charts] == [False] + [True] * 7
    won = pd.read_csv(folder / "instruction_winners.csv").set_index(["dataset", "roi"])
    assert won.loc[("toy", "early"), ["winner_label", "second_label"]].tolist() == ["IU1", "P1"]
    alone = pd.read_csv(folder / "instruction_map.csv")
    alone = alone[alone.roi == "early"].pivot(index="dataset", columns="label", values="score")
    assert alone.loc["toy", "IU1"] == alone.loc["simulated-instructions", "IU1"]
    # The other tables are of the one instruction that was picked.
    assert pd.read_csv(folder / "rois.csv").model.tolist() == ["net", "net"]


@pytest.mark.slow
def test_one_instruction_alone_makes_no_map(tmp_path, mesh, simulation):
    job = Job(workdir=tmp_path / "work", data_root=None, dataset=None, mesh=mesh, seed=0)
    first = lambda rows: rows[rows.instruction == rows.instruction.iloc[0]]
    rows = collected(tmp_path / "other", job, simulation, change=first)
    folder = made(report.Config(), job, {"collect": rows}).path
    assert section(folder, "Instructions") == ""
    assert not (folder / "instruction_map.csv").exists()


@pytest.mark.slow
def test_what_is_not_compared_is_said(tmp_path, mesh, simulation):
    job = Job(workdir=tmp_path / "work", data_root=None, dataset=None, mesh=mesh, seed=0)
    first = simulation[1][0].settings["texts"]["IC"]

    def change(rows):
        return rows.assign(context=rows.context.where(rows.instruction != first, "window:3"))

    rows = collected(tmp_path / "other", job, simulation, change=change)
    folder = made(report.Config(instruction=first), job, {"collect": rows}).path
    said = "are not compared, as their scores differ in context too."
    assert said in section(folder, "Instructions")
    assert len(pd.read_csv(folder / "instruction_map.csv")) == 0
    assert pd.read_csv(folder / "rois.csv").model.tolist() == ["simulated"] * 2


@pytest.mark.slow
def test_brains_are_drawn_and_simulated_rows_stay_out_of_the_scores(simulation, placed):
    pytest.importorskip("nilearn", reason="nilearn is not installed: extra `brain`")
    job, artefacts = placed
    upstream = {"encode": artefacts, "instructions": simulation[1]}
    folder = made(report.Config(), job, upstream).path
    assert set(pd.read_csv(folder / "scores.csv").model) == {"bert", "position"}
    assert "simulated" not in (folder / "rois.csv").read_text()
    assert "SIMULATION" in section(folder, "Instructions")
    text = section(folder, "Brain views")
    [(alt, data)] = re.findall(r'<img alt="(.*?)" src="data:image/svg\+xml;base64,(.*?)">', text)
    assert "of bert for 12 targets of 3 subjects on" in alt
    assert b"<svg" in base64.b64decode(data)


@pytest.mark.slow
@pytest.mark.parametrize("space", ["Talairach", ""])
def test_what_is_not_drawn_has_a_reason_or_no_place(tmp_path, mesh, space):
    if space:
        job, artefacts = encoded(tmp_path, mesh, space)
    else:
        tiny.write_sentences(tmp_path / "data", np.random.default_rng(0))
        dataset = datasets.find(str(tmp_path / "data"), None)
        job = Job(workdir=tmp_path / "w", data_root=None, dataset=dataset, mesh=mesh, seed=0)
        _, artefacts = tiny.run(job, tiny.bert(untrained_seed=-1), ENCODING)
    text = section(made(report.Config(), job, {"encode": artefacts}).path, "Brain views")
    assert "<img" not in text
    assert ("Talairach space; a glass brain is drawn for MNI152 alone" in text) == bool(space)
    assert (text == "") == (not space)


def test_figures_of_a_paper_must_be_there(tmp_path, mesh, simulation):
    job = Job(workdir=tmp_path / "work", data_root=None, dataset=None, mesh=mesh, seed=0)
    known = properties.plan(properties.Config(sources=("published:aw2024",)), job, {})
    other = collect.plan(collect.Config(published=("oota2025-fig2",)), job, {})
    upstream = {"properties": [x.artefact for x in known]}
    with refused("report.paper needs the stage properties", "'aw2024'"):
        report.plan(report.Config(paper="aw2024"), job, {"instructions": simulation[1]})
    for steps in ([], other):
        given = upstream | {"collect": [x.artefact for x in steps], "instructions": simulation[1]}
        with refused("report.paper needs the figures of 'aw2024'", "collect.published"):
            report.plan(report.Config(paper="aw2024"), job, given)
    upstream |= {"collect": [x.artefact for x in other]}
    assert len(report.plan(report.Config(paper="oota2025"), job, upstream)) == 1


def test_a_tracker_must_be_known(simulation):
    job, artefacts = simulation
    with refused("report.track", "mlflow, wandb", "'comet'"):
        report.plan(report.Config(track="comet"), job, {"instructions": artefacts})
    with refused("encode, collect or instructions"):
        report.plan(report.Config(), job, {})


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
@pytest.mark.parametrize("works", [True, False])
def test_a_report_is_tracked(placed, tmp_path, monkeypatch, works):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", str(works).lower())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    job, artefacts = placed
    config = report.Config(track="mlflow", title=f"Tracked {works}")
    done = made(config, job, {"encode": artefacts})
    facts = done.facts()
    assert (done.path / "index.html").exists() and facts["tracked"] == works
    assert (facts["track_problem"] == "") == works
    if works:
        import mlflow

        client = mlflow.MlflowClient()
        [run] = client.search_runs([client.get_experiment_by_name("jaxalign").experiment_id])
        assert run.info.run_name == config.title and run.data.metrics
        assert np.isfinite(list(run.data.metrics.values())).all()
        files = {x.path for x in client.list_artifacts(run.info.run_id, "report")}
        assert {"report/index.html", "report/scores.csv"} <= files


def test_models_along_trainings_are_found_by_the_tables_of_these(tmp_path):
    rows, tuned, _ = trainings.planted()
    sources = []
    for name, part in tuned.groupby(["arm", "training_seed"], sort=False):
        artefact = Artefact(
            workdir=tmp_path, stage="tune", kind=Tuning.kind, name=str(name), settings={"of": name}
        )
        artefact.path.mkdir(parents=True)
        rows_lib.write_table(artefact.path / Tuning.MODELS, part)
        sources.append(Tuning(artefact))
    found = report._along(rows, sources, None)
    assert found.models == set(tuned.model) and len(found.points) == 9
    assert report._along(rows, [], None) is None
