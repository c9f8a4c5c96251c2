"""Where properties of models are read: tables of users, lm-evaluation-harness, our own runs."""

import contextlib
import csv
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from absl import logging

from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir, store
from jaxalign.io.place import Place
from jaxalign.literature import properties
from jaxalign.literature.protocols import OWN_READING

RESULTS = "results_*.json"  # as lm-evaluation-harness names them
# Its tasks and groups that have a property named after them, with the metric that counts.
_MMLU = ("mmlu", "mmlu_stem", "mmlu_humanities", "mmlu_social_sciences", "mmlu_other")
_BBH = ("bbh", "bbh_fewshot", "bbh_zeroshot", "bbh_cot_fewshot", "bbh_cot_zeroshot")
KNOWN_TASKS = {name: (name, "acc") for name in _MMLU} | {
    name: ("bbh", "exact_match") for name in _BBH
}
# As the stage behavior names them in its table.
_CORRELATION, _BASELINE = "futrell2018-pearsonr", "control"
_OWN_CORRELATION = f"{_CORRELATION}{OWN_READING}"


def read_csv(path: pathlib.Path) -> pd.DataFrame:
    """Read a table with a column `model`, and others that are properties or tasks.

    A cell that is empty is not known.

    Raises:
      InputError: naming file, line and column, if it is not such a table.
    """
    lines = _lines(path)
    header = next(lines, None)
    if header is None:
        raise InputError(f"{path} must have a header and a row for each model: it is empty.")
    columns = header[1]
    if "model" not in columns:
        raise InputError(f"{path} must have a column model, found {', '.join(columns)}.")
    for name in columns:
        if columns.count(name) > 1:
            raise InputError(f"{path}: columns must differ, found {name!r} twice.")
        if name != "model":
            with _said_of(f"{path}: column"):
                properties.find(name)
    found, seen = [], {}
    for number, cells in lines:
        if len(cells) != len(columns):
            raise InputError(
                f"{path}, line {number}: there must be {len(columns)} cells, found {len(cells)}."
            )
        values = dict(zip(columns, (x.strip() for x in cells), strict=True))
        model = values.pop("model")
        if model in seen:
            raise InputError(
                f"{path}, line {number}: models must differ, found {model!r} in line "
                f"{seen[model]} too."
            )
        seen[model] = number
        with _said_of(f"{path}, line {number}:"):
            found += [properties.row(model, k, x, str(path)) for k, x in values.items() if x]
    if not seen:
        raise InputError(f"{path} must have a row for each model, found only a header.")
    return properties.table(found, where=str(path))


def _lines(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each line that is not empty, with its number."""
    text = _text(path)
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        for cells in reader:
            if any(x.strip() for x in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: must be CSV: {error}.") from error


def _text(path: Place) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} must be a file: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8: byte {error.start} is not.") from error


@contextlib.contextmanager
def _said_of(where: str) -> Iterator[None]:
    """Prefix the message of an error with the place that it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where} {error}") from error


def read_harness(path: pathlib.Path, names: Mapping[str, str]) -> pd.DataFrame:
    """Read results of lm-evaluation-harness 0.4.

    Each metric of each task and group is a property "task:TASK:METRIC", with ",FILTER" behind it
    if there is one. MMLU, its four groups, and BBH (whichever variant) are the properties of their
    names too. Tasks' versions, shots and a limit stand in `source`; models that were not asked
    alike are warned of.

    Args:
      path: a file, or a folder that has files results_*.json at any depth.
      names: what models are called here that have another name there (a repository).

    Returns:
      Rows of properties. A model has the name of `names`, or the last part of a path.

    Raises:
      InputError: if there is no file, one is not what the harness writes, or a model has a task
        twice.
    """
    paths = sorted(path.rglob(RESULTS)) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"{path} must hold results of lm-evaluation-harness: no {RESULTS} there.")
    found = [row for x in paths for row in _harness_rows(x, names)]
    settings: dict[str, list[str]] = {}
    for row in found:
        settings.setdefault(row["property"], []).append(row.pop("setting"))
    if mixed := {name: set(ways) for name, ways in settings.items() if len(set(ways)) > 1}:
        name = min(mixed)
        logging.warning(
            "properties: %d of lm-evaluation-harness were not measured alike in all models, so do "
            "not compare them: %s, %s",
            len(mixed),
            name,
            " or ".join(sorted(mixed[name])),
        )
    return properties.table(found, where=f"lm-evaluation-harness results {path}")


def _harness_rows(path: pathlib.Path, names: Mapping[str, str]) -> list[dict]:
    try:
        content = json.loads(_text(path))
    except ValueError as error:
        raise InputError(f"{path} must be JSON: {error}.") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), dict) for name in ("results", "config")
    ):
        raise InputError(
            f"{path} must be results of lm-evaluation-harness, with results and config."
        )
    model = _harness_model(path, content, names)
    limit = content["config"].get("limit")
    found = []
    with _said_of(f"{path}:"):
        number = content["config"].get("model_num_parameters", -1)
        if isinstance(number, int) and number > 0:
            row = properties.row(model, "num_parameters", number, f"lm-eval {path}")
            found.append(row | {"setting": ""})
        for task, values in content["results"].items():
            setting = f"{task}{_setting(content, task)}"
            setting += f", only {limit} questions" if limit is not None else ""
            rows = _task_rows(model, task, values, f"lm-eval {path} {setting}")
            found += [row | {"setting": setting} for row in rows]
    if not found:
        raise InputError(f"{path} must hold results of a task, found none.")
    return found


