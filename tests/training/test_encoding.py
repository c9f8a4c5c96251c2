"""Tokens and masks of every arm, against the recipe's own steps on real rows."""

import json
import pathlib

import numpy as np
import pytest
import tokenizers
import transformers

from jaxalign.data.text import tokenizer_files
from jaxalign.errors import InputError
from jaxalign.models import zoo
from jaxalign.training import arms, encoding, instructions, templates
from jaxalign.training.instructions import Data, Row, Turn

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_files.load(GOLDEN / "llama")


def reader(tokenizer, **options):
    options = {"max_length": 512, "end": tokenizer.token_to_id("</s>")} | options
    return encoding.Reader(tokenizer=tokenizer, **options)


def data(*pairs, schema="instruction"):
    rows = [
        Row(f"row {i}", (Turn("user", asked, about), Turn("assistant", answer)))
        for i, (asked, about, answer) in enumerate(pairs, 1)
    ]
    return Data(pathlib.Path("data.json"), schema, tuple(rows), 0, 0, 0, ())


FOUR = data(
    ("the red ball", "", "under the gate"),
    ("one day", "a little girl", "she loved to play"),
    ("old", "the park", "morning"),
    ("ask her", "", "the key to the garden"),
)


def text(tokenizer, ids):
    """Decode without spaces: the golden tokenizer tells nothing of them."""
    return tokenizer.decode(list(ids), skip_special_tokens=False).replace(" ", "")


def test_alpacas_prompts_as_published():
    with_input, without = (templates.pieces(row, "alpaca")[0].text for row in FOUR.rows[1::-1])
    assert with_input == (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
        "one day\n\n### Input:\na little girl\n\n### Response:"
    )
    assert without == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nthe red ball\n\n### Response:"
    )


# The authors' own steps: both texts are cut apart, and labels of the prompt are masked.
def reference(fast, prompt, response, max_length):
    cut = {"max_length": max_length, "truncation": True}
    ids = fast(prompt + response + fast.eos_token, **cut)["input_ids"]
    masked = len(fast(prompt, **cut)["input_ids"])
    return ids, [-100 if i < masked else token for i, token in enumerate(ids)]


@pytest.mark.slow
@pytest.mark.parametrize("name,max_length", [("gpt2", 120), ("llama", 512)])
def test_masks_are_the_recipes_on_real_rows(data_root, tokenizer, name, max_length):
    if name == "gpt2":
        tokenizer = tokenizer_files.load(data_root / "tokenizers_gpt2")
    end = "</s>" if name == "llama" else "<|endoftext|>"
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer.to_str()), eos_token=end
    )
    tasks = instructions.read(data_root / "self_instruct/seed_tasks.jsonl")
    how = reader(tokenizer, max_length=max_length, end=tokenizer.token_to_id(end))
    found, counts = encoding.encode(tasks, "instruction", how)
    longer = merged = 0
    for row, x in zip(tasks.rows, found, strict=True):
        prompt = templates.pieces(row, "alpaca")[0].text
        ids, labels = reference(fast, prompt, row.response, max_length)
        assert x.tokens.tolist() == ids
        assert np.where(x.learned, x.tokens, -100).tolist() == labels
        longer += x.tokens[-1] != how.end
        asked = fast(prompt)["input_ids"]
        merged += fast(prompt + row.response)["input_ids"][: len(asked)] != asked
    assert counts.rows == 175 and 0 < counts.cut == longer
    assert counts.targets == sum(x.learned.sum() for x in found)
    # A colon and what a response begins with may be one token of GPT-2.
    assert counts.merged == merged and (merged > 0) == (name == "gpt2")


