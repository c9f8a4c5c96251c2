"""A T5's decoder as a causal network, against torch's logits and passes without a cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import assert_layers_close

from jaxalign.models import generate, seq2seq, zoo

START = 3  # of the golden checkpoints
SOURCE = np.array([[10, 20, 30, 40, 50, 2], [7, 8, 2, 99, 99, 99], [64, 2, 99, 99, 99, 99]])
MASK = np.arange(6)[None] < np.array([6, 3, 2])[:, None]


NAMES = ("t5_v1_1", "t5_v1_0")
# Writing is the same for both; the older one writes among the slow tests.
one_of_names = pytest.mark.parametrize(
    "name",
    [NAMES[0], pytest.param(NAMES[1], marks=pytest.mark.slow)],
    indirect=True,
    scope="module",
)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def network(name, golden, mesh):
    # On one device: those of a mesh would each do all.
    return jax.device_put(zoo.find(str(golden / name), None).load(mesh), jax.devices()[0])


@jax.jit
@jax.default_matmul_precision("highest")
def logits(network, source, source_mask, tokens, mask):
    decoder = seq2seq.read(network, source, source_mask)
    return decoder.logits(decoder(tokens, mask).final)


@jax.jit
@jax.default_matmul_precision("highest")
def read(network, source, mask):
    return seq2seq.read(network, source, mask)


@jax.jit
@jax.default_matmul_precision("highest")
def states(network, source, source_mask, tokens, mask):
    decoder = seq2seq.read(network, source, source_mask, taps=("residual",))
    return decoder.taps["residual"], decoder(tokens, mask, taps=("residual",)).hidden


def behind_start(tokens, mask):
    ones = np.ones((len(tokens), 1), int)
    return np.concatenate([START * ones, tokens], axis=1), np.concatenate([ones > 0, mask], axis=1)


@pytest.mark.slow
def test_logits_are_hugging_faces(name, network, golden):
    """Of texts that both stacks read, padded and not."""
    expected = np.load(golden / name / "expected.npz")
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    answer, answer_mask = behind_start(tokens, mask)
    found = np.asarray(logits(network, tokens, mask, answer, answer_mask))[answer_mask]
    golden_logits = expected["logits_13"][answer_mask]
    np.testing.assert_allclose(
        found, golden_logits, atol=2e-5 * np.abs(golden_logits).max(), rtol=0
    )


@pytest.mark.slow
def test_greedy_equals_full_passes(network):
    """With keys and values kept, and rows whose beginnings differ in length."""
    prompts, mask = (
        np.array([[START, 5, 6], [START, 9, 99], [START, 99, 99]]),
        np.ones((3, 3), bool),
    )
    mask[1, 2:] = mask[2, 1:] = False
    decoder = read(network, SOURCE, MASK)
    found = generate.greedy(decoder, jnp.asarray(prompts), jnp.asarray(mask), generate.Ending(10))
    lengths = mask.sum(axis=1)
    rows = [list(row[:n]) for row, n in zip(prompts, lengths, strict=True)]
    for step in range(10):
        tokens = np.array([[*row, *[99] * (13 - len(row))] for row in rows])
        known = np.arange(13)[None] < lengths[:, None] + step
        all_logits = np.asarray(logits(network, SOURCE, MASK, tokens, known))
        for i, row in enumerate(rows):
            row.append(int(all_logits[i, len(row) - 1].argmax()))
    assert found.tokens.tolist() == [row[n:] for row, n in zip(rows, lengths, strict=True)]
    assert len(set(found.tokens[0].tolist())) > 1  # more than one token over and over


@pytest.mark.slow
def test_answers_depend_on_what_was_read_but_not_on_padding(network):
    tokens, mask = behind_start(np.array([[5, 6, 7]] * 3), np.ones((3, 3), bool))
    found = np.asarray(logits(network, SOURCE, MASK, tokens, mask))
    other = np.where(MASK, SOURCE, 11)
    np.testing.assert_array_equal(found, logits(network, other, MASK, tokens, mask))
    other = np.where(MASK, (SOURCE + 1) % 90, SOURCE)
    changed = np.abs(np.asarray(logits(network, other, MASK, tokens, mask)) - found)
    assert (changed.max(axis=(1, 2)) > 1e-3).all()


@pytest.mark.slow
@one_of_names
def test_answers_may_be_longer_than_texts_of_training(network):
    decoder = read(network, SOURCE[:1], MASK[:1])
    assert network.config.max_length == 512
    ending = generate.Ending(513, stop_tokens=(2,))
    found = generate.greedy(decoder, jnp.array([[START]]), jnp.ones((1, 1), bool), ending)
    assert found.tokens.shape == (1, 513)


def test_an_encoder_alone_answers_nothing(name, golden, mesh):
    network = zoo.find(str(golden / name), None, t5_text="encoder").load(mesh)
    with pytest.raises(ValueError, match="network must have a decoder"):
        seq2seq.read(network, jnp.asarray(SOURCE), jnp.asarray(MASK))


@pytest.mark.slow
def test_states_of_both_stacks_are_hugging_faces(name, network, golden):
    """Where the encoder has read a text and the decoder reads it behind its start token."""
    expected = np.load(golden / name / "expected.npz")
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    answer, answer_mask = behind_start(tokens, mask)
    encoded, decoded = states(network, tokens, mask, answer, answer_mask)
    assert_layers_close(encoded, expected["encoder_13"], mask)
    assert_layers_close(decoded, expected["decoder_13"], answer_mask)
