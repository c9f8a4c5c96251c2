"""The mean of the language network: format, the real files, and what is refused."""

import numpy as np
import published_files as published
import pytest
from refusals import refused
from sklearn import linear_model, model_selection

from jaxalign.data import datasets
from jaxalign.data.sets import pereira_mean


@pytest.fixture
def written(tmp_path, rng):
    return tmp_path, *published.language_network(tmp_path, rng)


def adapter(root):
    return pereira_mean.PereiraMean(root=root, verify=False)


def test_sentences_and_their_responses(written):
    root, responses, _ = written
    stimuli, found = adapter(root).stimuli(), adapter(root).responses()
    assert stimuli.stimulus_id == found.stimulus_id
    assert stimuli.stimulus_id[2:4] == ["243sentences.2", "384sentences.0"]
    assert stimuli.text[0] == "Bees, they say, fly."
    assert stimuli.passage[:4] == ["243sentences.1"] * 2 + ["243sentences.2", "384sentences.1"]
    np.testing.assert_array_equal(found.values[:, 0], responses)
    groups = adapter(root).groups()
    assert groups["243sentences.0"] == groups["243sentences.2"] == "243sentences.bee"


def activations(root):
    """Return the activations of each sentence, in the order of the file of responses."""
    found = adapter(root).activations("gpt2-layer12")
    assert found.layers == (12,)
    row = {name: i for i, name in enumerate(found.stimulus_id)}
    ids = adapter(root).stimuli().stimulus_id
    return found.read()[0][[row[name] for name in ids]]


def test_activations_have_ids(written):
    """The stimulus set has another order than the responses."""
    np.testing.assert_array_equal(activations(written[0]), written[2])


def test_another_file_is_refused(written):
    with refused(pereira_mean.RESPONSES, "sentences must be 627", "found 5"):
        _ = datasets.find("pereira2018-mean", written[0]).responses


@pytest.mark.parametrize(
    "old,new,parts",
    [
        ("response", "effect", ["must have column 'response'"]),
        ("stimulus_id", "id", ["must have column 'stimulus_id'"]),
        ("243sentences.1,", "243sentences.0,", ["stimulus_id must be unique"]),
        ("They hum.,", "They hum,", ["row 2 must have 9 cells", "found 10"]),
    ],
)
def test_a_spoiled_table_is_refused(written, old, new, parts):
    path = written[0] / pereira_mean.RESPONSES
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new.replace("They hum,", "They, hum.,"), 1))
    with refused(path, *parts):
        adapter(written[0]).stimuli()
        adapter(written[0]).responses()


@pytest.mark.parametrize("cell,parts", [("nan", ["must be finite"]), ("x", ["response must hold"])])
def test_a_response_that_is_no_number_is_refused(written, cell, parts):
    path = written[0] / pereira_mean.RESPONSES
    lines = path.read_text().splitlines()
    lines[1] = f"{lines[1].rpartition(',')[0]},{cell}"
    path.write_text("\n".join(lines) + "\n")
    with refused(path, *parts):
        adapter(written[0]).responses()


def test_spoiled_activations_are_refused(written):
    root, _, values = written
    path, table = root / pereira_mean.ACTIVATIONS, root / pereira_mean.STIMULI
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    with refused(path, "must be a whole .npy"):
        activations(root)
    np.save(path, values[1:])
    with refused(path, "a row for each stimulus_id (5), found shape (4, 3)"):
        activations(root)
    np.save(path, np.where(values > 0, np.nan, values))
    with refused(path, "must be finite", "layer 12, stimulus_id"):
        activations(root)
    np.save(path, np.array([None] * 5, dtype=object), allow_pickle=True)
    with refused(path, "pickled objects, which are never loaded"):
        activations(root)
    path.write_bytes(content)
    table.write_text(table.read_text().replace("384sentences.1,", "384sentences.0,", 1))
    with refused(table, "stimulus_id must be unique, found '384sentences.0' twice"):
        activations(root)
    table.unlink()
    with refused(table, "it is missing"):
        activations(root)


def test_missing_activations_are_named(written):
    (written[0] / pereira_mean.ACTIVATIONS).unlink()
    with refused(written[0] / pereira_mean.ACTIVATIONS, "it is missing"):
        activations(written[0])


def test_a_missing_table_is_named(tmp_path):
    with refused(tmp_path / pereira_mean.RESPONSES, "it is missing"):
        adapter(tmp_path).files()


@pytest.mark.slow
def test_the_real_activations_predict_the_real_responses(data_root):
    """Known from a computation apart: r about .37 over folds of whole topics, 0 for other rows."""
    if not (data_root / pereira_mean.RESPONSES).is_file():
        pytest.skip(f"{data_root / pereira_mean.RESPONSES} is not there")
    found = datasets.find("pereira2018-mean", data_root)
    ids = found.responses.stimulus_id
    assert len(set(found.stimuli.passage)) == 168
    X = activations(data_root).astype(np.float64)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = found.responses.values[:, 0]
    topics = [found.groups[x] for x in ids]
    folds = model_selection.GroupKFold(10)
    fit = lambda X: model_selection.cross_val_predict(
        linear_model.Ridge(1e3), X, y, groups=topics, cv=folds
    )
    assert np.corrcoef(fit(X), y)[0, 1] == pytest.approx(0.377, abs=0.015)
    assert abs(np.corrcoef(fit(np.roll(X, 200, axis=0)), y)[0, 1]) < 0.12
