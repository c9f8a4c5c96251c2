"""A report of any finished rows: names, gaps and undefined numbers of every kind; none fails."""

import functools
import itertools
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import score_rows
from score_rows import NAN

from jaxalign.io import rows as rows_lib
from jaxalign.literature import properties
from jaxalign.reporting import findings, page
from jaxalign.reporting.findings import instructions
from jaxalign.reporting.run import build
from jaxalign.reporting.run.contents import Contents, Instructions

# Models, regions, subjects and data sets.
NAMES = {
    "plain": (("net", "other net", "third"), ("LATL", "LIFG"), ("s1", "s2", "s3"), ("a", "b")),
    "markup": (
        ("a/b,c", '"q" <script>alert(1)</script>', "NA"),
        ("", "NaN"),
        ("1", "", "mean"),
        ("data.set[0]", "日本 语/" + "long" * 60),
    ),
    "like code": (
        ("None", "0.5", "it's \\ back"),
        ("V1: x*y_z", "nan"),
        ("all", "ünï", "null"),
        ("__proto__", "x" * 200),
    ),
}
VALUES = ("plain", "all nan", "one region nan", "one model nan", "group nan", "no ceiling")
VALUES += ("zero", "negative", "one fold", "some layers nan")
ONE = {
    "names": "plain",
    "models": 2,
    "subjects": 3,
    "group": True,
    "regions": 2,
    "datasets": "one",
    "controls": True,
    "values": "plain",
    "prompts": False,
    "layers": 2,
    "known": "none",
}
AXES = {
    "names": tuple(NAMES),
    "models": (1, 2, 3),
    "subjects": (0, 1, 3),
    "group": (True, False),
    "regions": (1, 2),
    "datasets": ("one", "two", "the second lacks models"),
    "controls": (True, False),
    "values": VALUES,
    "prompts": (False, True),
    "layers": (0, 2),
    "known": ("none", "all", "the first", "others"),
}


def _numbers(case, rng, model, roi, subject, layer):
    values, ceiling = rng.normal(0.1, 0.1, 1 if case["values"] == "one fold" else 3), 0.4
    undefined = {
        "all nan": True,
        "one region nan": roi == 0,
        "one model nan": model == 0,
        "group nan": subject == "group",
        "some layers nan": layer % 2 == 1,
    }
    if undefined.get(case["values"]):
        values = np.full(len(values), NAN)
    if case["values"] in ("all nan", "no ceiling"):
        ceiling = NAN
    if case["values"] == "zero":
        values, ceiling = 0 * values, 0.0
    if case["values"] == "negative":
        values, ceiling = -abs(values), -0.1
    return values, ceiling


def score_frame(case) -> pd.DataFrame:
    """Return score rows of a case."""
    rng, (models, rois, people, sets) = np.random.default_rng(0), NAMES[case["names"]]
    people = [*people[: case["subjects"]], *(["group"] if case["group"] else [])]
    rois, models = rois[: case["regions"]], models[: case["models"]]
    found = []
    for d, dataset in enumerate(sets if case["datasets"] != "one" else sets[:1]):
        kept = models[:1] if d and case["datasets"] == "the second lacks models" else models
        for m, model in enumerate(kept):
            controls = ("untrained", "position") if case["controls"] else ()
            for name in (model, *controls):
                of = "" if name == model else model
                depth = case["layers"] if name in (model, "untrained") else 0
                texts = ("", "Q: <b>\n'x', y") if case["prompts"] and not of else ("",)
                for s, (r, roi), text, layer in itertools.product(
                    people, enumerate(rois), texts, range(depth + 1)
                ):
                    numbers, ceiling = _numbers(case, rng, m, r, s, layer)
                    columns = {"control_of": of, "dataset": dataset, "instruction": text}
                    columns |= {"num_layers": depth, "ceiling": ceiling}
                    found.append(score_rows.row(name, s, roi, layer, numbers, **columns))
    return score_rows.frame(found)


def _others(rows: pd.DataFrame, schema: pa.Schema, more) -> pd.DataFrame:
    """Return rows of another schema for each network: numbers are undefined where scores are."""
    found = []
    for row in rows[(rows.control_of == "") & (rows.instruction == "")].to_dict("records"):
        filled = {}
        for field in schema:
            number = row["score"] if pa.types.is_floating(field.type) else 1
            filled[field.name] = row.get(field.name, "x" if field.type == pa.string() else number)
        found.append(filled | more(row))
    return pa.Table.from_pylist(found, schema=schema).to_pandas()


