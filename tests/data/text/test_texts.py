import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from tokenizers import decoders, models, pre_tokenizers, processors

from jaxalign.data.text import texts, tokenizer_files

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"
CONTENT = " = Title = \n Naïve words — 10 @-@ 20 €\r\n\n end \n"


def byte_level(*, around=False):
    """A tokenizer whose every token is a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(letters)} | {"<s>": 256, "</s>": 257}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)]
        )
    return tokenizer


def test_plain_text_is_taken_as_it_is(tmp_path):
    path = tmp_path / "wiki.txt"
    path.write_bytes(CONTENT.encode())
    found = texts.find(str(path), None)
    assert (found.name, found.content) == ("wiki.txt", CONTENT)
    path.write_bytes(CONTENT.replace("\r", "").encode())
    assert texts.find(str(path), None).hash != found.hash


def test_rows_of_parquet_are_joined(tmp_path):
    rows = ["", " = Title = \n", "", " Naïve words . \n"]
    folder = tmp_path / "wikitext-2-raw-v1"
    folder.mkdir()
    pd.DataFrame({"text": rows}).to_parquet(folder / "test-00000-of-00001.parquet")
    found = texts.find("wikitext2-test", tmp_path)
    assert (found.name, found.content) == ("wikitext2-test", "\n\n".join(rows))


def test_missing_texts_are_refused(tmp_path):
    with refused("text must be one of wikitext2-test, or a file: there is no file 'nowhere.txt'."):
        texts.find("nowhere.txt", None)
    with refused("text must be one of wikitext2-test, or a file"):
        texts.find(str(tmp_path), None)  # a folder
    with refused("text wikitext2-test lies in the data folder", "give --data_root"):
        texts.find("wikitext2-test", None)
    with refused("text must lie at", "wikitext-2-raw-v1/test-00000-of-00001.parquet"):
        texts.find("wikitext2-test", tmp_path)


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("empty.txt", b"", "must not be empty: it holds 0 characters"),
        ("blank.txt", b" \n\n", "must not be empty: it holds 3 characters"),
        ("latin.txt", "caf\u00e9 noir".encode("latin-1"), "must be UTF-8: byte 3 is not"),
        ("broken.parquet", b"PAR1 and no more", "must be a Parquet file"),
    ],
)
def test_damaged_texts_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with refused(f"text {tmp_path / name}", message):
        texts.find(str(tmp_path / name), None)


@pytest.mark.parametrize(
    "column,values,message",
    [
        ("words", ["a"], "must have a column 'text', found words"),
        ("text", [1, 2], "column 'text' must hold text, found int64"),
        ("text", ["a", None], "must have text in every row, but 1 have none"),
        ("text", ["", ""], "must not be empty"),
    ],
)
def test_other_tables_are_refused(tmp_path, column, values, message):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({column: values}), path)
    with refused(f"text {path}", message):
        texts.find(str(path), None)


@settings(deadline=None, max_examples=50)
@given(st.text("a b\n\r\xe9\u20ac\U0001f600", min_size=1), st.booleans())
def test_bytes_of_a_text_are_those_of_its_tokens(content, around):
    found = texts.tokenize(byte_level(around=around), content)
    size = len(content.encode())
    assert found.num_bytes.sum() == size and (found.num_bytes >= 0).all()
    assert len(found.ids) == size + around and found.num_given == 1
    assert (found.ids[0] == 256) == around  # before the text, and nothing after it
    if around:
        assert found.num_bytes[0] == 0
    # A letter of several bytes belongs to the first of its tokens.
    expected = [n for c in content for n in (len(c.encode()), *[0] * (len(c.encode()) - 1))]
    assert found.num_bytes[around:].tolist() == expected


@pytest.mark.parametrize("name", ["llama", "decoders/gpt2"])
def test_dropped_spaces_count(name):
    """These drop spaces between words, and at both ends of the text."""
    tokenizer = tokenizer_files.load(GOLDEN / name)
    content = "  the dog sat\n on   a mat  \n"
    found = texts.tokenize(tokenizer, content)
    assert found.num_bytes.sum() == len(content)
    assert found.num_bytes[0] == 0 and found.num_given == 1  # <s>
    assert found.ids.tolist() == tokenizer.encode(content).ids
    ends = np.cumsum(found.num_bytes)
    words = [content[a:b].strip() for a, b in zip(ends, ends[1:], strict=False)]
    assert "".join(words) == "thedogsatonamat"


def test_nothing_becomes_a_token():
    tokenizer = byte_level(around=True)
    tokenizer.normalizer = tokenizers.normalizers.Strip()
    with refused("a text must hold something that becomes a token."):
        texts.tokenize(tokenizer, "  ")
