"""Tables of properties: read, joined with precedence, and as one row per model."""

import csv
import io
import json
import math
import pathlib

import numpy as np
import pandas as pd
import pytest
from refusals import refused

from jaxalign.literature import properties, property_sources, published

HARNESS = pathlib.Path(__file__).resolve().parents[1] / "golden/harness"
RESULTS = "results_2026-01-01T00-00-00.000000.json"


def rows(source, **models):
    """Return the table of a source from models and their properties."""
    made = [properties.row(m, k, v, source) for m, own in models.items() for k, v in own.items()]
    return properties.table(made, where=source)


@pytest.fixture
def write(tmp_path):
    def write(text, name="models.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_later_source_overrides_and_says_what():
    first = rows("zoo", net={"num_parameters": 31392, "family": "LLaMA"}, old={"width": 8})
    second = rows("paper", net={"num_parameters": 3e4, "mmlu": 0.5}, new={"family": "T5"})
    third = rows("own", net={"family": "LLaMA", "mmlu": 0.5})
    joined = properties.join([first, second, third]).set_index(["model", "property"])
    assert joined.value["net", "num_parameters"] == 3e4
    assert joined.source["net", "num_parameters"] == "paper; overrides 31392 (zoo)"
    # What is the same overrides nothing, and is said by the last.
    assert joined.source["net", "mmlu"] == "own" and joined.source["net", "family"] == "own"
    assert list(joined.index.get_level_values(0).unique()) == ["net", "old", "new"]
    assert len(joined) == 5
    assert properties.num_overridden(joined.reset_index()) == 1
    swapped = properties.join([third, second, first]).set_index(["model", "property"])
    assert swapped.value["net", "num_parameters"] == 31392


def test_text_overrides_text():
    joined = properties.join([rows("a", net={"family": "GPT"}), rows("b", net={"family": "OPT"})])
    assert joined.text[0] == "OPT" and joined.source[0] == "b; overrides GPT (a)"


def test_one_row_per_model():
    """Against the paper's table, read by pandas."""
    wide = properties.wide(properties.join([published.properties("aw2024")]))
    assert list(wide.columns) == list(properties.PROPERTIES) and wide.index.name == "model"
    expected = pd.read_csv(published.FOLDER / "aw2024/models.csv").set_index("model")
    assert list(wide.index) == list(expected.index)
    for name, column in (("mmlu", "mmlu"), ("behavior", "futrell2018"), ("nwp_loss", "nwp_loss")):
        np.testing.assert_array_equal(wide[name], expected[column])
    np.testing.assert_array_equal(wide.num_parameters, expected.num_parameters)
    assert list(wide.base) == list(expected.base.fillna(""))
    assert list(wide.tuned) == list(expected.tuned.astype(bool))
    assert wide.width.isna().all() and (wide.family != "").all()


def test_unknown_is_nan_empty_or_none():
    found = rows("own", a={"task:boolq:acc": 0.7}, b={"tuned": 1, "task:arc:acc": 0.1})
    wide = properties.wide(properties.join([found]))
    assert list(wide.columns[-2:]) == ["task:arc:acc", "task:boolq:acc"]
    assert wide.tuned["a"] is None and wide.tuned["b"] is True
    assert wide.base["a"] == "" and math.isnan(wide.mmlu["a"])
    assert math.isnan(wide["task:arc:acc"]["a"]) and wide["task:arc:acc"]["b"] == 0.1


def test_a_table_comes_back_from_its_csv(write):
    tables = [published.properties("aw2024"), rows("own", x={"tuned": 0, "task:a:acc": 1 / 3})]
    first = properties.wide(properties.join(tables))
    again = property_sources.read_csv(write(properties.to_csv(first)))
    pd.testing.assert_frame_equal(properties.wide(properties.join([again])), first)
    cells = next(csv.DictReader(io.StringIO(properties.to_csv(first))))
    assert (cells["num_parameters"], cells["tuned"], cells["mmlu"]) == ("77000000", "0", "")
    assert "width" not in cells


def test_users_table(write):
    text = "\ufeffmodel,tuned,base,mmlu,task:boolq:acc\nnet,0,,,0.5\n\ntuned ,1,net,0.25,\n"
    found = property_sources.read_csv(write(text))
    assert {(x.model, x.property, str(x.value), x.text) for x in found.itertuples()} == {
        ("net", "tuned", "0.0", ""),
        ("net", "task:boolq:acc", "0.5", ""),
        ("tuned", "tuned", "1.0", ""),
        ("tuned", "base", "nan", "net"),
        ("tuned", "mmlu", "0.25", ""),
    }


@pytest.mark.parametrize(
    "text, parts",
    [
        ("", ["models.csv must have a header", "it is empty"]),
        ("\n\n", ["it is empty"]),
        ("model,mmlu\n", ["must have a row for each model, found only a header"]),
        ("name,mmlu\nnet,1\n", ["must have a column model, found name, mmlu"]),
        ("model,mlu\nnet,1\n", ["models.csv: column a property must be one of", "got 'mlu'"]),
        ("model,task:boolq\nnet,1\n", ["or task:TASK:METRIC, got 'task:boolq'"]),
        ("model,mmlu,mmlu\nnet,1,1\n", ["columns must differ, found 'mmlu' twice"]),
        ("model,mmlu\nnet,.1\nnet,.2\n", ["line 3: models must differ, found 'net' in line 2"]),
        ("model,mmlu\nnet,half\n", ["line 2: mmlu of net must be a number, got 'half'"]),
        ("model,mmlu\nnet,nan\n", ["mmlu of net must be a number, got 'nan'"]),
        ("model,mmlu\nnet,inf\n", ["mmlu of net must be a number, got 'inf'"]),
        ("model,mmlu\nnet,51.2\n", ["mmlu of net must lie in 0 .. 1 (share", "got 51.2"]),
        ("model,width\nnet,-1\n", ["width of net must lie in 0 .. inf, got -1"]),
        ("model,tuned\nnet,yes\n", ["tuned of net must be 0 or 1, got 'yes'"]),
        ("model,tuned\nnet,2\n", ["tuned of net must be 0 or 1, got '2'"]),
        ("model,mmlu\nnet,.1,.2\n", ["line 2: there must be 2 cells, found 3"]),
        ("model,mmlu\nnet\n", ["line 2: there must be 2 cells, found 1"]),
        ("model,mmlu\n,.2\n", ["line 2: a model must have a name"]),
        (b"model,family\nnet,\xe9\n", ["models.csv must be UTF-8: byte 17 is not"]),
        ('model,family\nnet,"a\n', ["must be CSV"]),
    ],
)
def test_bad_tables_are_refused(write, text, parts):
    with refused(*parts):
        property_sources.read_csv(write(text))


def test_a_missing_table_is_refused(tmp_path):
    with refused("none.csv must be a file"):
        property_sources.read_csv(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "models, parts",
    [
        (
            {"net": {"base": "gone", "tuned": 1}},
            ["base of net must be a model of the table, but none is called 'gone'"],
        ),
        (
            {"a": {"base": "b", "tuned": 1}, "b": {"tuned": 1}},
            ["base of a must not be tuned itself, but b is"],
        ),
        ({"a": {"base": "a"}}, ["base of a must not be tuned itself, but a is"]),
        (
            {"a": {"base": "b", "tuned": 0}, "b": {"tuned": 0}},
            ["a must be tuned, for it has a base, b: tuned is 0"],
        ),
    ],
)
def test_bad_bases_are_refused(models, parts):
    with refused(*parts):
        properties.join([rows("own", **models)])


def test_bases_may_come_from_another_source():
    own = rows("own", a={"tuned": 1, "base": "b"}, c={"tuned": 1})  # c: of unknown base
    wide = properties.wide(properties.join([own, rows("zoo", b={"width": 8})]))
    assert wide.base.to_dict() == {"a": "b", "c": "", "b": ""}


def test_twice_in_a_source_is_refused():
    made = [properties.row("net", "mmlu", x, f"file {x}") for x in (0.1, 0.25)]
    parts = ["own must give mmlu of net once, found it 2 times: 0.1 (file 0.1); 0.25 (file 0.25)"]
    with refused(*parts):
        properties.table(made, where="own")


def test_renaming_reaches_bases():
    found = properties.rename(rows("own", a={"base": "b"}, b={"family": "b"}), {"b": "c"})
    assert [(x.model, x.text) for x in found.itertuples()] == [("a", "c"), ("c", "b")]


@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_harness_results(model):
    """Every metric of the file is a row, and the groups are properties, against the file itself."""
    path = HARNESS / model / RESULTS
    content = json.loads(path.read_text())
    found = property_sources.read_harness(path, {})
    assert set(found.model) == {model}
    value = found.set_index("property").value
    expected = {}
    for task, metrics in content["results"].items():
        for key, number in metrics.items():
            if "," in key and "_stderr" not in key:
                expected[f"task:{task}:{key.removesuffix(',none')}"] = number
    for name in ("mmlu", "mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities"):
        expected[name] = content["results"][name]["acc,none"]
    expected["bbh"] = content["results"]["bbh"]["exact_match,get-answer"]
    expected["num_parameters"] = content["config"]["model_num_parameters"]
    assert value.to_dict() == expected
    assert value["mmlu"] == pytest.approx({"llama": 4 / 15, "qwen2": 1 / 3}[model])
    source = found.set_index("property").source
    assert source["mmlu"].endswith("mmlu version 2, 0-shot, acc")
    assert source["bbh"].endswith("bbh version 3.0, 0-shot, exact_match,get-answer")
    assert source["task:mmlu_anatomy:acc_norm"].endswith("mmlu_anatomy version 1.0, 0-shot")


def test_a_folder_of_harness_results():
    wide = properties.wide(properties.join([property_sources.read_harness(HARNESS, {})]))
    assert list(wide.index) == ["llama", "qwen2"]
    np.testing.assert_allclose(wide.mmlu, [4 / 15, 1 / 3])
    assert wide.num_parameters.notna().all() and wide["task:mmlu_anatomy:acc"].notna().all()


@pytest.fixture
def harness(tmp_path):
    """Return a function that writes the results of llama, changed."""

    def write(change=lambda content: None, name="results_1.json"):
        content = json.loads((HARNESS / "llama" / RESULTS).read_text())
        change(content)
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.mark.parametrize(
    "written, name",
    [
        ("google/flan-t5-small", "flan-t5-small"),  # given in `names`
        ("someone/else", "someone/else"),  # a repository that nobody gave a name
        ("./llama", "llama"),
        ("/data/models/llama-13b/", "llama-13b"),
        ("models/tuned/net", "net"),
        ("gpt2", "gpt2"),
    ],
)
def test_names_of_models(harness, written, name):
    path = harness(lambda x: x.update(model_name=written))
    found = property_sources.read_harness(path, {"google/flan-t5-small": "flan-t5-small"})
    assert set(found.model) == {name}


@pytest.mark.parametrize(
    "arguments", ["dtype=float32,pretrained=a/b", {"pretrained": "a/b"}, "model=a/b"]
)
def test_names_from_arguments(harness, arguments):
    def change(content):
        del content["model_name"]
        content["config"]["model_args"] = arguments

    assert set(property_sources.read_harness(harness(change), {}).model) == {"a/b"}


def test_a_limit_stands_in_the_source(harness):
    path = harness(lambda x: x["config"].update(limit=10))
    found = property_sources.read_harness(path, {}).set_index("property")
    assert "only 10 questions" in found.source["mmlu"]


def test_what_is_no_number_is_left_out(harness):
    def change(content):
        content["results"]["mmlu_stem"]["acc,none"] = "N/A"
        content["results"]["mmlu_other"]["acc,none"] = math.nan

    found = set(property_sources.read_harness(harness(change), {}).property)
    assert {"mmlu", "task:mmlu_anatomy:acc"} <= found
    assert not {"mmlu_stem", "task:mmlu_stem:acc", "mmlu_other"} & found


def test_shots_of_a_group_are_those_of_its_tasks(harness):
    def change(content):
        content["n-shot"] = {"mmlu_astronomy": 5, "mmlu_anatomy": 3}

    source = property_sources.read_harness(harness(change), {}).set_index("property").source
    assert source["mmlu_stem"].endswith("mmlu_stem version 2, 3/5-shot, acc")
    assert source["bbh"].endswith("bbh version 3.0, exact_match,get-answer")


def test_models_that_were_not_asked_alike_are_warned_of(harness, tmp_path, caplog):
    def change(content):
        content["model_name"] = "./other"
        content["n-shot"] |= {"mmlu_anatomy": 5}

    harness(), harness(lambda x: x.update(model_name="./third"), name="results_3.json")
    with caplog.at_level("WARNING"):
        property_sources.read_harness(tmp_path, {})
        assert not caplog.records
        harness(change, name="results_2.json")
        property_sources.read_harness(tmp_path, {})
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "2 of lm-evaluation-harness were not measured alike in all models, so do not compare them: "
        "task:mmlu_anatomy:acc, mmlu_anatomy version 1.0, 0-shot or mmlu_anatomy version 1.0, "
        "5-shot"
    )