def _harness_model(path: pathlib.Path, content: dict, names: Mapping[str, str]) -> str:
    """Return what a model is called here."""
    written = content.get("model_name")
    if not written:  # of versions before 0.4.3
        arguments = content["config"].get("model_args", "")
        if isinstance(arguments, dict):
            written = arguments.get("pretrained") or arguments.get("model")
        else:
            match = re.search(r"(?:^|,)(?:pretrained|model)=([^,]+)", str(arguments))
            written = match and match[1]
    if not isinstance(written, str) or not written:
        raise InputError(f"{path} must name its model: there is no model_name, nor model_args.")
    if written in names:
        return names[written]
    # A repository has one slash; what begins otherwise, or has more, is the path of a folder.
    is_path = written[0] in "./~\\" or written.count("/") > 1 or pathlib.Path(written).is_absolute()
    return pathlib.PurePath(written.rstrip("/")).name if is_path else written


def _setting(content: dict, task: str) -> str:
    version = content.get("versions", {}).get(task)
    shots = sorted(map(str, _shots(content, task)))
    text = "" if version is None else f" version {version}"
    return text + (f", {'/'.join(shots)}-shot" if shots else "")


def _shots(content: dict, task: str) -> set:
    """Return the shots of a task, or of all tasks of a group, for which the file may not say it."""
    known = content.get("n-shot", {})
    if known.get(task) is not None:
        return {known[task]}
    parts = content.get("group_subtasks", {}).get(task, ())
    return set().union(*(_shots(content, part) for part in parts if part != task))


def _task_rows(model: str, task: str, values: object, source: str) -> list[dict]:
    """Return a row for each metric of a task, and for the property named after the task."""
    if not isinstance(values, dict):
        raise InputError(f"results of {task} must be metrics, got {values!r}.")
    found, named = [], []
    for key, value in values.items():
        metric, comma, rule = key.partition(",")
        if not comma or metric.endswith("_stderr") or not _is_number(value):
            continue
        name = metric if rule == "none" else key
        found.append(properties.row(model, f"{properties.TASK}{task}:{name}", value, source))
        if KNOWN_TASKS.get(task, ("", ""))[1] == metric:
            named.append(properties.row(model, KNOWN_TASKS[task][0], value, f"{source}, {name}"))
    return found + named


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_run(workdir: Place, stages: Sequence[Place] | None = None) -> pd.DataFrame:
    """Read what a run of jaxalign found out about its networks, not about its controls.

    `nwp_loss` of the stage next_word, `behavior` of the stage behavior (all words, mean reading
    times, no shift, the run's own data set), `num_layers` and `width` of activations.

    Args:
      workdir: of the run.
      stages: artefacts of it that are read; None: all that are finished.

    Raises:
      InputError: if it is no such folder, has nothing that is read, or gives two values.
    """
    if stages is None:
        stores = [x for name in ("extract", "imported") for x in workdir.glob(f"{name}/*")]
        stages = sorted(stores) + [workdir / "next_word", workdir / "behavior"]
    found = []
    for folder in stages:
        if not run_dir.marker(folder):
            continue
        if folder.name in ("next_word", "behavior"):
            run_dir.check_whole(folder / "scores.parquet")
            reader = _losses if folder.name == "next_word" else _reading_times
            found += reader(rows_lib.read_table(folder / "scores"), workdir)
        else:
            found += _shape(folder, workdir)
    if not found:
        if not workdir.is_dir():
            raise InputError(f"{workdir} must be the workdir of a run: there is no such folder.")
        raise InputError(
            f"{workdir} must hold what one of the stages extract, imported, next_word and behavior "
            "has finished, found nothing."
        )
    return properties.table(_once(found), where=f"run {workdir}")


def _losses(scores: pd.DataFrame, workdir: Place) -> list[dict]:
    return [
        properties.row(
            x["model"],
            "nwp_loss",
            x["loss_nats"],
            f"run {workdir} next_word, text {x['text']}, context {x['context']}, stride "
            f"{x['stride']}, {x['vocab_size']} tokens in the vocabulary",
        )
        for x in pd.DataFrame(scores[scores.control_of == ""]).to_dict("records")
    ]


def _reading_times(scores: pd.DataFrame, workdir: Place) -> list[dict]:
    kept = (
        (scores.dataset == scores.dataset.iloc[0])  # the run's own; the table may hold others
        & (scores.control_of == "")
        & scores.measure.isin([_CORRELATION, _OWN_CORRELATION])
        & (scores.offset == 0)
        & (scores.context != _BASELINE)
        & scores.value.notna()
    )
    return [
        properties.row(
            x["model"],
            "behavior",
            x["value"],
            f"run {workdir} behavior, {x['dataset']}, alignment {x['alignment']}, context "
            f"{x['context']}" + (f", {x['measure']}" if x["measure"] == _OWN_CORRELATION else ""),
        )
        for x in pd.DataFrame(scores[kept]).to_dict("records")
    ]


def _shape(folder: Place, workdir: Place) -> list[dict]:
    """Return layers and width of the network whose activations lie in a folder."""
    path = folder / "settings.json"
    try:
        made = json.loads(_text(path))
        settings = made["settings"]
        if "kind" not in made:
            raise InputError(
                f"{folder} is of an older version of jaxalign: delete it, and run {workdir} again."
            )
        if made["kind"] not in (store.TRAINED, store.IMPORTED):
            return []
        return [
            properties.row(settings["model"], x, settings[x], f"run {workdir} extract")
            for x in ("num_layers", "width")
        ]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} must be what a stage wrote: {error!r}.") from error


def _once(found: list[dict]) -> list[dict]:
    """Drop repeated rows: a network has the same number of layers in all stores."""
    return list({(x["model"], x["property"], x["value"], x["source"]): x for x in found}.values())
