"""Make harness/: results as lm-evaluation-harness writes them, of two tiny models on local tasks.

python tests/golden/make_harness.py

Needs `lm_eval` 0.4.13 with torch. The tasks have the names and groups of MMLU and BBH, and a few
made-up questions, so that the files have the real form without the real data. What says on which
machine and when it ran is taken out.
"""

import json
import os
import pathlib
import shutil
import tempfile

import yaml
from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "harness"
MODELS = ("llama", "decoders/qwen2")
GROUPS = {
    "mmlu_stem": ("mmlu_astronomy", "mmlu_anatomy"),
    "mmlu_other": ("mmlu_nutrition",),
    "mmlu_social_sciences": ("mmlu_sociology",),
    "mmlu_humanities": ("mmlu_philosophy",),
}
# Which of three equally long words comes next, of the words that these models' tokenizers have.
LETTERS = "abcdefghijklmnop"
NUM_QUESTIONS = 6
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
PRIVATE = ("pretty_env_info", "date", "git_hash", "upper_git_hash", "start_time", "end_time")


def question(task, k):
    """Return the k-th question of a task."""
    letter = lambda i: LETTERS[(5 * task + 3 * k + i) % len(LETTERS)]
    return {
        "question": f"the ball {letter(0)} and {letter(7)}",
        "choices": [letter(1), letter(4), letter(9)],
        "answer": (task + k) % 3,
    }


def write_tasks(folder):
    """Write questions, tasks and groups."""
    common = {"dataset_path": "json", "test_split": "test"}
    choice = common | {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in ("acc", "acc_norm")
        ],
        "metadata": {"version": 1.0},
    }
    free = common | {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 3, "do_sample": False},
        "filter_list": [{"name": "get-answer", "filter": [{"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 4.0},
    }
    size = lambda metric, **other: [{"metric": metric, "weight_by_size": True} | other]
    made = {name: choice | {"task": name} for names in GROUPS.values() for name in names}
    made["bbh_navigate"] = free | {"task": "bbh_navigate"}
    for group, names in GROUPS.items():
        made[group] = {"group": group, "task": list(names), "aggregate_metric_list": size("acc")}
        made[group]["metadata"] = {"version": 2}
    made["mmlu"] = made["mmlu_stem"] | {"group": "mmlu", "task": list(GROUPS)}
    made["bbh"] = {
        "group": "bbh",
        "task": ["bbh_navigate"],
        "aggregate_metric_list": size("exact_match", aggregation="mean", filter_list="get-answer"),
        "metadata": {"version": 3.0},
    }
    for i, (name, task) in enumerate(made.items()):
        if "task" in task and task["task"] == name:
            path = folder / f"{name}.jsonl"
            path.write_text("\n".join(json.dumps(question(i, k)) for k in range(NUM_QUESTIONS)))
            task["dataset_kwargs"] = {"data_files": {"test": str(path)}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


def main():
    """Run the harness on both models, in a folder of their own, so that paths are relative."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_tasks(folder)
        tasks = TaskManager(include_path=name, include_defaults=False)
        os.chdir(folder)
        for source in MODELS:
            model = pathlib.Path(source).name
            shutil.copytree(HERE / source, folder / model)
            settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | SPECIAL
            (folder / model / "tokenizer_config.json").write_text(json.dumps(settings))
            tracker = EvaluationTracker(output_path=str(folder / "out"))
            results = simple_evaluate(
                model="hf",
                model_args=f"pretrained=./{model},dtype=float32,max_length=64",
                tasks=["mmlu", "bbh"],
                num_fewshot=0,
                batch_size=4,
                device="cpu",
                task_manager=tasks,
                evaluation_tracker=tracker,
                bootstrap_iters=10,
            )
            results.pop("samples")
            tracker.save_results_aggregated(results)
            (written,) = (folder / "out").glob(f"*{model}/results_*.json")
            text = written.read_text(encoding="utf-8").replace(name, "tasks")
            content = {k: v for k, v in json.loads(text).items() if k not in PRIVATE}
            content["total_evaluation_time_seconds"] = "0"
            path = OUT / model / "results_2026-01-01T00-00-00.000000.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