def _known(rows: pd.DataFrame, how: str) -> pd.DataFrame | None:
    models = list(dict.fromkeys(rows[rows.control_of == ""].model))
    chosen = {"none": [], "all": models, "the first": models[:1], "others": ["unrelated"]}[how]
    facts = []
    for i, model in enumerate(chosen):
        each = {"num_parameters": 1e6 * (i + 1), "family": "F, 1" if i % 2 else "G/<b>"}
        each |= {"tuned": i % 2} | ({"base": chosen[i - 1]} if i % 2 else {})
        facts += [properties.row(model, name, value, "given") for name, value in each.items()]
    if not facts:
        return None
    return properties.wide(properties.join([properties.table(facts, where="given")]))


def report(**changes) -> page.Page:
    """Build the report of a case, with partition, tests, findings and instructions."""
    case = ONE | changes
    rows = score_frame(case)
    models, found = _known(rows, case["known"]), None
    if models is not None and rows[rows.control_of == ""].model.nunique() > 1:
        found = findings.of_run(rows, models, findings.Options(num_resamples=19))
    asked, left_out = instructions.asked(rows)
    told = [Instructions(instructions.of_run(asked), ["Asked.", *left_out])] if len(asked) else []
    tests = lambda row: {"orders": "shift", "num_orders": 9, "p": 0.1, "p_adjusted": row["score"]}
    return build.build(
        Contents(
            scores=rows,
            models=models,
            found=found,
            significance=_others(rows, rows_lib.SIGNIFICANCE, tests),
            partition=_others(rows, rows_lib.PARTITION, lambda _: {"controls": "a + b"}),
            instructions=told,
            title="<b>&\"'",
        )
    )


def check(made: page.Page) -> None:
    """Nothing undefined is shown as a number or as text, and charts hold what JSON can."""
    for text in (made.lead, made.summary, *(x for s in made.sections for x in s.text)):
        assert not re.search(r"\[nan|[:=] nan\b|\bnan %", text)
    for chart in made.charts.values():
        json.dumps(chart.spec, allow_nan=False)
    for section in made.sections:
        for _, table in section.tables:
            layers = [name for name in table if "layer" in str(name)]
            assert not (table[layers] == -1).any(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"names": "plain", "subjects": 0, "values": "group nan"},
        {"subjects": 1, "group": False, "regions": 1, "models": 1, "controls": False},
        {"names": "like code", "values": "all nan", "prompts": True},
    ],
    ids=lambda x: " ".join(map(str, x.values())),
)
def test_reporting_does_not_fail(changes):
    check(report(**changes))


@pytest.mark.slow
def test_two_data_sets_of_which_one_lacks_models():
    made = report(datasets="the second lacks models", known="all", models=3)
    check(made)
    assert set(made.tables["findings"].outcome) >= {"a"}


@functools.cache
def cases() -> list[dict]:
    """Return cases in which every value of an axis meets every value of every other axis.

    Each is the one of many random cases that has most pairs which no case before it had.
    """
    rng, found = np.random.default_rng(0), []
    pairs = lambda case: {(x, y, case[x], case[y]) for x, y in itertools.combinations(AXES, 2)}
    missing = {
        (x, y, *values)
        for x, y in itertools.combinations(AXES, 2)
        for values in itertools.product(AXES[x], AXES[y])
    } - {("subjects", "group", 0, False)}  # there would be no rows
    while missing:
        first, second, *values = min(missing, key=str)
        drawn = []
        for _ in range(200):
            case = {name: of[rng.integers(len(of))] for name, of in AXES.items()}
            case |= {first: values[0], second: values[1]}
            if case["subjects"] or case["group"]:
                drawn.append(case)
        found.append(max(drawn, key=lambda case: len(pairs(case) & missing)))
        missing -= pairs(found[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_product(part):
    for case in cases()[part::4]:
        made = report(**case)
        check(made)
        assert "<script>alert" not in made.html.replace("\\u003cscript", ""), case


@pytest.mark.slow
@pytest.mark.parametrize("names", NAMES)
def test_files_of_any_names(tmp_path, names):
    files = report(names=names, models=3, datasets="two", prompts=True).write(tmp_path)
    assert len(files) == len(set(files)) == len(list(tmp_path.iterdir()))
