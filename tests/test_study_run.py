"""The study of Oota et al. (2025) from files of NSD to its page, with planted answers."""

import logging
import pathlib
import runpy
from typing import NamedTuple

import natural_scenes as scenes_lib
import numpy as np
import pandas as pd
import pytest
from refusals import refused
from sklearn.model_selection import KFold

from jaxalign import config, runner
from jaxalign.io import arrays
from jaxalign.stages.artefacts import Activations, Comparison, among
from jaxalign.stages.encode.instructed import Joint

BUILD = runpy.run_path(str(pathlib.Path(__file__).resolve().parents[1] / "configs/oota2025.py"))[
    "get_config"
]
PLANTED = {"pRF-Visual": "IU1", "FLOC-BODIES": "IC", "FLOC-FACES": "VQ2"}
LAYER = 2  # that voxels are made of


class Study(NamedTuple):
    """A finished run, what was planted, and what it said."""

    plan: runner.Plan
    signal: np.ndarray
    features: dict  # of each code
    log: str

    def table(self, name):
        path = self.plan.stages["report"][0].artefact.path / f"{name}.csv"
        return pd.read_csv(path, keep_default_na=False, na_values=["", "nan"])

    @property
    def compared(self):
        [found] = among(Comparison, [x.artefact for x in self.plan.stages["encode"]])
        return found


def settings(model, subject, protocol, **changes):
    packed = BUILD(f"{model},{subject},{protocol}")
    small = {
        "options": [*packed.options, "num_sessions=1"],
        "extract.answer_tokens": 4,
        "extract.untrained_seed": -1,
        "encode.swaps": 999,
        "encode.controls": ["instruction_alone"],
    }
    return config.override(packed, small | changes)


def by_code(stores):
    codes = {text: code for code, text in scenes_lib.instructions().items()}
    asked = (x for x in stores if x.reading["instruction"])  # not the tower by itself
    return {codes[x.reading["instruction"]]: x for x in asked}


def study(root, scenes, packed, subject):
    """Let the model answer, make voxels of what it said, and run the command."""
    common, stages = config.unpack(packed)
    places = {"workdir": root / subject, "data_root": root}
    asked = runner.plan(config.pack(common, extract=stages["extract"]), **places)
    runner.run(asked)
    stores = by_code(among(Activations, [x.artefact for x in asked.stages["extract"]]))
    features = {code: x.read_layer(LAYER) for code, x in stores.items()}
    signal = scenes.plant(subject, features, stores["IC"].stimulus_ids())
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("absl").addHandler(handler)
    try:
        plan = runner.plan(packed, **places)
        runner.run(plan)
    finally:
        logging.getLogger("absl").removeHandler(handler)
    return Study(plan, signal, features, "\n".join(said))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def written(root):
    model = scenes_lib.write_model(root / "llava")
    return model, scenes_lib.Scenes(root, np.random.default_rng(0))


@pytest.fixture(scope="module")
def authors(root, written):
    """The first person under the authors' protocol."""
    model, scenes = written
    packed = settings(model, "subj01", "oota2025")
    return study(root, scenes, packed, "subj01")


@pytest.fixture(scope="module")
def ours(root, written):
    """The second person under this project's."""
    model, scenes = written
    changes = {
        "encode.partition_draws": 0,
        "encode.partition_rounds": 0,
        "extract.instructions": ["oota2025:IC", "oota2025:IU2", "oota2025:VQ2", "oota2025:IU1"],
        "encode.layers": [LAYER],
    }
    packed = settings(model, "subj02", "jaxalign", **changes)
    return study(root, scenes, packed, "subj02")


