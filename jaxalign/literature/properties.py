"""Properties of models: which there are, how tables of them are joined, one row per model."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from jaxalign.errors import InputError

COLUMNS = ("model", "property", "value", "text", "source")
TASK = "task:"  # before the name of a task and of its metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Property:
    """What a property is."""

    kind: str  # "number", "text" or "flag" (0 or 1)
    description: str
    unit: str = ""
    least: float = -math.inf
    most: float = math.inf


def _size(description: str, unit: str) -> Property:
    return Property(kind="number", description=description, unit=unit, least=0.0)


def _share(description: str) -> Property:
    unit = "share of correct answers, 0 to 1"
    return Property(kind="number", description=description, unit=unit, least=0.0, most=1.0)


PROPERTIES: Mapping[str, Property] = {
    "family": Property(kind="text", description="models of one design and pretraining"),
    "tuned": Property(kind="flag", description="whether it was tuned on instructions"),
    "base": Property(kind="text", description="model of the table that it was tuned from"),
    "num_parameters": _size("parameters; of published models the size that is printed", "1"),
    "num_layers": _size("blocks; of encoder-decoders those of both stacks", "1"),
    "width": _size("units of the residual stream", "1"),
    "training_tokens": _size("tokens that it was pretrained on", "1"),
    "mmlu": _share("MMLU, all"),
    "mmlu_stem": _share("MMLU, STEM"),
    "mmlu_humanities": _share("MMLU, humanities"),
    "mmlu_social_sciences": _share("MMLU, social sciences"),
    "mmlu_other": _share("MMLU, others"),
    "bbh": _share("BIG-Bench Hard, all"),
    "bbh_algorithmic": _share("BIG-Bench Hard, algorithmic reasoning"),
    "bbh_language": _share("BIG-Bench Hard, language understanding"),
    "bbh_world_knowledge": _share("BIG-Bench Hard, world knowledge"),
    "bbh_multilingual": _share("BIG-Bench Hard, multilingual reasoning"),
    "bbh_other": _share("BIG-Bench Hard, others"),
    # Comparable between models of one tokenizer only.
    "nwp_loss": _size("mean next-word loss", "nats per token"),
    "behavior": Property(
        kind="number",
        description="correlation of surprisal with reading times, its absolute value",
        unit="|r|",
        least=0.0,
        most=1.0,
    ),
}


def find(name: str) -> Property:
    """Return what a property is; that of a task has any number.

    Raises:
      InputError: if there is no such property.
    """
    if name in PROPERTIES:
        return PROPERTIES[name]
    task, _, metric = name.removeprefix(TASK).rpartition(":")
    if name.startswith(TASK) and task and metric:
        return Property(kind="number", description=f"{metric} of the task {task}")
    raise InputError(
        f"a property must be one of {', '.join(PROPERTIES)}, or task:TASK:METRIC, got {name!r}."
    )


def row(model: str, name: str, value: object, source: str) -> dict:
    """Return one row, checked.

    Args:
      model: its name.
      name: the property.
      value: number or text, as the property is; a number may come as text.
      source: where it is from.

    Raises:
      InputError: if there is no such property, or it cannot have this value.
    """
    known = find(name)
    if not model:
        raise InputError("a model must have a name, got ''.")
    if known.kind == "text":
        return dict(zip(COLUMNS, (model, name, math.nan, str(value), source), strict=True))
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        number = math.nan
    if known.kind == "flag" and number not in (0, 1):
        raise InputError(f"{name} of {model} must be 0 or 1, got {value!r}.")
    if not math.isfinite(number):
        raise InputError(f"{name} of {model} must be a number, got {value!r}.")
    if not known.least <= number <= known.most:
        raise InputError(
            f"{name} of {model} must lie in {known.least:g} .. {known.most:g}"
            f"{f' ({known.unit})' if known.unit not in ('', '1') else ''}, got {number:g}."
        )
    return dict(zip(COLUMNS, (model, name, number, "", source), strict=True))


def table(rows: Iterable[dict], *, where: str) -> pd.DataFrame:
    """Return rows of one source as a frame.

    Args:
      rows: from `row`.
      where: the source, for messages.

    Raises:
      InputError: if a model has a property twice.
    """
    frame = pd.DataFrame(list(rows), columns=list(COLUMNS)).astype({"value": float})
    twice = frame[frame.duplicated(["model", "property"], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        same = pd.DataFrame(
            twice[(twice.model == first.model) & (twice.property == first.property)]
        )
        raise InputError(
            f"{where} must give {first.property} of {first.model} once, found it {len(same)} "
            f"times: {'; '.join(map(_shown, same.to_dict('records')))}."
        )
    return frame


def _shown(found: dict) -> str:
    value = found["text"] or f"{found['value']:.12g}"
    return f"{value} ({found['source']})"


def rename(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Give models other names, also where one is another's base."""
    is_base = rows.property == "base"
    text = rows.text.where(~is_base, rows.text.replace(dict(names)))
    return rows.assign(model=rows.model.replace(dict(names)), text=text)


