"""The model class without the harness around it: laws, NumPy on whole logits, and refusals."""

import functools
import json
import pathlib
import shutil

import numpy as np
import pytest
import scipy.special

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install jaxalign[harness]")

import tiny
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from networks import forward
from refusals import refused

from jaxalign.harness import model as harness
from jaxalign.models import special_tokens, zoo

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
CONTEXT = "once upon a time there was a little girl"
PAIRS = [
    (CONTEXT, " who had a ball"),
    (CONTEXT, " a"),
    (CONTEXT, " b"),
    (CONTEXT, " c"),
    (CONTEXT + " ", "and"),
    ("", "the park"),
    ("one day the ball rolled under the old wooden gate", " and nobody could find it"),
    ("she", " asked her mother for the key to the garden"),
]
PROMPTS = [CONTEXT, "one day", "she loved to play with it in the park, and every morning", "the"]
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny LLaMA, with a tokenizer whose special tokens have roles, and a chat template."""
    folder = tmp_path_factory.mktemp("harness") / "llama"
    shutil.copytree(GOLDEN / "llama", folder)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def make(folder):
    """Return the model with other arguments; the same ones are loaded once."""
    return functools.cache(lambda **options: harness.JaxalignLM(str(folder), **options))


@pytest.fixture(scope="module")
def lm(make):
    return make(batch_size=8)


def requests(kind, arguments):
    return [
        Instance(request_type=kind, doc={}, arguments=x, idx=i) for i, x in enumerate(arguments)
    ]


def log_likelihoods(lm, pairs=PAIRS):
    return lm.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)


def generate(lm, prompts=PROMPTS, **settings):
    settings = {"until": [" the"], "max_gen_toks": 20} | settings
    asked = [(prompt, dict(settings)) for prompt in prompts]
    return lm.generate_until(requests("generate_until", asked), disable_tqdm=True)


def all_logits(lm, ids):
    """Return the logits at each of 128 tokens, to which a row is padded."""
    padded = np.zeros((4, 128), np.int32)  # a causal network does not look at what follows
    padded[:, : len(ids)] = ids
    return np.asarray(forward(lm.network, padded, padded >= 0).logits)[0]


def by_hand(lm, ids, num_scored):
    """Sum log-probabilities of the last tokens of a row, from all of its logits."""
    logits = all_logits(lm, ids)[: len(ids) - 1].astype(np.float64)
    log_probs = scipy.special.log_softmax(logits, axis=-1)
    own = log_probs[np.arange(len(ids) - 1), ids[1:]][-num_scored:]
    greedy = (logits.argmax(axis=-1) == ids[1:])[-num_scored:].all()
    return own.sum(), bool(greedy)


@pytest.mark.slow
def test_log_likelihoods_are_sums_over_continuations(lm):
    encode = lm.tokenizer.encode
    found = log_likelihoods(lm)
    for (context, continuation), (log_likelihood, is_greedy) in zip(PAIRS, found, strict=True):
        if context:
            ids, start = encode(context + continuation), len(encode(context.rstrip()))
        else:
            ids, start = [2, *encode(continuation, add_special_tokens=False)], 1
        assert ids[0] == 2 == lm.prefix_token_id and start < len(ids)  # <s>
        expected, greedy = by_hand(lm, np.array(ids), len(ids) - start)
        np.testing.assert_allclose(log_likelihood, expected, atol=1e-4)
        assert is_greedy is greedy


@pytest.mark.slow
def test_what_greedy_decoding_says_is_greedy(lm):
    (text,) = generate(lm, [CONTEXT], until=[], max_gen_toks=4)
    ids = lm.tok_encode(text, add_special_tokens=False)
    context = lm.tok_encode(CONTEXT)
    pair = (("", ""), context, ids)
    other = (("", ""), context, [*ids[:-1], (ids[-1] + 1) % 127])
    found = lm._loglikelihood_tokens([pair, other], disable_tqdm=True)
    assert [is_greedy for _, is_greedy in found] == [True, False]


@pytest.mark.slow
def test_batches_and_order_change_nothing(make, lm, rng):
    found, said = log_likelihoods(lm), generate(lm)
    for options in ({"batch_size": 1}, {"batch_size": "auto", "batch_tokens": 64}):
        other = log_likelihoods(make(**options))
        np.testing.assert_allclose(other, found, atol=1e-5)
        assert generate(make(**options)) == said
    order = rng.permutation(len(PAIRS))
    moved = log_likelihoods(lm, [PAIRS[i] for i in order])
    np.testing.assert_allclose(moved, np.array(found)[order], atol=1e-5)
    assert generate(lm, PROMPTS[::-1]) == said[::-1]


@pytest.mark.slow
def test_continuations_of_one_token_share_a_pass(lm, monkeypatch):
    passed = []
    score = harness.passes._score
    monkeypatch.setattr(harness.passes, "_score", lambda *args: passed.append(args) or score(*args))
    log_likelihoods(lm, PAIRS[1:4])
    assert len(passed) == 1 and int(passed[0][2].mask.sum()) == len(lm.tok_encode(CONTEXT)) + 3
    assert passed[0][3].shape == (4, 4)  # four rows, of which devices make three; three candidates


@pytest.mark.slow
def test_long_contexts_are_cut_from_the_left(make, caplog):
    lm = make(max_length=16)
    context, continuation = " ".join([CONTEXT] * 5), " who had"
    ids = np.array(lm.tok_encode(context + continuation))
    num_scored = len(ids) - len(lm.tok_encode(context))
    ((found, _),) = log_likelihoods(lm, [(context, continuation)])
    np.testing.assert_allclose(found, by_hand(lm, ids[-17:], num_scored)[0], atol=1e-4)
    assert len(ids) > 40 and "1 of 1 contexts do not begin with" in caplog.text
    long = generate(lm, [context], max_gen_toks=6, until=[])
    prompt = lm.tok_encode(context)[-10:]
    for token in lm.tokenizer.encode(long[0], add_special_tokens=False):
        assert all_logits(lm, prompt)[len(prompt) - 1].argmax() == token
        prompt.append(token)


def rolling(lm, text):
    (found,) = lm.loglikelihood_rolling(requests("loglikelihood_rolling", [(text,)]), True)
    return found


@pytest.mark.slow
def test_a_text_follows_one_first_token_which_is_not_scored(lm):
    for text in (CONTEXT, "<s>" + CONTEXT):
        ids = [2, *lm.tokenizer.encode(CONTEXT, add_special_tokens=False)]
        assert lm.tok_encode(text) == ids
        expected = by_hand(lm, np.array(ids), len(ids) - 1)[0]
        np.testing.assert_allclose(rolling(lm, text), expected, atol=1e-4)


@pytest.mark.slow
def test_rolling_windows_predict_each_token_once(make, caplog):
    lm = make(max_length=16)
    text = " ".join([CONTEXT] * 3)
    ids = lm.tok_encode(text, add_special_tokens=False)
    found = rolling(lm, text)
    later = len(ids) // 16
    assert f"{later} of {later + 1} windows of texts do not begin with" in caplog.text
    expected, at = 0.0, 0
    while at < len(ids):
        new = min(16, len(ids) - at)
        # All windows but the first are full, the last too: it repeats what has been predicted.
        row = [2, *ids][max(at + new - 16, 0) : at + new + 1]
        expected += by_hand(lm, np.array(row), new)[0]
        at += new
    assert len(ids) > 33
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert lm.loglikelihood_rolling([], True) == []


@pytest.mark.slow
def test_answers_end_before_words_of_until(lm):
    whole = generate(lm, until=[], max_gen_toks=40)
    word = whole[0].split()[3]
    cut = generate(lm, until=[f" {word}", ""], max_gen_toks=40)
    assert cut == [text.split(f" {word}")[0] for text in whole]
    assert len(cut[0]) < len(whole[0])


@pytest.mark.slow
def test_draws_follow_from_seed_and_text_alone(make, lm):
    settings = {"do_sample": True, "temperature": 2.0, "top_p": 0.9, "until": []}
    found = generate(lm, [*PROMPTS, CONTEXT], **settings)
    assert found[0] != found[4]  # asked twice
    assert generate(lm, [CONTEXT, *PROMPTS[::-1]], **settings) == [
        found[0],
        *found[3:0:-1],
        found[4],
    ]
    assert generate(make(batch_size=8, seed=1), [*PROMPTS, CONTEXT], **settings) != found
    assert generate(lm, PROMPTS, **settings | {"top_k": 1}) == generate(lm, until=[])


@pytest.mark.slow
def test_answers_are_kept(lm, tmp_path):
    """By the harness's own cache, also those of a run that was cut short."""
    cached = CachingLM(lm, str(tmp_path / "answers"))
    try:
        asked = requests("loglikelihood", PAIRS)
        found = log_likelihoods(lm)  # each answer is kept as it comes
        assert [tuple(x) for x in cached.loglikelihood(asked)] == found
        said = generate(lm)
        settings = {"until": [" the"], "max_gen_toks": 20}
        lm_without_network = lm.network
        lm.network = None
        try:
            asked = requests("generate_until", [(prompt, settings) for prompt in PROMPTS])
            assert cached.generate_until(asked) == said
        finally:
            lm.network = lm_without_network
    finally:
        cached.dbdict.close()
        lm.set_cache_hook(type(lm.cache_hook)(None))


