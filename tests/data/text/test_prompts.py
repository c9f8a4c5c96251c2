"""Chat templates, rendered by the library that they were written for."""

import json
import shutil
import sys

import pytest
from parts import NUMBERS, words
from refusals import refused

from jaxalign.data.text import contexts, prompts, tokenizer_files

CHATML = (
    "{% for turn in messages %}{{ '<|im_start|>' + turn.role + '\n' + turn.content + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)


@pytest.fixture(scope="module")
def marked(tmp_path_factory, gpt2_path):
    """GPT-2's tokenizer with the marks of a chat."""
    path = tmp_path_factory.mktemp("marked") / "tokenizer.json"
    tokenizer = tokenizer_files.load(gpt2_path)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(path))
    return path


@pytest.fixture
def folder(tmp_path, marked):
    """Write the tokenizer, and a template as it is published."""

    def make(template=CHATML, *, own_file=False):
        shutil.copy(marked, tmp_path / "tokenizer.json")
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>"}
        if own_file:
            (tmp_path / "chat_template.jinja").write_text(template)
        elif template:
            config["chat_template"] = template
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        return tmp_path

    return make


@pytest.mark.slow
@pytest.mark.parametrize("own_file", [False, True])
def test_a_turn_by_hand(folder, own_file):
    frame = prompts.chat(
        folder(own_file=own_file),
        NUMBERS,
        prompt="Read: ",
        suffix=" Thanks.",
        system="You read.",
    )
    assert frame.before == ("<|im_start|>system\nYou read.<|im_end|>\n<|im_start|>user\nRead: ")
    assert frame.after == " Thanks.<|im_end|>\n"
    assert not frame.special_tokens


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["none", "accumulate", "window:2"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_tokens_of_the_part_alone_are_read(folder, rule, causal):
    path = folder()
    frame = prompts.chat(path, NUMBERS)
    tokenizer = tokenizer_files.load(path)
    found = contexts.plan(
        tokenizer, words(*NUMBERS), rule, max_length=60, causal=causal, frame=frame
    )
    for i, number in enumerate(NUMBERS):
        row = found.rows[found.row[i]].tolist()
        assert row[0] == tokenizer.token_to_id("<|im_start|>")
        assert tokenizer.decode(row[found.start[i] : found.stop[i]]).strip() == number
        if found.complete[i]:
            assert row[-2] == tokenizer.token_to_id("<|im_end|>")
    if rule == "none":
        # As transformers renders and tokenises it.
        import transformers

        whole = transformers.AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        for i, number in enumerate(NUMBERS):
            turns = [{"role": "user", "content": number}]
            expected = whole.apply_chat_template(turns, tokenize=True, return_dict=False)
            assert found.rows[found.row[i]].tolist() == list(expected)
    if rule == "accumulate" and causal:
        assert found.counts.passes == 1


@pytest.mark.slow
def test_a_folder_without_a_template_is_refused(folder):
    with refused("must hold a chat template", "there is none"):
        prompts.chat(folder(""), NUMBERS)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with refused(tmp_path, "must hold a tokenizer that transformers reads"):
        prompts.chat(tmp_path, NUMBERS)


@pytest.mark.slow
def test_a_template_that_alters_a_text_is_refused(folder):
    template = CHATML.replace("turn.content", "(turn.content | trim)")
    prompts.chat(folder(template), ["kept"])
    with refused("must take a text as it is, but alters ' lost '"):
        prompts.chat(folder(template), ["kept", " lost "])


@pytest.mark.slow
@pytest.mark.parametrize(
    "template", ["Hello.", CHATML + CHATML], ids=["without the turn", "the turn twice"]
)
def test_a_template_must_hold_the_turn_once(folder, template):
    with refused("must hold the user's turn once"):
        prompts.chat(folder(template), NUMBERS)


@pytest.mark.slow
def test_a_template_that_refuses_roles_says_so(folder):
    template = "{{ raise_exception('no system turn here') }}"
    with refused("the chat template must take these turns", "no system turn here"):
        prompts.chat(folder(template), NUMBERS, system="You read.")


def test_transformers_is_asked_for(folder, monkeypatch):
    path = folder()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with refused("chat templates need the package transformers", "not installed"):
        prompts.chat(path, NUMBERS)
