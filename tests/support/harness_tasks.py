"""Tasks of lm-evaluation-harness on files that are here: our own, and its MMLU and BBH on ours.

The script that makes `golden/harness.json` and the tests that read it run the same ones.
"""

import hashlib
import json
import pathlib
import shutil

import lm_eval
import yaml

TASKS = pathlib.Path(__file__).resolve().parents[1] / "harness" / "tasks"
# Task of the harness -> its file there, and our files of each split.
PUBLISHED = {
    "local_mmlu": (
        "mmlu/default/mmlu_abstract_algebra.yaml",
        {"test": "mmlu_test.jsonl", "dev": "mmlu_dev.jsonl"},
    ),
    "local_bbh_fewshot": (
        "bbh/fewshot/boolean_expressions.yaml",
        {"test": "bbh_test.jsonl"},
    ),
    "local_bbh_cot_fewshot": (
        "bbh/cot_fewshot/boolean_expressions.yaml",
        {"test": "bbh_test.jsonl"},
    ),
}
OWN = ("local_choice", "local_choice_fewshot", "local_answer", "local_text")


def write(folder: pathlib.Path) -> None:
    """Fill a folder with all tasks; `--include_path` takes it, and runs have to begin in it."""
    shutil.copytree(TASKS, folder, dirs_exist_ok=True)
    theirs = pathlib.Path(lm_eval.__file__).parent / "tasks"
    for name, (file, splits) in PUBLISHED.items():
        task = {
            "include": str(theirs / file),
            "task": name,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": splits},
        }
        # What the harness writes for its own models' contexts would fill that of a tiny one.
        if name == "local_bbh_cot_fewshot":
            task["generation_kwargs"] = {"until": ["</s>", "Q", "\n\n"], "max_gen_toks": 64}
        if name == "local_mmlu":
            task["num_fewshot"] = 2
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


def metrics(results: dict) -> dict[str, float]:
    """Return the numbers of a task's results, without errors of them."""
    return {k: v for k, v in results.items() if isinstance(v, float) and "stderr" not in k}


def prompt_hash(sample: dict) -> str:
    """Hash what a model was asked; in files the harness names arguments, in memory it does not."""
    asked = sample["arguments"]
    if isinstance(asked, dict):
        asked = [list(arguments.values()) for arguments in asked.values()]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
