"""Settings: every wrong value, and every pair of values, is accepted or refused in one line."""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Annotated

import pytest
from refusals import refused

from jaxalign import checks, config
from jaxalign.bench import extract as bench_extract
from jaxalign.bench import solver as bench_solver
from jaxalign.bench.extract import config as bench_config
from jaxalign.errors import InputError
from jaxalign.reporting import findings

# What has no default.
NEEDED = {
    "extract": {"models": ("bert",)},
    "imported": {"models": ("net.npy",)},
    "simulate": {"model": "bert", "layer": 1},
    "tune": {"model": "bert", "data": "tasks.jsonl"},
    "next_word": {"models": ("bert",), "text": "text.txt"},
    "collect": {"runs": ("run",)},
    "bench": {"cases": {"small": {"n": 40, "p": 4, "v": 2}}},
    "bench_extract": {
        "networks": {"net": {}},
        "forwards": {"row": {"network": "net", "batch": 1, "length": 8}},
    },
}
CLASSES = {
    "": (config.Common, {}),
    **{name: (x.load().Config, NEEDED.get(name, {})) for name, x in config.STAGES.items()},
    "case": (bench_solver.Case, {"n": 40, "p": 4, "v": 2}),
    "sweep": (bench_solver.Sweep, {}),
    "network": (bench_extract.Network, {}),
    "forward": (bench_extract.Forward, {"network": "net", "batch": 1, "length": 8}),
    "stories": (
        bench_extract.Stories,
        {"network": "net", "unit": "word", "context": {"accumulate": 2.0}},
    ),
    "depths": (bench_config.Depths, {"network": "net"}),
    "loading": (bench_config.Loading, {"network": "net"}),
    "options": (findings.Options, {}),
}
NAN, INF = float("nan"), float("inf")
OTHERS = {
    bool: [True, False],
    int: [-(10**6), -1, 0, 1, 2, 10**6],
    float: [-1.0, 0.0, 0.5, 1.0, 100.0],
    str: ["", "no such", "a=b", "csv:x"],
}
NEVER = [NAN, INF, -INF]  # of no setting
WRONG = [
    None,
    True,
    1,
    1.5,
    "no such",
    (),
    (None,),
    (True,),
    (1,),
    (1.5,),
    ("x",),
    {},
    {1: 2},
    [[1]],
]


def build(kind, **values):
    """Make an instance as `kind(**values)` does, where the tests' own check of types cannot see."""
    made = object.__new__(kind)
    for field in dataclasses.fields(kind):
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = field.default
        object.__setattr__(made, field.name, values.get(field.name, value))
    made.__post_init__()
    return made


def candidates(kind, rules):
    """Return values of a field's type that may be in range or out of it."""
    if kind in OTHERS:
        return [*OTHERS[kind], *(x for rule in rules for x in rule.allowed)]
    if isinstance(kind, type(Mapping[str, float])) and kind.__origin__ is Mapping:
        return [{}, {"x": 1.0}, {"accumulate": 1.0}]
    if getattr(kind, "__origin__", None) is tuple:
        entries = candidates(kind.__args__[0], rules)
        return [(), *((x,) for x in entries), (entries[-1],) * 2, tuple(entries)]
    return [{}]


def has_type(value, kind):
    """Whether a value is of a field's type, by rules of its own."""
    if kind in OTHERS:
        return type(value) is kind or (kind is float and type(value) is int)
    if getattr(kind, "__origin__", None) is tuple:
        return isinstance(value, tuple | list) and all(has_type(x, kind.__args__[0]) for x in value)
    return isinstance(value, Mapping) and not set(map(type, value)) - {str}


def refusal(make):
    """Return the message of a refusal, "" without one; any other exception is a failure."""
    try:
        make()
    except InputError as error:
        message = str(error)
        assert "\n" not in message and re.search(r"\b(must|needs)\b", message), message
        return message
    return ""


@pytest.mark.parametrize("name", CLASSES)
def test_wrong_types_are_refused(name):
    kind, needed = CLASSES[name]
    for field, (hint, _) in checks._declared(kind).items():
        for value in WRONG:
            if not has_type(value, hint):
                message = refusal(lambda: build(kind, **needed | {field: value}))  # noqa: B023
                assert re.search(rf"\b{field}\b", message), (field, value, message)


@pytest.mark.parametrize("name", CLASSES)
def test_no_number_is_infinite_or_undefined(name):
    kind, needed = CLASSES[name]
    for field, (hint, _) in checks._declared(kind).items():
        wrap = {float: lambda x: x, tuple[float, ...]: lambda x: (x,)}.get(hint)
        for value in NEVER if wrap else []:
            message = refusal(lambda: build(kind, **needed | {field: wrap(value)}))  # noqa: B023
            assert re.search(rf"\b{field}\b", message), (field, value, message)


@pytest.mark.parametrize("name", CLASSES)
def test_pairs_of_values_are_accepted_or_refused(name):
    """What is refused alone is refused beside any other value, and names a setting."""
    kind, needed = CLASSES[name]
    declared = checks._declared(kind)
    single = {
        field: {
            i: bool(refusal(lambda: build(kind, **needed | {field: value})))  # noqa: B023
            for i, value in enumerate(candidates(hint, rules))
        }
        for field, (hint, rules) in declared.items()
    }
    names = "|".join(declared)
    for one, two in itertools.combinations(declared, 2):
        values = [candidates(*declared[x]) for x in (one, two)]
        # Of each field two values that are refused and two that are not.
        chosen = [
            [i for bad in (True, False) for i in [i for i in single[x] if single[x][i] is bad][:2]]
            for x in (one, two)
        ]
        for i, j in itertools.product(*chosen):
            changes = {one: values[0][i], two: values[1][j]}
            message = refusal(lambda: build(kind, **needed | changes))  # noqa: B023
            assert not message or re.search(rf"\b({names}|{name})\b", message), message


def test_a_partition_does_not_hide_another_mistake():
    with refused("encode.num_folds must be >= 3, got 2."):
        config.STAGES["encode"].load().Config(partition=("word_rate",), num_folds=2)


@dataclasses.dataclass(frozen=True)
class Example:
    names: checks.Names = ()
    share: Annotated[float, checks.fraction] = 0.5
    sizes: Annotated[tuple[int, ...], checks.each("be even", lambda x: x % 2 == 0)] = ()
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        checks.check(self, "some")


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"names": "word"}, "some.names must be a tuple, got 'word'."),
        ({"names": ("a", 1)}, "some.names must hold strings, got 1."),
        ({"names": ("a", "a")}, "some.names must differ, got ('a', 'a')."),
        ({"share": True}, "some.share must be a number, got True."),
        ({"share": NAN}, "some.share must lie between 0 and 1, got nan."),
        ({"sizes": (2, 3, 5)}, "some.sizes must be even, got 3."),
        ({"sizes": (2, True)}, "some.sizes must hold integers, got True."),
        ({"weights": {"a": "b"}}, "some.weights must hold numbers, got 'b'."),
        ({"weights": {"a": INF}}, "some.weights must be finite, got {'a': inf}."),
        ({"weights": {1: 2.0}}, "some.weights must be named by strings, got 1."),
    ],
)
def test_messages(settings, message):
    with refused(message):
        build(Example, **settings)


def test_lists_and_whole_numbers_are_taken():
    build(Example, names=["a"], sizes=[2], weights={"a": 1})