def test_arms_differ_in_what_they_say_alone(tokenizer):
    corpus = "once upon a time there was a little girl who had a red ball " * 4
    made = {
        arm: encoding.encode(FOUR, arm, reader(tokenizer), seed=3, corpus=corpus)[0]
        for arm in arms.ARMS
    }
    own = made["instruction"]
    targets = lambda rows: [x.tokens[x.learned].tolist() for x in rows]
    assert text(tokenizer, targets(own)[0]) == "underthegate</s>"
    for arm in ("no_instruction", "no_heading", "response_only", "shuffled", "frozen"):
        assert targets(made[arm]) == targets(own), arm
    for x, y in zip(made["frozen"], own, strict=True):
        np.testing.assert_array_equal(x.tokens, y.tokens)
    for x, y in zip(made["plain_lm"], own, strict=True):
        np.testing.assert_array_equal(x.tokens, y.tokens)
        assert x.learned.tolist() == [False] + [True] * (len(y.tokens) - 1)
    sizes = [len(x) for x in targets(own)]
    assert [len(x) for x in targets(made["other_text"])] == sizes
    begin = tokenizer.token_to_id("<s>")
    assert all(
        x.tokens.tolist() == [begin, *y]
        for x, y in zip(made["response_only"], targets(own), strict=True)
    )
    together = [i for x in targets(made["other_text"]) for i in x]
    assert text(tokenizer, together) == corpus.replace(" ", "")[: len(text(tokenizer, together))]
    prompts = lambda arm: [text(tokenizer, x.tokens[~x.learned]) for x in made[arm]]
    assert sorted(prompts("shuffled")) == sorted(prompts("instruction"))
    assert all(x != y for x, y in zip(prompts("shuffled"), prompts("instruction"), strict=True))
    inputs = ["alittlegirl" in x for x in prompts("no_instruction")]
    assert [("oneday" in x, "###instruction" in x) for x in prompts("no_instruction")][1] == (
        False,
        True,
    ), prompts("no_instruction")[1]
    assert inputs == [False, True, False, False]
    assert not any("###instruction" in x for x in prompts("no_heading"))
    assert all("###response" in x for x in prompts("no_heading"))


def test_a_t5_reads_the_prompt_and_writes_the_response():
    tokenizer = tokenizer_files.load(GOLDEN / "t5_v1_0")
    end = tokenizer.encode("").ids[-1]
    how = reader(tokenizer, end=end, two_sided=True, template="plain")
    found, _ = encoding.encode(FOUR, "instruction", how)
    assert found[0].read.tolist() == tokenizer.encode("the red ball").ids
    assert found[0].tokens.tolist() == tokenizer.encode("under the gate").ids
    assert found[0].learned.all() and found[0].tokens[-1] == end
    alone, _ = encoding.encode(FOUR, "response_only", how)
    assert [x.read.tolist() for x in alone] == [tokenizer.encode("").ids] * 4
    short, counts = encoding.encode(
        FOUR, "instruction", reader(tokenizer, end=end, two_sided=True, max_length=4)
    )
    assert counts.cut == 4 and all(x.read[-1] == end and len(x.read) == 4 for x in short)


def chat(tokenizer, template=CHATML):
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer.to_str()),
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    fast.chat_template = template
    return reader(
        fast.backend_tokenizer, template="chat", chat=fast, end=fast.convert_tokens_to_ids("</s>")
    )


@pytest.mark.slow
def test_every_response_of_a_chat_is_learned(tokenizer):
    said = [("user", "hello"), ("assistant", "the park"), ("user", "one"), ("assistant", "day")]
    row = Row("row 1", tuple(Turn(*x) for x in said))
    how = chat(tokenizer)
    found, counts = encoding.encode(FOUR._replace(rows=(row,)), "instruction", how)
    whole = how.tokenizer.encode(
        how.chat.apply_chat_template([{"role": x, "content": y} for x, y in said], tokenize=False),
        add_special_tokens=False,
    )
    assert found[0].tokens.tolist() == whole.ids
    parts = text(how.tokenizer, found[0].tokens[found[0].learned])
    assert parts == "thepark<|im_end|>day<|im_end|>"
    assert counts.targets == found[0].learned.sum()


def test_plain_texts_fill_rows(tokenizer):
    story = "once upon a time there was a little girl who had a red ball"
    plain = data(schema="text")._replace(rows=(Row("the text", (), story),))
    found, _ = encoding.encode(plain, "plain_lm", reader(tokenizer, max_length=8))
    begin, end = (tokenizer.token_to_id(x) for x in ("<s>", "</s>"))
    assert all(x.tokens[0] == begin and not x.learned[0] and x.learned[1:].all() for x in found)
    assert {len(x.tokens) for x in found[:-1]} == {8}
    rest = [i for x in found for i in x.tokens[1:].tolist()]
    assert rest == [*tokenizer.encode(story).ids[1:], end]


