"""What a setting must be, declared in its annotation, and the check of all settings of a class.

    num_folds: Annotated[int, at_least(3)] = 6

`check` refuses a value of another type, or one for which a declared `Rule` does not hold, in one
line that names the setting: "encode.num_folds must be >= 3, got 2."
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from jaxalign.errors import InputError


class Rule(NamedTuple):
    """Something that must hold of a setting.

    Attributes:
      must: how the message goes on after "NAME must".
      holds: whether the rule holds of a value, which has the right type already.
      shown: what the message shows of a value that breaks it.
      allowed: the names that may be chosen, where only some may.
    """

    must: str
    holds: Callable[[Any], Any]
    shown: Callable[[Any], str] = repr
    allowed: Collection[str] = ()


def at_least(low: int | float) -> Rule:
    """Require a number that is not smaller."""
    return Rule(f"be >= {low}", lambda x: x >= low)


def one_of(names: Collection[str]) -> Rule:
    """Require one of these names."""
    return Rule(f"be one of {', '.join(names)}", lambda x: x in names, allowed=names)


def each(must: str, holds: Callable[[Any], bool]) -> Rule:
    """Require something of every entry; the message shows the first that breaks it."""
    return Rule(
        must,
        lambda x: all(map(holds, x)),
        lambda x: repr(next(entry for entry in x if not holds(entry))),
    )


def among(names: Collection[str]) -> Rule:
    """Require that all entries are among these names."""
    return each(f"be among {', '.join(names)}", lambda x: x in names)._replace(allowed=names)


def some(must: str) -> Rule:
    """Require an entry or a letter; the message has these words, such as "name at least one"."""
    return Rule(must, len, lambda x: repr(x) if isinstance(x, str) else "none")


differ = Rule("differ", lambda x: len(set(x)) == len(x))
above_zero = Rule("be > 0", lambda x: x > 0)
positive = Rule("be positive", lambda x: 0 < x < math.inf)
all_positive = Rule("be positive", lambda x: len(x) and all(0 < y < math.inf for y in x))
fraction = Rule("lie between 0 and 1", lambda x: 0 < x < 1)
open_unit = Rule("lie in (0, 1)", lambda x: 0 < x < 1)

Count = Annotated[int, at_least(1)]
NotNegative = Annotated[int, at_least(0)]
Names = Annotated[tuple[str, ...], differ]
Penalties = Annotated[tuple[float, ...], all_positive]

# What a value of a type must be, and what several of them are called.
_TYPES = {
    bool: ("True or False", "True or False"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
}

_FINITE = Rule("be finite", lambda x: all(map(math.isfinite, _floats(x))))


def check(settings: Any, stage: str = "") -> None:
    """Check the type of every field of a dataclass, and the rules of its annotation.

    Args:
      settings: an instance; fields may hold bool, int, float, str, tuples of them, or mappings from
        strings to them. Other types are not checked.
      stage: what the message puts before the name of a field.

    Raises:
      InputError: naming the first field with a wrong value.
    """
    for name, (kind, rules) in _declared(type(settings)).items():
        value, label = getattr(settings, name), f"{stage}.{name}" if stage else name
        if wrong := _wrong_type(value, kind):
            raise InputError(f"{label} must {wrong}.")
        for rule in (*rules, _FINITE):
            if not rule.holds(value):
                raise InputError(f"{label} must {rule.must}, got {rule.shown(value)}.")


def build_rows(settings: Any, stage: str, kinds: Mapping[str, type]) -> None:
    """Replace the dictionaries of fields that map names to dataclasses by those dataclasses.

    Args:
      settings: a frozen dataclass. A ConfigDict holds its rows as plain dictionaries.
      stage: what messages put before the names of fields.
      kinds: the dataclass of each such field.

    Raises:
      InputError: naming the field and row with a wrong value.
    """
    for field, kind in kinds.items():
        label, rows, built = f"{stage}.{field}", getattr(settings, field), {}
        if not isinstance(rows, Mapping):
            raise InputError(f"{label} must be a mapping, got {rows!r}.")
        for name, row in rows.items():
            if not (isinstance(name, str) and name.isidentifier()):  # files and flags have it
                raise InputError(f"{label} must be named by words, got {name!r}.")
            if not isinstance(row, kind | Mapping):
                raise InputError(f"{label}.{name} must be a mapping, got {row!r}.")
            known = {x.name for x in dataclasses.fields(kind)}
            needed = {x.name for x in dataclasses.fields(kind) if x.default is dataclasses.MISSING}
            if isinstance(row, Mapping) and (bad := (set(row) - known) | (needed - set(row))):
                raise InputError(
                    f"{label}.{name} must have the settings of {kind.__name__}: "
                    f"{min(bad, key=str)!r} is {'missing' if bad & needed else 'not one'}."
                )
            try:
                built[name] = row if isinstance(row, kind) else kind(**row)
            except InputError as error:
                raise InputError(f"{label}.{name}.{error}") from error
        object.__setattr__(settings, field, built)


@functools.cache
def _declared(kind: type) -> dict[str, tuple[Any, list[Rule]]]:
    """Return the type and the rules of every field of a dataclass."""
    hints, found = get_type_hints(kind, include_extras=True), {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        parts = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        found[field.name] = parts[0], [x for x in parts[1:] if isinstance(x, Rule)]
    return found


def _wrong_type(value: Any, kind: Any) -> str:
    """Say what a value must be and what it is instead; "" if it has the type."""
    if kind in _TYPES:
        if not _is(value, kind):
            return f"be {_TYPES[kind][0]}, got {value!r}"
        return ""
    inner = get_args(kind)
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple | list):
            return f"be a tuple, got {value!r}"
    elif get_origin(kind) is Mapping and inner[1] in _TYPES:
        if not isinstance(value, Mapping):
            return f"be a mapping, got {value!r}"
        if wrong := [x for x in value if not isinstance(x, str)]:
            return f"be named by strings, got {wrong[0]!r}"
        inner, value = inner[1:], value.values()
    else:
        return ""
    if wrong := [x for x in value if not _is(x, inner[0])]:
        return f"hold {_TYPES[inner[0]][1]}, got {wrong[0]!r}"
    return ""


def _is(value: Any, kind: type) -> bool:
    """Whether a value has a type: True is not a number, and an integer is."""
    if kind is not bool and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _floats(value: Any) -> list[float]:
    """Return the value, or its entries, that could be infinite."""
    if isinstance(value, Mapping):
        value = value.values()
    entries = value if isinstance(value, Collection) else [value]
    return [x for x in entries if isinstance(x, float)]
