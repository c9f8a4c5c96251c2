"""Published figures: held against the papers' tables read by hand, and what they must give."""

import csv
import math

import numpy as np
import pandas as pd
import pytest
from refusals import refused

from jaxalign.io import rows as rows_lib
from jaxalign.literature import published


def by_hand(name):
    """Read a table with nothing of ours or of pandas."""
    with open(published.FOLDER / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_published_score_of_aw2024_is_a_row():
    rows = published.score_rows("aw2024")
    found = rows.set_index(["model", "dataset"])
    ceilings = {"pereira2018": 0.359, "blank2014": 0.210, "wehbe2014": 0.104, "futrell2018": 0.858}
    models = by_hand("aw2024/models")
    assert len(models) == 33 and len(rows) == 33 * 4
    for model in models:
        for dataset, ceiling in ceilings.items():
            row = found.loc[(model["model"], dataset)]
            assert row["score"] == float(model[dataset])
            assert row["ceiling"] == ceiling
            assert row["num_layers"] == int(model["num_layers"])
            behaves = dataset == "futrell2018"
            assert row["metric"] == ("abs pearson r" if behaves else "pearson_r")
            assert row["roi"] == ("" if behaves else "language")


@pytest.mark.parametrize("name", published.NAMES)
def test_rows_follow_the_schema_and_can_be_written(name, tmp_path):
    rows = published.score_rows(name)
    assert list(rows.columns) == rows_lib.SCHEMA.names
    path = tmp_path / "rows.parquet"
    rows_lib.write(path, rows.to_dict("records"))
    pd.testing.assert_frame_equal(rows_lib.read(path), rows)
    assert (rows.protocol == f"published:{name}").all()
    assert (rows.layer == -1).all() and (rows.subject == "all").all()
    assert (rows.control_of == "").all() and (rows.folds_hash == "").all()
    assert all(len(x) == 0 for x in rows.fold_scores) and rows.alpha_median.isna().all()
    assert rows.score.notna().all() and (rows.fingerprint.str.len() == 16).all()
    assert not rows.duplicated(["dataset", "model", "roi", "metric"]).any()


def test_properties_of_aw2024():
    rows = published.properties("aw2024")
    numbers = {"tuned": "tuned", "num_parameters": "num_parameters", "num_layers": "num_layers"}
    numbers |= {"nwp_loss": "nwp_loss", "mmlu": "mmlu", "bbh": "bbh", "behavior": "futrell2018"}
    expected = set()
    for model in by_hand("aw2024/models"):
        name = model["model"]
        expected |= {(name, k, float(model[v]), "") for k, v in numbers.items() if model[v]}
        expected |= {(name, k, None, model[k]) for k in ("family", "base") if model[k]}
    found = {
        (x.model, x.property, None if math.isnan(x.value) else x.value, x.text)
        for x in rows.itertuples()
    }
    assert found == expected and len(rows) == len(expected)
    assert set(rows.source) == {"published:aw2024"}
    assert rows[rows.property == "tuned"].value.sum() == 21


def test_headline_numbers_follow_from_the_rows():
    """Mean pairwise gains of the three data sets; r of size and of MMLU over the tuned models."""
    rows, properties = published.score_rows("aw2024"), published.properties("aw2024")
    models = by_hand("aw2024/models")
    main = [x["model"] for x in models if x["in_main_25"] == "1"]
    base = properties[properties.property == "base"].set_index("model").text
    brain = rows[rows.metric == "pearson_r"].pivot(index="model", columns="dataset", values="score")
    tuned = [x for x in main if x in base.index]
    own, before = brain.loc[tuned], brain.loc[list(base[tuned])].to_numpy()
    gains = (100 * (own / before - 1)).mean()
    assert len(tuned) == 17
    # Printed: 6.9, 8.0 and 3.8, of numbers with more digits than the table.
    assert gains["pereira2018"] == pytest.approx(6.9, abs=0.2)
    assert gains["blank2014"] == pytest.approx(8.0, abs=0.2)
    assert gains["wehbe2014"] == pytest.approx(3.8, abs=0.2)
    of = lambda name: properties[properties.property == name].set_index("model").value
    average = own.mean(axis=1)
    size = np.corrcoef(np.log10(of("num_parameters")[tuned]), average)[0, 1]
    assert size == pytest.approx(0.946, abs=0.003)
    assert np.corrcoef(of("mmlu")[tuned], average)[0, 1] == pytest.approx(0.8065, abs=0.0025)


def test_every_base_is_a_vanilla_model():
    for name in ("aw2024", "aw2024-later"):
        rows = published.properties(name)
        tuned = rows[rows.property == "tuned"].set_index("model").value
        base = rows[rows.property == "base"].set_index("model").text
        assert set(base.index) == set(tuned[tuned == 1].index)
        assert (tuned[list(base)] == 0).all()


def test_later_models_are_normalised_already():
    rows = published.score_rows("aw2024-later").set_index(["model", "metric"])
    assert len(rows) == 8 * 3
    assert rows.loc[("llama-2-13b", published.NORMALISED), "score"] == 1.08
    assert rows.loc[("llama-2-13b", published.NORMALISED), "ceiling"] == 1.0
    assert rows.loc[("llama-2-13b-instruct", "cka"), "score"] == 2.77
    assert math.isnan(rows.loc[("llama-2-13b-instruct", "cka"), "ceiling"])


def test_digitised_bars():
    rows = published.score_rows("oota2025-fig2").set_index(["roi", "model"])
    assert len(rows) == 12 and set(rows.dataset) == {"nsd"}
    assert rows.loc[("FLOC-PLACES", "InstructBLIP"), "score"] == 0.837
    assert rows.loc[("pRF-Visual ROIs", "Random Initialization"), "score"] == 0.397
    table = published.table("oota2025/fig2_digitised")
    assert (table.digitising_error == 0.006).all()
    tuned = published.properties("oota2025-fig2").set_index("model").value
    assert tuned.to_dict() == {
        "InstructBLIP": 1,
        "IDEFICS": 1,
        "mPLUG-OWL": 1,
        "ViT-H": 0,
        "CLIP-Text": 0,
    }


def test_roi_scores_by_feature_set():
    rows = published.score_rows("oota2025-roi")
    assert rows.groupby("metric").size().to_dict() == {"pearson_r": 56, "r2": 56}
    assert rows.model.nunique() == 8 and rows.roi.nunique() == 7
    found = rows.set_index(["metric", "model", "roi"]).score
    assert found["pearson_r", "google/vit-huge-patch14-224-in21k", "floc-places"] == 0.32757
    assert (
        found["pearson_r", "Salesforce/instructblip-vicuna-13b qformer", "floc-places"] == 0.37195
    )
    assert rows[rows.metric == "r2"].r2.equals(rows[rows.metric == "r2"].score)


def test_tables_keep_text_and_missing_numbers():
    table = published.table("aw2024/correlations")
    assert list(table.r) == [float(x["r"]) for x in by_hand("aw2024/correlations")]
    assert table.p_adjusted_printed[0] == "<0.0005" and table.p_adjusted[0] == 0.000329
    assert table.p_adjusted.isna().sum() == 4
    assert list(published.table("oota2025/instructions").columns) == [
        "code",
        "task",
        "instruction",
        "prompt_number",
    ]
    assert len(published.table("oota2025/instructions")) == 10
    assert published.table("aw2024/models").base[0] == ""


def test_fingerprints_follow_the_figures(tmp_path, monkeypatch):
    first = {published.fingerprint(name) for name in published.NAMES}
    assert len(first) == len(published.NAMES)
    for path in published.FOLDER.glob("*/*.csv"):
        copy = tmp_path / path.relative_to(published.FOLDER)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    assert {published.fingerprint(name) for name in published.NAMES} == first
    changed = tmp_path / "aw2024/models.csv"
    changed.write_bytes(changed.read_bytes().replace(b"0.166", b"0.167", 1))
    assert published.fingerprint("aw2024") not in first
    assert published.fingerprint("oota2025-roi") in first


def test_unknown_names_are_refused():
    with refused("published figures must be one of aw2024, aw2024-later", "got 'aw2023'"):
        published.score_rows("aw2023")
    with refused("published figures must be one of", "got 'x'"):
        published.properties("x")
    with refused("a published table must be one of aw2024/correlations", "'aw2024/nothing'"):
        published.table("aw2024/nothing")
    with refused("a published table must be one of", "'../third_party/aw2024/models'"):
        published.table("../third_party/aw2024/models")


def test_installed_without_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "FOLDER", tmp_path / "third_party")
    with refused("published figures must lie in", "third_party", "pip install -e"):
        published.score_rows("aw2024")
