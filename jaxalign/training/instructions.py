"""Instruction data: files in the layouts in which they are published -> rows of one form."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from jaxalign.errors import InputError, one_line

# What a row without a response leads to.
NO_RESPONSE = ("refuse", "drop", "keep")
# Who speaks, in the words of messages and of ShareGPT.
_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}


class Turn(NamedTuple):
    """What one side says."""

    role: str  # "system", "user" or "assistant"
    text: str
    # Of a user's turn: what the instruction is about, in data that keep the two apart.
    input: str = ""


class Row(NamedTuple):
    """One example: turns that end with a response, or a plain text."""

    place: str  # in the file, for messages
    turns: tuple[Turn, ...]  # () of a plain text
    text: str = ""  # a plain text, which has no turns

    @property
    def response(self) -> str:
        """The last thing that the assistant says; empty if that is nothing."""
        last = self.turns[-1] if self.turns else None
        return last.text if last is not None and last.role == "assistant" else ""

    @property
    def is_answered(self) -> bool:
        """Whether every turn of a user is followed by a response that holds more than spaces."""
        answers = [x for x in self.turns if x.role == "assistant"]
        asked = [x for x in self.turns if x.role == "user"]
        return len(answers) == len(asked) and all(x.text.strip() for x in answers)


class Data(NamedTuple):
    """What a file holds.

    Attributes:
      path: of the file.
      schema: key of `SCHEMAS`.
      rows: in the order of the file.
      num_empty: rows that were left out because they hold no text at all.
      num_dropped: rows that were left out because they have no response.
      num_without_response: rows that were kept though they have none: the end token is all that
        is learned of them.
      unread: keys of the records that were not read.
    """

    path: pathlib.Path
    schema: str
    rows: tuple[Row, ...]
    num_empty: int
    num_dropped: int
    num_without_response: int
    unread: tuple[str, ...]


class Schema(NamedTuple):
    """A layout of records: those that hold all of `keys` are of it."""

    keys: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Mapping[str, Any], str], list[Row]]


def _text(record: Mapping[str, Any], key: str, place: str) -> str:
    """Return the text under a key; nothing is the empty text."""
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{place}: {key} must be text, found {type(value).__name__}.")
    return value


def _pair(prompt: str, response: str, place: str, *, about: str = "") -> Row:
    return Row(place, (Turn("user", prompt, about), Turn("assistant", response)))


def _instruction(record: Mapping[str, Any], place: str) -> list[Row]:
    instruction, about, output = (
        _text(record, x, place) for x in ("instruction", "input", "output")
    )
    return [_pair(instruction, output, place, about=about)]


def _seed_task(record: Mapping[str, Any], place: str) -> list[Row]:
    instances = _list(record, "instances", place)
    instruction, rows = _text(record, "instruction", place), []
    for i, instance in enumerate(instances, 1):
        at = f"{place}, instance {i}"
        about, output = (_text(_object(instance, at), x, at) for x in ("input", "output"))
        rows.append(_pair(instruction, output, at, about=about))
    return rows


def _completion(record: Mapping[str, Any], place: str) -> list[Row]:
    return [_pair(_text(record, "prompt", place), _text(record, "completion", place), place)]


def _flan(record: Mapping[str, Any], place: str) -> list[Row]:
    return [_pair(_text(record, "inputs", place), _text(record, "targets", place), place)]


def _messages(record: Mapping[str, Any], place: str) -> list[Row]:
    return [_conversation(_list(record, "messages", place), "role", "content", place)]


def _sharegpt(record: Mapping[str, Any], place: str) -> list[Row]:
    return [_conversation(_list(record, "conversations", place), "from", "value", place)]


def _plain(record: Mapping[str, Any], place: str) -> list[Row]:
    return [Row(place, (), _text(record, "text", place))]


# The first one whose keys a record has. Sources: tatsu-lab/stanford_alpaca (instruction, input,
# output); yizhongw/self-instruct, seed_tasks.jsonl; the data formats of TRL's documentation
# (messages, prompt and completion, text); lm-sys/FastChat (conversations); google-research/FLAN.
SCHEMAS = {
    "messages": Schema(("messages",), (), _messages),
    "conversations": Schema(("conversations",), (), _sharegpt),
    "seed tasks": Schema(("instruction", "instances"), (), _seed_task),
    "instruction": Schema(("instruction", "output"), ("input",), _instruction),
    "prompt and completion": Schema(("prompt", "completion"), (), _completion),
    "inputs and targets": Schema(("inputs", "targets"), (), _flan),
    "text": Schema(("text",), (), _plain),
}


def read(path: pathlib.Path, *, no_response: str = "refuse") -> Data:
    """Read a file of instruction data, or of plain texts.

    A `.json` is a list of objects, a `.jsonl` has one on each line, and a `.parquet` has one in
    each row; their keys say which of `SCHEMAS` it is, the same for all. A `.txt` is one plain text.

    Args:
      path: of the file.
      no_response: of `NO_RESPONSE`: refuse the file, leave such rows out, or keep those whose last
        response is empty (as the authors of Alpaca do; their end token is learned).

    Raises:
      InputError: if it cannot be read, holds nothing, mixes schemas, or a row is not what its
        schema says.
    """
    if no_response not in NO_RESPONSE:
        raise InputError(
            f"no_response must be one of {', '.join(NO_RESPONSE)}, got {no_response!r}."
        )
    schema, rows, unread = "", [], {}
    for place, record in _records(path):
        found = _schema(record, place)
        schema = schema or found
        if found != schema:
            raise InputError(
                f"{path} must hold rows of one schema: found {schema} first, and {found} in "
                f"{place}."
            )
        rows += SCHEMAS[found].read(record, f"{path}, {place}")
        known = (*SCHEMAS[found].keys, *SCHEMAS[found].optional)
        unread |= dict.fromkeys(x for x in record if x not in known)
    held = [x for x in rows if x.text.strip() or any((y.text + y.input).strip() for y in x.turns)]
    if not held:
        raise InputError(f"{path} must hold text: found {len(rows)} rows, none of which has any.")
    kept = held if schema == "text" else _answered(held, no_response)
    if not kept:
        raise InputError(f"{path} must hold responses: none of its {len(rows)} rows has one.")
    return Data(
        path=path,
        schema=schema,
        rows=tuple(kept),
        num_empty=len(rows) - len(held),
        num_dropped=len(held) - len(kept),
        num_without_response=sum(bool(x.turns) and not x.is_answered for x in kept),
        unread=tuple(unread),
    )


def _answered(rows: list[Row], no_response: str) -> list[Row]:
    """Apply the rule for rows without a response.

    Raises:
      InputError: if they are to be refused, naming the first.
    """
    without = [x for x in rows if not x.is_answered]
    if without and no_response == "refuse":
        raise InputError(
            f"{without[0].place} must have a response to each instruction: it has none, as "
            f"{len(without)} of {len(rows)} rows; no_response=drop leaves them out, and keep "
            "learns that nothing is said."
        )
    if no_response == "keep":
        # A last response may be empty; without a turn of the assistant there is none to learn.
        return [x for x in rows if x.turns[-1].role == "assistant"]
    return [x for x in rows if x.is_answered]


def _schema(record: Mapping[str, Any], place: str) -> str:
    for name, schema in SCHEMAS.items():
        if all(key in record for key in schema.keys):
            return name
    wanted = "; ".join(", ".join(x.keys) for x in SCHEMAS.values())
    raise InputError(f"{place} must have the keys of a schema ({wanted}): found {_shown(record)}.")


def _conversation(turns: list, who: str, what: str, place: str) -> Row:
    """Read turns that begin with the user, after the system if it speaks, and take turns."""
    found = []
    for i, turn in enumerate(turns, 1):
        at = f"{place}, turn {i}"
        turn = _object(turn, at)
        name = _text(turn, who, at)
        if name not in _ROLES:
            raise InputError(f"{at}: {who} must be one of {', '.join(_ROLES)}, found {name!r}.")
        found.append(Turn(_ROLES[name], _text(turn, what, at)))
        if found[-1].role != _expected(found[:-1]) and not (found[-1].role == "system" and i == 1):
            raise InputError(f"{at} must be of the {_expected(found[:-1])}, found {name!r}.")
    return Row(place, tuple(found))


def _expected(before: list[Turn]) -> str:
    return "assistant" if before and before[-1].role == "user" else "user"


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{place} must be an object, found {type(value).__name__}.")
    return value


def _list(record: Mapping[str, Any], key: str, place: str) -> list:
    if not isinstance(record[key], list) or not record[key]:
        raise InputError(f"{place}: {key} must be a list that holds something.")
    return record[key]


def _shown(record: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, record))[:8]) or "no key"


def _records(path: pathlib.Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each record, and where it stands in its file."""
    readers = {".json": _json, ".jsonl": _lines, ".parquet": _parquet, ".txt": _whole}
    if path.suffix not in readers:
        raise InputError(f"instruction data must end in {', '.join(readers)}: found {path}.")
    if not path.is_file():
        raise InputError(f"instruction data must lie at {path}: there is no such file.")
    for place, record in readers[path.suffix](path):
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise InputError(f"{path}, {place} must be an object, found {kind}.")
        yield place, record


def _decoded(path: pathlib.Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8: byte {error.start} is not.") from error


def _json(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    try:
        content = json.loads(_decoded(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} must be JSON: {one_line(error)}.") from error
    if not isinstance(content, list):
        raise InputError(f"{path} must hold a list of rows, found {type(content).__name__}.")
    yield from ((f"row {i}", record) for i, record in enumerate(content, 1))


def _lines(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    # Not `splitlines`: a text may hold U+2028, which ends no line of JSON.
    for i, line in enumerate(_decoded(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"line {i}", json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path}, line {i} must be JSON: {one_line(error)}.") from error


def _parquet(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} must be a Parquet file: {one_line(error)}.") from error
    yield from ((f"row {i}", record) for i, record in enumerate(table.to_pylist(), 1))


def _whole(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    yield "the text", {"text": _decoded(path)}