@pytest.mark.slow
@pytest.mark.parametrize("run", ["authors", "ours"])
def test_the_planted_instruction_wins_each_region(run, request):
    found = request.getfixturevalue(run)
    won = found.table("instruction_winners").set_index("roi")
    for roi, code in PLANTED.items():
        assert won.winner_label[roi] == code
        assert won.is_clear[roi] and won.p[roi] == pytest.approx(0.001)
        assert won.margin[roi] > 0.3
    # Two instructions have equal shares, and nothing is in the last region.
    assert won.winner_label["FLOC-PLACES"] in ("IC", "IU2")
    assert not won.is_clear["FLOC-PLACES"] and won.p["FLOC-PLACES"] > 0.05
    assert not won.is_clear["FLOC-WORDS"]
    shares = found.table("instruction_shares").set_index(["roi", "label"]).share
    for roi, code in PLANTED.items():
        assert shares[roi, code] > 0.9
    # What single images add to scores adds up to them.
    margins = found.compared.tables()[Comparison.MARGINS].set_index("roi")
    np.testing.assert_allclose(margins.margin, won.margin[margins.index], atol=2e-4)


@pytest.mark.slow
def test_scores_are_divided_by_the_published_ceiling(authors):
    ceiling = np.sqrt(scenes_lib.RATIO**2 / (scenes_lib.RATIO**2 + 1 / scenes_lib.REPEATS))
    table = authors.table("normalized").fillna({"control_of": "", "instruction": ""})
    network = table[table.control_of == ""]
    for roi in ("pRF-Visual", "FLOC-BODIES", "FLOC-FACES", "FLOC-PLACES"):
        part = network[network.roi == roi]
        np.testing.assert_allclose(part.ceiling, ceiling, rtol=1e-6)
        np.testing.assert_allclose(part.normalized, part.score / ceiling, rtol=1e-6)
    nothing = network[network.roi == "FLOC-WORDS"]
    assert nothing.normalized.isna().all() and (nothing.num_below_floor == 20).all()
    # It is what the noiseless signal reaches, within the error of 60 images.
    responses = authors.plan.job.dataset.responses
    test = np.array(responses.run) == "test"
    place = [tuple(map(int, x.split(".")[1].split("-"))) for x in responses.target]
    kept = [i for i, roi in enumerate(responses.roi) if roi != "FLOC-WORDS"]
    found = [
        np.corrcoef(responses.values[test, i], authors.signal[place[i]][test])[0, 1] for i in kept
    ]
    error = (1 - ceiling**2) / np.sqrt(test.sum() * len(kept)) + (1 - ceiling**2) / np.sqrt(60)
    assert abs(np.mean(found) - ceiling) < 2 * error


@pytest.mark.slow
def test_a_voxel_that_measures_nothing_is_named(authors):
    assert "1 of 100 voxels are constant in a session and left out (subj01.0-0-0)" in authors.log
    table = authors.table("normalized")
    assert set(table.num_targets[table.roi == "pRF-Visual"]) == {19}


@pytest.mark.slow
@pytest.mark.parametrize("run", ["authors", "ours"])
def test_an_instruction_without_an_image_predicts_nothing(run, request):
    """Its features do not vary: correlations are undefined, and R2 is that of the mean."""
    rows = request.getfixturevalue(run).plan.stages["report"][0].artefact.path / "scores.parquet"
    rows = pd.read_parquet(rows)
    alone = rows[rows.model == "instruction_alone"]
    assert len(alone) and alone.score.isna().all() and (alone.num_nan > 0).all()
    if run == "authors":
        assert (alone.r2 == 0).all()
    else:
        assert (alone.r2 <= 0).all() and (alone.r2 > -0.2).all()


