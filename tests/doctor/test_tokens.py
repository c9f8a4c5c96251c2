"""Faults of a model's files, each named by the check that looks for it."""

import json
import shutil

import numpy as np
import pytest

from jaxalign.doctor import patient, tokens
from jaxalign.doctor.findings import FAILED, OK, SKIPPED, WARNING
from jaxalign.models import zoo

TEMPLATE = "<s>{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def stimuli():
    """Words of the embedded passages."""
    return patient.find_stimuli("", None)


def examined(folder, stimuli, mesh):
    return patient.Patient(model=zoo.find(str(folder), None), stimuli=stimuli, mesh=mesh)


def by_check(found):
    return {x.check: x for x in found}


def test_the_wrong_token_for_padding_is_named(golden, copy_golden, stimuli, mesh):
    right = examined(golden / "roberta", stimuli, mesh)
    assert by_check(tokens.whose_tokens(right))["special tokens of config.json"].status == OK
    # One position less for each token: a table that is one row too long fits as well.
    wrong = copy_golden("roberta", pad_token_id=2)
    found = by_check(tokens.whose_tokens(examined(wrong, stimuli, mesh)))
    finding = found["special tokens of config.json"]
    assert finding.status == FAILED
    assert "pad 2 is '</s>', but the tokenizer's is '<pad>' (1)" in finding.said


def test_padding_on_the_left_is_named(copy_golden, stimuli, mesh):
    folder = copy_golden("decoders/gpt2")
    assert (
        by_check(tokens.whose_tokens(examined(folder, stimuli, mesh)))["side of padding"].status
        == OK
    )
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["padding"] = {
        **{"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None},
        **{"pad_id": 0, "pad_type_id": 0, "pad_token": "<s>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    finding = by_check(tokens.whose_tokens(examined(folder, stimuli, mesh)))["side of padding"]
    assert finding.status == WARNING  # its positions are a table
    assert "padding on the left" in finding.said
    rotary = copy_golden("decoders/llama3")
    shutil.copy(folder / "tokenizer.json", rotary / "tokenizer.json")
    finding = by_check(tokens.whose_tokens(examined(rotary, stimuli, mesh)))["side of padding"]
    assert finding.status == OK
    assert "padding on the left" in finding.said


@pytest.mark.slow
def test_the_tokenizer_of_another_model_is_found(tmp_path, stimuli, mesh):
    check = "the tokenizer is the model's"
    model = zoo.find("all-MiniLM-L6-v2", None)
    right = patient.Patient(model=model, stimuli=stimuli, mesh=mesh)
    assert by_check(tokens.whose_tokens(right))[check].status == OK
    folder = tmp_path / "other"
    shutil.copytree(model.tokenizer_path, folder)
    stored = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = stored["model"]["vocab"]
    # As many tokens, the special ones where they were, and words under other numbers.
    ids = np.arange(len(vocabulary))
    ids[1000:] = np.random.default_rng(0).permutation(ids[1000:])
    stored["model"]["vocab"] = {piece: int(ids[i]) for piece, i in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    finding = by_check(tokens.whose_tokens(examined(folder, stimuli, mesh)))[check]
    assert finding.status == FAILED
    assert "not the tokens that the rows were learned of" in finding.said


def test_random_rows_tell_nothing_of_their_tokenizer(mesh, stimuli, monkeypatch):
    model = zoo.find("all-MiniLM-L6-v2", None)
    rows = np.random.default_rng(0).normal(size=model.word_embedding_shape).astype(np.float32)
    monkeypatch.setattr(zoo.Model, "word_embedding", lambda self: rows)
    own = patient.Patient(model=model, stimuli=stimuli, mesh=mesh)
    finding = by_check(tokens.whose_tokens(own))["the tokenizer is the model's"]
    assert finding.status == SKIPPED
    assert "like random numbers" in finding.said


@pytest.mark.parametrize("template,status", [(TEMPLATE, OK), ("<s>" + TEMPLATE, FAILED)])
def test_a_template_that_begins_twice_is_named(copy_golden, stimuli, mesh, template, status):
    folder = copy_golden("decoders/gpt2")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (finding,) = tokens.chat(examined(folder, stimuli, mesh))
    assert finding.status == status
    assert ("<s> twice" in finding.said) == (status == FAILED or "who tokenises" in finding.said)


def test_tokens_that_are_nobodys_are_counted(golden, stimuli, mesh):
    found, table = tokens.what_is_read(examined(golden / "decoders/gpt2", stimuli, mesh))
    assert [x.status for x in found] == [OK, OK, OK]
    passes = examined(golden / "decoders/gpt2", stimuli, mesh).read().passes
    assert f"{passes.counts.passes} x '<s>'" in found[0].said
    assert list(table.text) == list(stimuli.text[:40])
    assert table.tokens[0].replace("\u0120", "").replace(" ", "") == stimuli.text[0].lower()


def test_text_that_the_tokenizer_does_not_know(golden, stimuli, mesh):
    words = patient.rows_of(stimuli, range(4))
    other = patient.Patient(
        model=zoo.find("all-MiniLM-L6-v2", None),
        stimuli=type(words)(
            **{
                **{"stimulus_id": words.stimulus_id, "passage": words.passage, "run": words.run},
                **{"text": ["a", "\u1200\u1208", "b", "\u1200"], "unit": "word"},
            }
        ),
        mesh=mesh,
    )
    found, _ = tokens.what_is_read(other)
    finding = by_check(found)["the tokenizer knows the text"]
    assert finding.status == WARNING
    assert "2 of 4 tokens (50%)" in finding.said