def test_special_tokens_are_added_once(make, lm):
    assert lm.tok_encode("the park")[0] == 2 and lm.tok_encode("<s>the park").count(2) == 1
    without = make(batch_size=8, add_bos_token=False)
    assert without.tok_encode("the park") == lm.tok_encode("the park")[1:]
    other = make(batch_size=8, prefix_token_id=7)
    assert other.prefix_token_id == 7 and other.tok_encode("<s>the park").count(2) == 1


def test_the_first_token_is_as_asked_for_without_a_configuration(tmp_path):
    """Roles of special tokens come from config.json then."""
    shutil.copytree(GOLDEN / "llama", tmp_path / "llama")
    model = zoo.find(str(tmp_path / "llama"), None)
    with_it, without = (
        special_tokens.load(model, add_bos_token=asked).encode("the park")
        for asked in (True, False)
    )
    assert with_it == [1, *without]
    config = json.loads((tmp_path / "llama/config.json").read_text())
    (tmp_path / "llama/config.json").write_text(json.dumps(config | {"bos_token_id": None}))
    with refused("model_args add_bos_token: the tokenizer of llama must have a first token"):
        special_tokens.load(zoo.find(str(tmp_path / "llama"), None), add_bos_token=True)


@pytest.mark.slow
def test_chats_are_written_by_the_template(lm):
    turns = [{"role": "user", "content": "hello"}]
    assert lm.apply_chat_template(turns) == "[user] hello\n[assistant]"
    # This template takes no system's turn.
    system = {"role": "system", "content": "be kind"}
    assert lm.apply_chat_template([system, *turns]) == "[user] hello\n[assistant]"
    assert lm.chat_template(True) == TEMPLATE


