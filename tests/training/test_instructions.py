"""Readers of instruction data: every published layout, and what they refuse."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxalign.errors import InputError
from jaxalign.training import instructions
from jaxalign.training.instructions import Turn

ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
PAIR = (Turn("user", "Hi"), Turn("assistant", "Hello"))
SEED = {"instruction": "Add.", "instances": [{"input": "1 and 2", "output": "3"}]}
RECORDS = {
    "instruction": (ALPACA, (Turn("user", "Add.", "1 and 2"), Turn("assistant", "3"))),
    "seed tasks": (SEED, (Turn("user", "Add.", "1 and 2"), Turn("assistant", "3"))),
    "prompt and completion": ({"prompt": "Hi", "completion": "Hello"}, PAIR),
    "inputs and targets": ({"inputs": "Hi", "targets": "Hello"}, PAIR),
    "messages": ({"messages": CHAT}, (Turn("system", "Be brief."), *PAIR)),
    "conversations": ({"conversations": SHAREGPT}, PAIR),
    "text": ({"text": "Once."}, ()),
}


def write(path, records):
    if path.suffix == ".json":
        path.write_text(json.dumps(records))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    else:
        pq.write_table(pa.Table.from_pylist(records), path)
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize("schema", RECORDS)
def test_every_schema_in_every_format(tmp_path, schema, suffix):
    record, turns = RECORDS[schema]
    data = instructions.read(write(tmp_path / f"data{suffix}", [record | {"id": 7}, record]))
    assert data.schema == schema
    assert [row.turns for row in data.rows] == [turns, turns]
    assert data.rows[0].text == ("Once." if schema == "text" else "")
    assert data.unread == ("id",)


def test_a_text_is_one_row(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("Once.\n\nTwice.\u2028")
    data = instructions.read(path)
    assert (data.schema, [row.text for row in data.rows]) == ("text", ["Once.\n\nTwice.\u2028"])


def test_a_line_may_hold_any_letter(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"prompt": "a\u2028b", "completion": "c"}, ensure_ascii=False))
    assert instructions.read(path).rows[0].turns[0].text == "a\u2028b"


def test_rows_without_a_response(tmp_path):
    rows = [ALPACA, ALPACA | {"output": " "}, {"instruction": "", "input": None, "output": ""}]
    path = write(tmp_path / "data.json", rows)
    with pytest.raises(InputError, match=r"data.json, row 2 must have a response .* 1 of 2 rows"):
        instructions.read(path)
    dropped = instructions.read(path, no_response="drop")
    kept = instructions.read(path, no_response="keep")
    found = lambda x: (len(x.rows), x.num_empty, x.num_dropped, x.num_without_response)
    assert (found(dropped), found(kept)) == ((1, 1, 1, 0), (2, 1, 0, 1))


def test_a_question_that_nobody_answers_cannot_be_kept(tmp_path):
    path = write(tmp_path / "data.json", [{"messages": CHAT}, {"messages": CHAT[:2]}])
    data = instructions.read(path, no_response="keep")
    assert (len(data.rows), data.num_dropped) == (1, 1)


def test_real_tasks(data_root):
    data = instructions.read(data_root / "self_instruct/seed_tasks.jsonl")
    assert (data.schema, len(data.rows)) == ("seed tasks", 175)
    assert sum(bool(row.turns[0].input) for row in data.rows) == 125


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("a.json", [ALPACA, {"text": "b"}], "found instruction first, and text in row 2"),
        ("a.json", [{"question": "b"}], r"row 1 must have the keys of a schema .*found question"),
        ("a.json", [ALPACA | {"output": 3}], "row 1: output must be text, found int"),
        ("a.json", ["b"], "row 1 must be an object, found str"),
        ("a.json", ALPACA, "must hold a list of rows, found dict"),
        ("a.json", [], "must hold text: found 0 rows"),
        ("a.json", [{"messages": []}], "row 1: messages must be a list that holds something"),
        ("a.json", [{"messages": [CHAT[1]] * 2}], "turn 2 must be of the assistant, found 'user'"),
        ("a.json", [{"messages": CHAT[2:]}], "turn 1 must be of the user, found 'assistant'"),
        ("a.json", [{"messages": [{"role": "tool", "content": "b"}]}], "role must be one of"),
        ("a.json", [{"messages": [{"role": "user", "content": [1]}]}], "content must be text"),
        ("a.jsonl", "{}\n{", "line 1 must have the keys"),
        ("a.jsonl", '{"text": "b"}\n{', "line 2 must be JSON"),
        ("a.json", "[", "must be JSON"),
        ("a.json", b"\xff", "must be UTF-8: byte 0"),
        ("a.parquet", "b", "must be a Parquet file"),
        ("a.csv", "b", "must end in .json, .jsonl, .parquet, .txt"),
    ],
)
def test_refusals(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message):
        instructions.read(path)


def test_missing_file_and_unknown_rule(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        instructions.read(tmp_path / "a.json")
    with pytest.raises(InputError, match="no_response must be one of refuse, drop, keep"):
        instructions.read(tmp_path / "a.json", no_response="skip")
