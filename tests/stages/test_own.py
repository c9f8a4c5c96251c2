"""One's own data and model, from the command line."""

import shutil

import command
import numpy as np
import pandas as pd
import pytest
import tiny


def call(workdir, argument, *flags):
    return command.call(f"own.py:{argument}", workdir, *flags)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timed", "sentences"])
def test_own_data_and_models(request, tmp_path, kind):
    data = request.getfixturevalue(kind)
    models = [str(tiny.GOLDEN / name) for name in ("bert", "llama")]
    result = call(tmp_path / "work", ",".join([str(data), *models]))
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "work/report/scores.csv", keep_default_na=False)
    assert set(table[table.control_of == ""].model) == {"bert", "llama"}
    assert set(table.dataset) == {kind}
    assert set(table.context) == {"window:10" if kind == "timed" else "none"}
    assert set(table.subject) == {"s0", "s1", "s2", "group"}
    assert f"Brain alignment: {kind}" in result.stdout


@pytest.mark.slow
def test_missing_argument(tmp_path):
    result = call(tmp_path / "work", "alice")
    assert result.returncode == 2
    expected = "error: a model must be named, behind the data: alice,MODEL[,MODEL...].\n"
    assert result.stderr == expected


@pytest.mark.slow
def test_damaged_weights_are_found_before_any_work(sentences, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny.GOLDEN / "bert", model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    result = call(tmp_path / "work", f"{sentences},{model}")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert f"error: {weights} must be a whole safetensors file" in result.stderr
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_response_that_is_not_a_number(sentences, tmp_path):
    path = sentences / "responses.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["values"][7, 2] = np.nan
    np.savez(path, **arrays)
    result = call(tmp_path / "work", f"{sentences},{tiny.GOLDEN / 'bert'}")
    assert result.returncode == 2
    assert "nan at sample 7 of subject 's0', roi 'A'" in result.stderr
    assert result.stderr.count("\n") == 1