@pytest.mark.slow
def test_the_model_says_what_it_is(lm, make):
    info = lm.get_model_info()
    assert info["model_num_parameters"] == lm.model.num_parameters > 10_000
    assert info["model_dtype"] == "float32" and info["jaxalign_version"]
    untrained = make(untrained_seed=0)
    assert untrained.get_model_info()["model_sha"] != info["model_sha"]
    difference = np.array(log_likelihoods(untrained)) - np.array(log_likelihoods(lm))
    assert np.abs(difference).max() > 1


@pytest.mark.slow
def test_bfloat16_is_close(make, lm):
    found = np.array(log_likelihoods(make(dtype="bfloat16", batch_size=8)))[:, 0]
    expected = np.array(log_likelihoods(lm))[:, 0]
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


# Refusals.


@pytest.mark.parametrize("pair", [(CONTEXT, ""), ("", ""), ("", "  "), (CONTEXT, "  ")], ids=str)
def test_continuations_without_a_token(lm, pair):
    with refused("a continuation must add at least one token to its context"):
        log_likelihoods(lm, [pair])


def test_continuations_that_do_not_fit(make):
    with refused("a continuation must have at most 16 tokens, got"):
        log_likelihoods(make(max_length=16), [("she", " " + CONTEXT * 2)])


@pytest.mark.parametrize(
    "options,parts",
    [
        ({"dtype": "float16"}, ["dtype must be one of float32, bfloat16, got 'float16'"]),
        ({"revision": "main"}, ["model_args must not hold 'revision'"]),
        ({"batch_size": 0}, ["batch_size must be a whole number >= 1, got 0"]),
        ({"max_length": 1000}, ["max_length must be at most 128", "got 1000"]),
        ({"model_parallel": 3}, ["model_parallel: mesh must use every device"]),
    ],
    ids=str,
)
def test_arguments_that_cannot_be(folder, options, parts):
    with refused(*parts):
        harness.JaxalignLM(str(folder), **options)


def test_a_spoiled_file_of_end_tokens(folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    (copy / "generation_config.json").write_text('{"eos_token_id": ')
    with refused(f"{copy}/generation_config.json", "must hold a JSON object"):
        harness.JaxalignLM(str(copy))


def test_models_that_predict_nothing(tmp_path):
    with refused("pretrained must be causal or a T5: bert predicts no next token"):
        harness.JaxalignLM(str(GOLDEN / "bert"))
    with refused("pretrained must be causal or a T5: headless predicts no next token"):
        harness.JaxalignLM(str(tiny.headless(tmp_path)))


def test_chats_with_a_model_that_was_made_for_none():
    lm = harness.JaxalignLM(str(GOLDEN / "llama"))
    turns = [{"role": "user", "content": "hello"}]
    for ask in (lambda: lm.apply_chat_template(turns), lambda: lm.chat_template(True)):
        with refused("model llama must have a chat template"):
            ask()


@pytest.mark.parametrize(
    "settings,parts",
    [
        ({"num_beams": 4}, ["generation_kwargs must be of do_sample", "found 'num_beams'"]),
        ({"max_gen_toks": 128}, ["must leave room for a context in the 128 tokens", "got 128"]),
        ({"do_sample": True, "temperature": 0.0}, ["temperature must be > 0", "got 0.0"]),
        ({"do_sample": True, "top_p": 1.5}, ["top_p must be in (0, 1]", "1.5"]),
    ],
    ids=str,
)
def test_settings_of_generation_that_cannot_be(lm, settings, parts):
    with refused(*parts):
        generate(lm, **settings)
