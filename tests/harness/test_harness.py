"""lm-evaluation-harness from its command line, against what its own Hugging Face backend found."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install jaxalign[harness]")

import command
import harness_tasks

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden"
# Sums of up to a thousand float32 log-probabilities, of which each side rounds each on its own.
TOLERANCE = {"atol": 1e-4, "rtol": 1e-6}


@pytest.fixture
def expected():
    return json.loads((GOLDEN / "harness.json").read_text())


def evaluate(folder, model_args, tasks, *options):
    """Return the results file, and of each task its samples as the golden file has them."""
    harness_tasks.write(folder)
    done = command.call_harness(
        folder,
        "--model=jaxalign",
        f"--model_args={model_args}",
        f"--tasks={','.join(tasks)}",
        "--include_path=.",
        "--output_path=out",
        "--log_samples",
        *options,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (folder / "out").rglob("results_*.json")
    results = json.loads(results.read_text())
    found = {}
    for task in tasks:
        (file,) = (folder / "out").rglob(f"samples_{task}_2*.jsonl")
        samples = [json.loads(line) for line in file.read_text().splitlines()]
        found[task] = sorted(samples, key=lambda sample: sample["doc_id"])
    return results, found


def answers(sample):
    """Return answers as the golden file has them; in its files the harness writes all as text."""
    return [json.loads(json.dumps(answer[0])) for answer in sample["resps"]]


def assert_equal(results, found, expected, tasks):
    """Compare all samples and metrics."""
    for task in tasks:
        assert len(found[task]) == len(expected[task]["samples"]) > 2
        for sample, golden in zip(found[task], expected[task]["samples"], strict=True):
            assert harness_tasks.prompt_hash(sample) == golden["prompt"], task
            assert_same_answers(answers(sample), golden["answers"], task)
        metrics = harness_tasks.metrics(results["results"][task])
        assert metrics.keys() == expected[task]["metrics"].keys() and metrics
        for name, value in expected[task]["metrics"].items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=f"{task} {name}")


def assert_same_answers(found, golden, task):
    if isinstance(golden[0], str):
        assert found == golden, task
    elif isinstance(golden[0], float):
        np.testing.assert_allclose(np.asarray(found, float), golden, err_msg=task, **TOLERANCE)
    else:
        values = lambda answer: float(answer[0])
        np.testing.assert_allclose(
            [values(x) for x in found], [values(x) for x in golden], err_msg=task, **TOLERANCE
        )
        assert [str(x[1]) for x in found] == [str(x[1]) for x in golden], task


@pytest.mark.slow
def test_stories_are_those_of_hugging_face(tmp_path, data_root, expected):
    """Multiple choice, and answers."""
    tasks = ["local_choice", "local_answer"]
    model_args = f"pretrained=stories260K,data_root={data_root}"
    results, found = evaluate(tmp_path, model_args, tasks, "--batch_size=8")
    assert_equal(results, found, expected["stories260K"], tasks)
    config = results["config"]
    assert config["model"] == "jaxalign" and config["model_num_parameters"] == 260_032
    assert config["model_dtype"] == "float32" and len(config["model_sha"]) == 16
    assert results["results"]["local_choice"]["acc,none"] == 0.6  # chance is 0.25


@pytest.mark.slow
def test_published_tasks_and_texts_are_those_of_hugging_face(tmp_path, data_root, expected):
    """MMLU's and BBH's own tasks; examples; a text longer than the model takes; single rows."""
    tasks = ["local_choice_fewshot", "local_text", *harness_tasks.PUBLISHED]
    results, found = evaluate(tmp_path, f"pretrained=stories260K,data_root={data_root}", tasks)
    # There a text is scored as it is here where the tokenizer adds no token of its own.
    text = {"local_text": expected["stories260K, no first token"]["local_text"]}
    assert_equal(results, found, expected["stories260K"] | text, tasks)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run,options",
    [("cut", "max_length=64"), ("no first token", "add_bos_token=False")],
)
def test_contexts_are_cut_and_begun_as_by_hugging_face(tmp_path, data_root, expected, run, options):
    golden = expected[f"stories260K, {run}"]
    results, found = evaluate(
        tmp_path,
        f"pretrained=stories260K,data_root={data_root},{options}",
        list(golden),
        "--batch_size=auto",
    )
    assert_equal(results, found, golden, golden)
    whole = expected["stories260K"]
    for task in golden.keys() & whole.keys():
        assert golden[task]["samples"] != whole[task]["samples"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "tasks",
    [
        ["local_choice", "local_answer_soon"],
        ["local_choice_fewshot", "local_text", "local_mmlu", "local_answer"],
    ],
)
def test_t5_is_that_of_hugging_face(tmp_path, expected, tasks):
    """The encoder reads contexts, the decoder continuations."""
    golden = expected["t5_v1_1"]
    results, found = evaluate(tmp_path, f"pretrained={GOLDEN / 't5_v1_1'}", tasks, "--batch_size=8")
    for task in ("local_answer", "local_answer_soon"):
        for sample in golden[task]["samples"]:
            # HFLM hands on the start token, which here is not a special one, and its space.
            assert sample["answers"][0].startswith("! ")
            sample["answers"][0] = sample["answers"][0][2:]
    assert_equal(results, found, golden, [task for task in tasks if task != "local_answer"])
    # HFLM lets a T5 write as many tokens more as its context has; until then, both say the same.
    theirs = golden["local_answer"]["samples"] if "local_answer" in tasks else []
    for sample, whole in zip(found.get("local_answer", []), theirs, strict=True):
        ours = sample["resps"][0][0]
        assert whole["answers"][0].startswith(ours) and len(ours) > 3


@pytest.mark.slow
def test_what_cannot_be_run_is_said_in_one_line(tmp_path):
    harness_tasks.write(tmp_path)
    done = command.call_harness(
        tmp_path,
        "--model=jaxalign",
        "--model_args=pretrained=nowhere/nothing",
        "--tasks=local_choice",
        "--include_path=.",
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: model must be a name in the table")
    assert "Traceback" not in done.stderr


def test_torch_is_hidden_from_the_command_line():
    """Else the tests above would not show that none is needed."""
    code = "import importlib.util; print(importlib.util.find_spec('torch'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(HERE / "without_torch")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "None"
    assert importlib.util.find_spec("lm_eval") is not None