def ridge(X, Y, test):
    """Score by NumPy as the authors do: each side scaled by itself, 5 folds, a penalty a voxel."""
    scale = lambda x: (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    X, Z, Y, T = scale(X[~test]), scale(X[test]), scale(Y[~test]), scale(Y[test])
    grid = np.logspace(1, 4, 60)
    gram = lambda x: x.T @ x

    def fit(X, Y, alpha):
        return np.linalg.solve(gram(X) + alpha * np.eye(X.shape[1]), X.T @ Y)

    errors = np.zeros((len(grid), Y.shape[1]))
    for train, held in KFold(5).split(X):
        for i, alpha in enumerate(grid):
            errors[i] += ((Y[held] - X[held] @ fit(X[train], Y[train], alpha)) ** 2).mean(axis=0)
    best = errors.argmin(axis=0)
    predicted = np.stack(
        [Z @ fit(X, Y[:, [j]], grid[best[j]])[:, 0] for j in range(Y.shape[1])], axis=1
    )
    return 1 - ((T - predicted) ** 2).sum(axis=0) / (T**2).sum(axis=0)


@pytest.mark.slow
def test_what_two_instructions_share_is_what_was_planted(authors):
    parts = authors.table("instruction_partition")
    parts = parts[(parts.measure == "r2") & (parts.second_label == "IU2")]
    found = parts.set_index(["roi", "part"]).value
    assert found["FLOC-BODIES", "unique_first"] > 0.3
    assert abs(found["FLOC-BODIES", "unique_second"]) < 0.1
    assert min(found["FLOC-PLACES", x] for x in ("unique_first", "unique_second")) > 0.2
    # By hand, of the layers that were chosen inside the training data.
    codes = list(scenes_lib.instructions())
    path = authors.compared.artefact.path / f"pair_{codes.index('IU2'):03d}.npz"
    joint = arrays.read(path, Joint)
    stores = by_code(among(Activations, authors.compared.artefact.inputs))
    X = [
        stores[code].read_layer(int(layer[0])).astype(float)
        for code, layer in (("IC", joint.first), ("IU2", joint.second))
    ]
    responses = authors.plan.job.dataset.responses
    assert list(stores["IC"].stimulus_ids()) == list(responses.stimulus_id)
    test = np.array(responses.run) == "test"
    columns = np.flatnonzero(np.array(responses.roi) == "FLOC-PLACES")
    Y = responses.values[:, columns].astype(float)
    a, b, both = (ridge(x, Y, test).mean() for x in (*X, np.hstack(X)))
    wanted = {"unique_first": both - b, "shared": a + b - both, "unique_second": both - a}
    for part, value in wanted.items():
        assert found["FLOC-PLACES", part] == pytest.approx(value, abs=2e-3)


@pytest.mark.slow
def test_the_page_has_every_chart_from_the_run(authors):
    folder = authors.plan.stages["report"][0].artefact.path
    page = (folder / "index.html").read_text()
    assert "SIMULATION" not in page
    for name in ("winners", "concepts", "shares", "venn_r2", "instruction_partition_normalized_r"):
        assert (folder / f"{name}_nsd-subj01_llava.svg").is_file(), name
    assert (folder / "normalized_nsd-subj01.svg").is_file()
    scores = authors.table("instruction_map")
    assert scores.distinct_answers.between(0, 1).all() and len(scores) == 50
    concepts = authors.table("instruction_concepts")
    assert set(concepts[concepts["rank"] == 1].set_index("roi").concept[list(PLANTED)]) == {
        *("Color/Texture", "General Scene", "Recognition")
    }


@pytest.mark.parametrize(
    "argument, says",
    [
        ("llava-1.5-7b", "must name models"),
        ("llava-1.5-7b,jaxalign", "must name models"),
        ("llava-1.5-7b,subj09", "one of shared, subj01"),
        (",subj01", "must name models"),
        ("llava-1.5-7b,shared,oota2025", "protocol must be jaxalign for shared images"),
    ],
)
def test_what_is_no_study_is_refused(argument, says):
    with refused(says):
        BUILD(argument)


def test_a_study_is_named_by_models_subject_and_protocol():
    common, stages = config.unpack(BUILD("llava-1.5-7b,vit-huge,subj02"))
    assert (common.dataset, stages["encode"].protocol) == ("nsd-subj02", "oota2025")
    assert stages["extract"].models == ("llava-1.5-7b", "vit-huge")
    assert stages["encode"].test_runs == ("test",) and "size=227" in common.options
    common, stages = config.unpack(BUILD("llava-1.5-7b,shared"))
    assert (common.dataset, stages["encode"].protocol) == ("nsd-shared", "jaxalign")
