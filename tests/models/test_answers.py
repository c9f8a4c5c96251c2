"""Models of images and text against transformers; see golden/make_multimodal.py."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.models import answers, generate, seq2seq, zoo
from jaxalign.models.families import base

NAMES = (
    *("llava", "blip2_opt", "blip2_t5", "instructblip_vicuna", "instructblip_t5", "paligemma"),
    *("idefics", "qwen2_vl", "qwen2_5_vl", "smolvlm", "gemma3", "qwen3_vl"),
)
TOLERANCE = 2e-5
NUM_NEW = 20


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def expected(name, golden):
    return np.load(golden / "multimodal" / name / "expected.npz")


@pytest.fixture(scope="module")
def network(name, golden, mesh):
    model = zoo.find(str(golden / "multimodal" / name), None, whole=True)
    pixels = np.load(golden / "multimodal" / name / "expected.npz")["pixels"]
    model = dataclasses.replace(model, config=model.config.for_images(*pixels.shape[2:]))
    return jax.device_put(model.load(mesh), jax.devices()[0])


def prompts(expected, which):
    names = ("tokens", "mask", "instructions", "instruction_mask")
    return answers.Prompts(
        *(expected[f"{n}_{which}"] if f"{n}_{which}" in expected else None for n in names)
    )


@functools.partial(jax.jit, static_argnames="of_instruction")
@jax.default_matmul_precision("highest")
def run(network, pixels, asked, answer=None, of_instruction=False):
    """Return states of the tower, vectors, states of the Q-Former, of the language, logits."""
    taps = ("residual",)
    seen = network.see(pixels, taps=taps)
    rows = lambda x: jnp.tile(x, (len(pixels), 1))
    given = (rows(asked.instructions), rows(asked.instruction_mask)) if of_instruction else ()
    vectors, kept = network.connect(seen.states, *given, keep=base.Keep(taps, None))
    mask = rows(asked.mask)
    merged = network.merge(rows(asked.tokens), vectors)
    if network.config.has_encoder:
        reader = seq2seq.read(network.language, merged, mask, taps=taps)
        start = jnp.full((len(mask), 1), network.config.language.start_token)
        behind = jnp.concatenate([start, answer], axis=1)
        output = reader(behind, behind >= 0, taps=taps)
        hidden = reader.taps["residual"], output.hidden
    else:
        output = network.reader(vectors)(merged, mask, taps=taps)
        hidden = (output.hidden,)
    return seen.taps["residual"], vectors, kept, hidden, network.logits(output.final)


def assert_close(found, expected):
    """Compare relative to the largest value of each layer."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    axes = tuple(range(1, expected.ndim))
    scale = np.nanmax(np.abs(expected), axis=axes, keepdims=True)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(np.abs(found - expected) / scale) < TOLERANCE


@pytest.mark.slow
def test_all_parts_are_transformers(name, network, expected):
    asked = prompts(expected, "apart")
    answer = jnp.asarray(expected["answer"]) if "answer" in expected else None
    of_instruction = network.config.reads_instruction
    vision, vectors, kept, hidden, logits = run(
        network, expected["pixels"], asked, answer, of_instruction=of_instruction
    )
    assert_close(vision, expected["vision"][: len(vision)])
    rows = len(expected["vectors"])
    if not of_instruction:
        vectors = np.repeat(vectors, rows // len(vectors), axis=0)
    assert_close(vectors, expected["vectors"])
    mask = np.tile(asked.mask, (2, 1))
    if "qformer" in expected:
        states, wanted = np.asarray(kept["residual"]), expected["qformer"]
        if of_instruction:
            queries = np.ones((len(mask), network.config.num_image_tokens), bool)
            seen = np.concatenate([queries, np.tile(asked.instruction_mask, (2, 1))], axis=1)
            states, wanted = states[:, seen], wanted[:, seen]
        else:
            states = np.repeat(states, 3, axis=1)
        assert_close(states, wanted)
    assert_close(hidden[0][:, mask], expected["hidden_apart"][:, mask])
    if answer is None:
        assert_close(logits[mask][None], expected["logits_apart"][mask][None])
    else:
        assert_close(hidden[1], expected["decoder_apart"])
        assert_close(logits[None], expected["logits_apart"][None])


# No token of these networks: compiled for as many stop tokens as are used below.
NEVER = (77, 78)


def ask(network, pixels, asked, poolings, stop=NEVER):
    ending = generate.Ending(NUM_NEW, stop)
    return answers.answer(network, jnp.asarray(pixels), asked, poolings, ending)


def wanted_poolings(expected):
    return [x for x in answers.POOLINGS if f"{x}_apart" in expected]


def assert_answers(found, expected, which):
    np.testing.assert_array_equal(found.tokens.reshape(6, -1), expected[f"greedy_{which}"])
    assert (found.lengths == NUM_NEW).all() and not found.stopped.any() and not found.empty.any()
    assert (found.reasons == "length").all()
    poolings = wanted_poolings(expected)
    assert found.features.keys() == set(poolings)
    for pooling in poolings:
        values = found.features[pooling]
        assert_close(values.reshape(len(values), 6, -1), expected[f"{pooling}_{which}"])


@pytest.mark.slow
def test_answers_and_what_is_pooled_are_those_of_generate(network, expected):
    """Three prompts of unequal length about two images at once, each alone in transformers."""
    asked, poolings = prompts(expected, "apart"), wanted_poolings(expected)
    assert len(poolings) == 5 if network.config.has_encoder else 6
    assert_answers(ask(network, expected["pixels"], asked, poolings), expected, "apart")
    stop = int(expected["stop"])
    found = ask(network, expected["pixels"], asked, poolings, stop=(stop, 77))
    wanted = expected["stopped_apart"].reshape(2, 3, -1)
    lengths = (wanted >= 0).sum(axis=2)
    np.testing.assert_array_equal(found.lengths, lengths)
    np.testing.assert_array_equal(found.stopped, (wanted == stop).any(axis=2))
    counted = np.arange(NUM_NEW) < lengths[..., None]
    np.testing.assert_array_equal(np.where(counted, found.tokens, -1), wanted)
    assert found.empty[0, 0] and found.empty.sum() == (lengths == 1).sum()
    values = found.features["generated"]
    assert_close(values.reshape(len(values), 6, -1), expected["generated_stopped"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["llava", "blip2_opt", "gemma3", "qwen3_vl"], indirect=True, scope="module"
)
def test_what_prompts_have_in_common_passes_once(network, expected, monkeypatch):
    """And each image passes the vision tower once."""
    seen, see = [], answers.see
    counted = lambda network, pixels, **how: seen.append(len(pixels)) or see(network, pixels, **how)
    monkeypatch.setattr(answers, "see", counted)
    asked, poolings = prompts(expected, "shared"), wanted_poolings(expected)
    assert answers.num_shared(network.config, asked) > network.config.num_image_tokens
    found = ask(network, expected["pixels"], asked, poolings)
    assert_answers(found, expected, "shared")
    assert seen == [2]
    alone = answers.Prompts(*(None if x is None else x[1:2] for x in asked))
    one = ask(network, expected["pixels"][1:], alone, poolings)
    np.testing.assert_array_equal(one.tokens[0, 0], found.tokens[1, 1])
    for pooling in poolings:
        assert_close(one.features[pooling][:, 0], found.features[pooling][:, 1, 1:2])
