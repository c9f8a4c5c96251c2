"""Score rows of other runs and of papers, together in one file."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from refusals import refused

from jaxalign import config
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.literature import published
from jaxalign.stages import Job, collect, report
from jaxalign.stages.artefacts import CollectedScores


@pytest.fixture
def job(tmp_path, mesh):
    return Job(workdir=tmp_path / "work", data_root=None, dataset=None, mesh=mesh, seed=0)


def plan(job, **settings):
    (step,) = collect.plan(collect.Config(**settings), job, {})
    return step


def make(job, **settings):
    (artefact,) = tiny.make([plan(job, **settings)])
    return rows_lib.read(artefact.path / CollectedScores.ROWS)


def write(folder, rows, *, name="scores.parquet", done=True):
    """Write rows as a stage does."""
    folder.mkdir(parents=True)
    rows_lib.write(folder / name, rows.to_dict("records"))
    if done:
        run_dir.vouch(folder, folder.name, [name])


@pytest.fixture
def scored():
    """Rows that are not those of any paper."""
    return published.score_rows("aw2024").assign(protocol="mine")


def test_published_rows_are_as_published(job):
    rows = make(job, published=("oota2025-fig2", "aw2024"))
    expected = [published.score_rows(x) for x in ("oota2025-fig2", "aw2024")]
    pd.testing.assert_frame_equal(rows, pd.concat(expected, ignore_index=True))


def test_rows_of_another_run_stand_beside(job, tmp_path, scored):
    write(tmp_path / "other/report", scored)
    # What the report was made of is not read again.
    write(tmp_path / "other/encode/0123", scored, name="rows.parquet")
    rows = make(job, published=("aw2024",), runs=(str(tmp_path / "other"),))
    assert rows.groupby("protocol").size().to_dict() == {"mine": 132, "published:aw2024": 132}
    own = rows[rows.protocol == "mine"].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, scored)


def test_a_run_without_a_report(job, tmp_path, scored):
    """The rows of all that encode has finished, and of nothing else."""
    half = scored.model.str.contains("flan")
    for i, own in enumerate((scored[half], scored[~half])):
        write(tmp_path / f"other/encode/{i}", own, name="rows.parquet")
    write(tmp_path / "other/encode/2", scored, name="rows.parquet", done=False)
    rows = make(job, runs=(str(tmp_path / "other"),))
    expected = pd.concat([scored[half], scored[~half]], ignore_index=True)
    pd.testing.assert_frame_equal(rows, expected)


def test_fingerprints_follow_the_rows(job, tmp_path, scored):
    write(tmp_path / "other/report", scored)
    first = plan(job, runs=(str(tmp_path / "other"),)).artefact.fingerprint
    (tmp_path / "other").rename(tmp_path / "moved")
    moved = str(tmp_path / "moved")
    assert plan(job, runs=(moved,)).artefact.fingerprint == first
    assert plan(job, runs=(moved,), published=("aw2024",)).artefact.fingerprint != first
    changed = scored.assign(score=scored.score + 0.001)
    rows_lib.write(tmp_path / "moved/report/scores.parquet", changed.to_dict("records"))
    with refused("moved/report/scores.parquet is not what its run wrote"):
        plan(job, runs=(moved,))
    run_dir.vouch(tmp_path / "moved/report", "", ["scores.parquet"])
    assert plan(job, runs=(moved,)).artefact.fingerprint != first


def test_a_score_that_is_there_twice_is_refused(job, tmp_path, scored):
    write(tmp_path / "a/report", scored)
    write(tmp_path / "b/encode/0", scored[scored.model == "t5-base"], name="rows.parquet")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    with refused(
        "collect must find every score once, found 2 of dataset pereira2018, model t5-base, layer "
        "-1, subject all, roi language, protocol mine, metric "
        f"pearson_r: in {a} and in {b}",
    ):
        plan(job, runs=(a, b))


def test_scores_of_several_instructions_are_several(job, tmp_path, scored):
    write(tmp_path / "a/report", scored)
    write(tmp_path / "b/report", scored.assign(instruction="How many?"))
    assert len(make(job, runs=(str(tmp_path / "a"), str(tmp_path / "b")))) == 264


def test_protocols_are_named_where_a_model_has_several():
    named = [
        ("a", "", "first"),
        ("a", "", "second"),
        ("length", "a", "first"),
        ("length", "a", "second"),
        ("b", "", "first"),
        ("length", "b", "first"),
    ]
    rows = pd.DataFrame(named, columns=["model", "control_of", "protocol"]).assign(dataset="d")
    found = collect._with_protocols(rows)
    assert found.model.tolist() == ["a, first", "a, second", "length", "length", "b", "length"]
    assert found.control_of.tolist() == ["", "", "a, first", "a, second", "", "b"]


def test_folders_without_rows_are_refused(job, tmp_path, scored):
    with refused("collect.runs must be workdirs: there is no folder", "nowhere"):
        plan(job, runs=(str(tmp_path / "nowhere"),))
    write(tmp_path / "other/report", scored, done=False)
    with refused("collect.runs", "other must hold score rows: neither report/scores.parquet nor"):
        plan(job, runs=(str(tmp_path / "other"),))
    job.workdir.mkdir()
    with refused("collect.runs must be other runs", "is this one"):
        plan(job, runs=(str(job.workdir),))


def test_rows_of_an_older_schema_are_refused(job, tmp_path, scored):
    write(tmp_path / "old/report", scored)
    path = tmp_path / "old/report/scores.parquet"
    table = pa.Table.from_pandas(scored.drop(columns=["instruction", "num_units"]))
    pq.write_table(table.replace_schema_metadata({"jaxalign.schema_version": "2"}), path)
    run_dir.vouch(path.parent, "", [path.name])
    with refused("scores.parquet: schema version must be 5, found 2; run it again"):
        plan(job, runs=(str(tmp_path / "old"),))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "collect must have something in published or runs, got neither"),
        ({"published": ("aw2025",)}, "collect.published must be among aw2024"),
        ({"published": ("aw2024", "aw2024")}, "collect.published must differ"),
        ({"runs": ("a", "a")}, "collect.runs must differ"),
    ],
)
def test_bad_settings(settings, message):
    with refused(message):
        collect.Config(**settings)


def test_a_report_of_collected_scores_needs_no_data_set():
    found = collect.Config(published=("aw2024",))
    _, stages = config.unpack(config.pack(config.Common(), collect=found, report=report.Config()))
    assert list(stages) == ["collect", "report"]
    with refused("dataset must be given: report read one"):
        config.unpack(config.pack(config.Common(), report=report.Config()))


def test_facts(job):
    (artefact,) = tiny.make([plan(job, published=("aw2024",))])
    facts = json.loads((artefact.path / run_dir.DONE).read_text())
    assert (facts["num_rows"], facts["num_models"]) == (132, 33)