def test_rules_for_long_rows(tokenizer):
    lengths = [len(x.tokens) for x in encoding.encode(FOUR, "instruction", reader(tokenizer))[0]]
    most = sorted(lengths)[1]
    how = reader(tokenizer, max_length=most)
    for arm in arms.ARMS:
        kept, counts = encoding.encode(FOUR, arm, how, too_long="drop", corpus="the ball " * 90)
        assert (len(kept), counts.dropped) == (2, 2), arm
    with pytest.raises(InputError, match=rf"row \d must have at most max_length={most} tokens"):
        encoding.encode(FOUR, "instruction", how, too_long="refuse")
    _, counts = encoding.encode(FOUR, "instruction", how)
    assert counts.cut == 2


@pytest.mark.parametrize(
    "given,arm,options,message",
    [
        (FOUR, "instructions", {}, "arm must be one of instruction, no_instruction"),
        (FOUR, "instruction", {"too_long": "skip"}, "too_long must be one of cut, drop, refuse"),
        (FOUR, "other_text", {"corpus": "the"}, "must have as many tokens as the responses"),
        (data(("one day", "", "old")), "shuffled", {}, "needs at least two rows"),
    ],
)
def test_refusals(tokenizer, given, arm, options, message):
    with pytest.raises(InputError, match=message):
        encoding.encode(given, arm, reader(tokenizer), **options)


def test_refusals_of_what_does_not_fit(tokenizer):
    plain = data(schema="text")._replace(rows=(Row("the text", (), "once"),))
    with pytest.raises(InputError, match="arm instruction needs responses: .* plain text"):
        encoding.encode(plain, "instruction", reader(tokenizer))
    with pytest.raises(InputError, match="arm no_heading needs template=alpaca"):
        encoding.encode(FOUR, "no_heading", reader(tokenizer, template="plain"))
    with pytest.raises(InputError, match="arm plain_lm needs a causal network"):
        encoding.encode(FOUR, "plain_lm", reader(tokenizer, two_sided=True))
    with pytest.raises(InputError, match="at least one response must fit in max_length=20"):
        encoding.encode(FOUR, "instruction", reader(tokenizer, max_length=20))
    with pytest.raises(InputError, match="template must be one of alpaca, plain, chat"):
        reader(tokenizer, template="vicuna")
    with pytest.raises(InputError, match="template must not be chat for a T5"):
        reader(tokenizer, template="chat", two_sided=True)
    several = Row("row 5", FOUR.rows[0].turns * 2)
    with pytest.raises(InputError, match="row 5 must have one instruction and one response"):
        encoding.encode(FOUR._replace(rows=(several,)), "instruction", reader(tokenizer))
    with pytest.raises(InputError, match="row 5 has 4 turns"):
        arms.rows(arms.ARMS["shuffled"], [several, several], seed=0)


@pytest.mark.slow
def test_chat_templates_that_do_not_serve(tokenizer):
    changing = "{{ messages | length }}" + CHATML
    with pytest.raises(InputError, match="must write the turns of row 1 the same whatever follows"):
        said = Row("row 1", FOUR.rows[0].turns * 2)
        encoding.encode(FOUR._replace(rows=(said,)), "instruction", chat(tokenizer, changing))
    with pytest.raises(InputError, match="must hold a chat template for template=chat"):
        encoding.encode(FOUR, "instruction", chat(tokenizer, None))


def test_a_model_says_how_it_reads():
    found = encoding.reader(zoo.find(str(GOLDEN / "llama"), None))
    # Its config.json names token 2 as the end, which its tokenizer calls <s>.
    assert (found.end, found.max_length, found.two_sided) == (2, 128, False)
    t5 = encoding.reader(zoo.find(str(GOLDEN / "t5_v1_0"), None), max_length=600)
    assert (t5.end, t5.max_length, t5.two_sided) == (2, 600, True)
    with pytest.raises(InputError, match="max_length must be at most the 128 tokens that llama"):
        encoding.reader(zoo.find(str(GOLDEN / "llama"), None), max_length=129)
    with pytest.raises(InputError, match="model bert must predict the next token"):
        encoding.reader(zoo.find(str(GOLDEN / "bert"), None))


def test_the_table_of_arms():
    assert list(arms.ARMS) == [
        *("instruction", "no_instruction", "no_heading", "response_only", "shuffled"),
        *("plain_lm", "other_text", "frozen"),
    ]
    assert [name for name, arm in arms.ARMS.items() if not arm.trains] == ["frozen"]
    assert json.dumps([arm.isolates for arm in arms.ARMS.values()]).count('""') == 0