def join(sources: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join sources into one table: what a later one gives overrides what an earlier one gave.

    Args:
      sources: from `table`, in order.

    Returns:
      The rows, models in the order in which they appear first. `source` says what was overridden.

    Raises:
      InputError: see `check`.
    """
    found: dict[tuple[str, str], dict] = {}
    for frame in sources:
        for new in frame.to_dict("records"):
            key = new["model"], new["property"]
            old = found.get(key)
            if old is not None and (old["value"], old["text"]) != (new["value"], new["text"]):
                # NaN, of text, is equal to nothing.
                if not (new["text"] and old["text"] == new["text"]):
                    new = new | {"source": f"{new['source']}; overrides {_shown(old)}"}
            found[key] = new
    joined = pd.DataFrame(list(found.values()), columns=list(COLUMNS)).astype({"value": float})
    order = {name: i for i, name in enumerate(joined.model.drop_duplicates())}
    joined = joined.sort_values("model", key=lambda x: x.map(order), kind="stable")
    check(joined)
    return joined.reset_index(drop=True)


def num_overridden(joined: pd.DataFrame) -> int:
    """Count values of a joined table that stand in the place of others."""
    return int(joined.source.str.contains("; overrides ", regex=False).sum())


def check(rows: pd.DataFrame) -> None:
    """Refuse a joined table whose bases do not hold together.

    A tuned model without a base is allowed: whether it was tuned is known more often than from
    which weights. It enters no pair.

    Raises:
      InputError: if a base is not in the table, is tuned itself, or belongs to a model that is not
        tuned.
    """
    models = set(rows.model)
    tuned = rows[rows.property == "tuned"].set_index("model").value
    for model, base in rows[rows.property == "base"].set_index("model").text.items():
        if base not in models:
            raise InputError(
                f"base of {model} must be a model of the table, but none is called {base!r}."
            )
        if base == model or tuned.get(base, 0) == 1:
            raise InputError(f"base of {model} must not be tuned itself, but {base} is.")
        if tuned.get(model, 1) == 0:
            raise InputError(f"{model} must be tuned, for it has a base, {base}: tuned is 0.")


def wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model.

    Args:
      rows: as `join` gives them.

    Returns:
      Index `model`; a column for each of `PROPERTIES`, in that order, and for each task that any
      model has. Numbers that are not known are NaN, texts "", and `tuned` is True, False or None.
    """
    models = list(dict.fromkeys(rows.model))
    tasks = sorted(x for x in set(rows.property) if x not in PROPERTIES)
    made = {}
    for name in (*PROPERTIES, *tasks):
        values = rows[rows.property == name].set_index("model")
        kind = find(name).kind
        if kind == "text":
            made[name] = [values.text.get(model, "") for model in models]
        elif kind == "flag":
            known = values.value.to_dict()
            flags = [bool(known[x]) if x in known else None for x in models]
            made[name] = pd.Series(flags, dtype=object).to_numpy()
        else:
            made[name] = [values.value.get(model, np.nan) for model in models]
    return pd.DataFrame(made, index=pd.Index(models, name="model"))


def to_csv(models: pd.DataFrame) -> str:
    """Return `wide` as CSV that `property_sources.read_csv` reads: unknown is empty, tuned 0 or 1.

    Properties that no model has are left out.
    """
    tuned = [None if x is None else int(x) for x in models.tuned]
    shown = models.assign(tuned=pd.array(tuned, dtype="Int64"))
    for name in models:
        # Counts without ".0".
        if find(name).unit == "1" and np.all(shown[name].dropna() % 1 == 0):
            shown[name] = shown[name].astype("Int64")
    unknown = (shown.isna() | (shown == "")).all()
    return shown.loc[:, ~unknown].to_csv(lineterminator="\n")


def content(rows: pd.DataFrame) -> str:
    """Return all that rows say, as text to be hashed."""
    return json.dumps(rows.astype({"value": str}).values.tolist())
