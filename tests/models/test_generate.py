"""Continuations against full passes, SciPy and Hugging Face's warpers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from networks import forward

from jaxalign.models import generate, zoo
from jaxalign.models.generate import Ending, Sampling

PROMPTS = np.array([[2, 17, 64, 101], [5, 9, 99, 99], [33, 99, 99, 99]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], bool)


@pytest.fixture(scope="module")
def network(golden, mesh):
    # On one device: those of a mesh would each tell the whole story.
    return jax.device_put(zoo.find(str(golden / "llama"), None).load(mesh), jax.devices()[0])


def greedy(network, num_new=12, prompts=PROMPTS, mask=MASK, **ending):
    arrays = map(jnp.asarray, (prompts, mask))
    return generate.greedy(network, *arrays, Ending(num_new, **ending))


def sample(network, key, num_new=12, prompts=PROMPTS, mask=MASK, **settings):
    arrays = map(jnp.asarray, (prompts, mask))
    sampling = Sampling(**settings)
    return generate.sample(network, *arrays, Ending(num_new), key=key, sampling=sampling)


def continue_by_full_passes(network, num_new, pick):
    """Run all tokens of all rows for each new one; `pick` chooses from logits [B V]."""
    lengths = MASK.sum(axis=1)
    rows = [list(row[:length]) for row, length in zip(PROMPTS, lengths, strict=True)]
    for step in range(num_new):
        tokens = np.full((len(rows), 16), 99)
        for row, known in zip(tokens, rows, strict=True):
            row[: len(known)] = known
        mask = np.arange(16)[None] < lengths[:, None] + step
        logits = np.asarray(forward(network, tokens, mask).logits)
        last = logits[np.arange(len(rows)), lengths + step - 1]
        for row, token in zip(rows, np.asarray(pick(last, step)), strict=True):
            row.append(int(token))
    return [row[length:] for row, length in zip(rows, lengths, strict=True)]


def restrict(logits, **settings):
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | settings
    return generate.restrict(jnp.asarray(logits), **settings)


@pytest.mark.slow
def test_greedy_equals_full_passes(network):
    found = greedy(network)
    expected = continue_by_full_passes(network, 12, lambda logits, step: logits.argmax(axis=-1))
    assert found.tokens.tolist() == expected
    assert found.lengths.tolist() == [12, 12, 12]
    assert len(set(expected[0])) > 2  # the continuation is not one token again and again


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"temperature": 3.0}, {"top_k": 5}, {"top_p": 0.9}])
def test_sampling_equals_full_passes(network, settings):
    """The same key draws the same tokens, from the same logits."""
    key = jax.random.key(7)

    def pick(logits, step):
        logits = restrict(logits, **settings)
        return jax.random.categorical(jax.random.fold_in(key, step), logits)

    found = sample(network, key, **settings)
    assert found.tokens.tolist() == continue_by_full_passes(network, 12, pick)
    other = sample(network, jax.random.key(8), **settings)
    assert found.tokens.tolist() != other.tokens.tolist()


@pytest.mark.slow
def test_sampling_from_the_most_probable_token_is_greedy(network):
    found = sample(network, jax.random.key(0), top_k=1)
    np.testing.assert_array_equal(found.tokens, greedy(network).tokens)


@pytest.mark.slow
def test_rows_end_at_the_stop_token(network):
    free = np.asarray(greedy(network).tokens)
    stop = int(free[0, 4])
    found = greedy(network, stop_tokens=(stop,))
    for row, length, whole in zip(np.asarray(found.tokens), found.lengths, free, strict=True):
        first = [*whole, stop].index(stop)
        assert length == min(first + 1, 12)
        assert row[:length].tolist() == whole[:length].tolist() and (row[length:] == stop).all()


@pytest.mark.slow
def test_restriction_matches_the_warpers_of_hugging_face(golden):
    """Golden values of TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper in turn."""
    expected = np.load(golden / "decoders" / "warpers.npz")
    for i, (temperature, top_k, top_p) in enumerate(expected["settings"]):
        settings = {"temperature": float(temperature), "top_k": int(top_k), "top_p": float(top_p)}
        found = np.asarray(restrict(expected["logits"], **settings))
        np.testing.assert_array_equal(np.isinf(found), np.isinf(expected["restricted"][i]))
        np.testing.assert_allclose(found, expected["restricted"][i], rtol=1e-6)
        assert np.isinf(found).any() == ((top_k, top_p) != (0, 1))


@pytest.mark.slow
def test_draws_follow_the_predicted_probabilities(network):
    """The next token of 4,000 copies of a prompt: a chi-squared test of its ten likeliest."""
    prompts, mask = np.repeat(PROMPTS[:1], 4000, axis=0), np.ones((4000, 4), bool)
    key, settings = jax.random.key(1), {"temperature": 2.0, "top_k": 10}
    drawn = sample(network, key, 1, prompts, mask, **settings).tokens
    logits = forward(network, PROMPTS[:1], np.ones((1, 4), bool)).logits[0, -1]
    likeliest = np.argsort(logits)[-10:]
    expected = 4000 * scipy.special.softmax(np.asarray(logits, np.float64)[likeliest] / 2.0)
    counts = np.array([(np.asarray(drawn) == token).sum() for token in likeliest])
    assert counts.sum() == 4000
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.slow
def test_rows_end_when_the_host_says_so(network):
    """They may get some tokens more, but those that they have stay the same."""
    free = np.asarray(greedy(network, 60).tokens)
    asked = []

    def third_row_goes_on(tokens, lengths):
        asked.append(lengths.max())
        return (np.arange(3) < 2) | (lengths >= 30)

    found = greedy(network, 60, stop_when=third_row_goes_on)
    lengths = np.asarray(found.lengths)
    assert asked == sorted(set(asked)) and asked[0] == 1
    assert lengths[0] == lengths[1] == 1 and 30 <= lengths[2] < 60
    for row, expected, length in zip(np.asarray(found.tokens), free, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], expected[:length])
    never = lambda tokens, lengths: np.zeros(3, bool)
    found = greedy(network, 60, stop_when=never)
    np.testing.assert_array_equal(found.tokens, free)


@pytest.mark.slow
def test_a_row_with_a_key_of_its_own_draws_alone(network):
    keys = jax.random.split(jax.random.key(3), 3)
    together = sample(network, keys, temperature=3.0).tokens
    order = np.array([2, 0, 1])
    moved = sample(network, keys[order], 12, PROMPTS[order], MASK[order], temperature=3.0).tokens
    np.testing.assert_array_equal(np.asarray(together)[order], moved)
    assert len(set(np.asarray(together)[:, 0].tolist())) > 1


# Refusals.


@pytest.mark.parametrize(
    "prompts,mask,num_new,message",
    [
        (np.zeros((1, 0), int), np.zeros((1, 0), bool), 1, "at least one token in each row"),
        ([[1, 2], [3, 4]], [[True, True], [False, False]], 1, "at least one token in each row"),
        ([[1, 2]], [[False, True]], 1, "padded on the right"),
        ([[1]], [[True]], 128, "must fit 128 tokens, got 129"),
        ([[1]], [[True]], 0, "num_new must be >= 1, got 0"),
    ],
)
def test_prompts_that_cannot_be_continued(network, prompts, mask, num_new, message):
    with pytest.raises(ValueError, match=message):
        greedy(network, num_new, prompts, mask)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
        ({"top_k": -1}, "top_k must be >= 0, got -1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
    ],
)
def test_sampling_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