def drop(*names):
    return lambda content: [content.pop(name) for name in names]


def bbh_twice(content):
    content["results"]["bbh_zeroshot"] = {"exact_match,flexible-extract": 0.5}


@pytest.mark.parametrize(
    "change, parts",
    [
        (drop("results"), ["must be results of lm-evaluation-harness, with results and config"]),
        (drop("config"), ["must be results of lm-evaluation-harness, with results and config"]),
        (lambda x: x["results"].clear() or x["config"].clear(), ["must hold results of a task"]),
        (lambda x: (x.pop("model_name"), x["config"].clear()), ["must name its model"]),
        (lambda x: x["results"].update(mmlu=3), ["results of mmlu must be metrics, got 3"]),
        (
            lambda x: x["results"]["mmlu"].update({"acc,none": 40}),
            ["results_1.json: mmlu of llama must lie in 0 .. 1"],
        ),
        (bbh_twice, ["must give bbh of llama once, found it 2 times", "flexible-extract"]),
    ],
)
def test_bad_harness_results_are_refused(harness, change, parts):
    with refused(*parts):
        property_sources.read_harness(harness(change), {})


def test_the_same_task_in_two_files_is_refused(harness, tmp_path):
    harness(), harness(name="results_2.json")
    with refused("must give", "of llama once", "results_1.json", "results_2.json"):
        property_sources.read_harness(tmp_path, {})


def test_other_files_are_refused(tmp_path, write):
    with refused("must hold results of lm-evaluation-harness: no results_*.json there"):
        property_sources.read_harness(tmp_path, {})
    with refused("x.json must be JSON"):
        property_sources.read_harness(write("{", "x.json"), {})
    with refused("x.json must be results of lm-evaluation-harness"):
        property_sources.read_harness(write("[]", "x.json"), {})
