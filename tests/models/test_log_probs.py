"""Continuations and token probabilities against full passes, SciPy and Hugging Face's warpers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxalign.models import log_probs as score
from jaxalign.models import zoo

PROMPTS = np.array([[2, 17, 64, 101], [5, 9, 99, 99], [33, 99, 99, 99]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], bool)


@pytest.fixture(scope="module")
def network(golden, mesh):
    # On one device: those of a mesh would each tell the whole story.
    return jax.device_put(zoo.find(str(golden / "llama"), None).load(mesh), jax.devices()[0])


def arrays(*values):
    return [jnp.asarray(value) for value in values]


@jax.jit
@jax.default_matmul_precision("highest")
def forward(network, tokens, mask):
    return network(tokens, mask, with_logits=True)


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


@pytest.mark.slow
def test_greedy_equals_full_passes(network):
    found = score.greedy(network, *arrays(PROMPTS, MASK), num_new=12)
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
        logits = score.restrict(jnp.asarray(logits), **settings)
        return jax.random.categorical(jax.random.fold_in(key, step), logits)

    found = score.sample(network, *arrays(PROMPTS, MASK), key=key, num_new=12, **settings)
    assert found.tokens.tolist() == continue_by_full_passes(network, 12, pick)
    other = score.sample(
        network, *arrays(PROMPTS, MASK), key=jax.random.key(8), num_new=12, **settings
    )
    assert found.tokens.tolist() != other.tokens.tolist()


@pytest.mark.slow
def test_sampling_from_the_most_probable_token_is_greedy(network):
    found = score.sample(network, *arrays(PROMPTS, MASK), key=jax.random.key(0), num_new=5, top_k=1)
    expected = score.greedy(network, *arrays(PROMPTS, MASK), num_new=5)
    np.testing.assert_array_equal(found.tokens, expected.tokens)


def test_rows_end_at_the_stop_token(network):
    free = np.asarray(score.greedy(network, *arrays(PROMPTS, MASK), num_new=12).tokens)
    stop = int(free[0, 4])
    found = score.greedy(network, *arrays(PROMPTS, MASK), num_new=12, stop_token=stop)
    for row, length, whole in zip(np.asarray(found.tokens), found.lengths, free, strict=True):
        first = [*whole, stop].index(stop)
        assert length == min(first + 1, 12)
        assert row[:length].tolist() == whole[:length].tolist() and (row[length:] == stop).all()


def test_restriction_matches_the_warpers_of_hugging_face(golden):
    """Golden values of TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper in turn."""
    expected = np.load(golden / "decoders" / "warpers.npz")
    for i, (temperature, top_k, top_p) in enumerate(expected["settings"]):
        found = np.asarray(
            score.restrict(
                jnp.asarray(expected["logits"]),
                temperature=float(temperature),
                top_k=int(top_k),
                top_p=float(top_p),
            )
        )
        np.testing.assert_array_equal(np.isinf(found), np.isinf(expected["restricted"][i]))
        np.testing.assert_allclose(found, expected["restricted"][i], rtol=1e-6)
        assert np.isinf(found).any() == ((top_k, top_p) != (0, 1))


@pytest.mark.slow
def test_draws_follow_the_predicted_probabilities(network):
    """The next token of 4,000 copies of a prompt: a chi-squared test of its ten likeliest."""
    prompts, mask = np.repeat(PROMPTS[:1], 4000, axis=0), np.ones((4000, 4), bool)
    drawn = score.sample(
        network, *arrays(prompts, mask), key=jax.random.key(1), num_new=1, temperature=2.0, top_k=10
    ).tokens
    logits = forward(network, PROMPTS[:1], np.ones((1, 4), bool)).logits[0, -1]
    likeliest = np.argsort(logits)[-10:]
    expected = 4000 * scipy.special.softmax(np.asarray(logits, np.float64)[likeliest] / 2.0)
    counts = np.array([(np.asarray(drawn) == token).sum() for token in likeliest])
    assert counts.sum() == 4000
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def log_probs(network, tokens, mask, positions=None, **settings):
    @jax.jit
    @jax.default_matmul_precision("highest")
    def run(network, tokens, mask, positions):
        output = network(tokens, mask, positions=positions)
        return score.token_log_probs(network, output, tokens, mask, positions=positions, **settings)

    return np.asarray(run(network, tokens, mask, positions))


# One token of each row at a time, a few, and all; the last chunk of a few is not full.
@pytest.mark.parametrize("logit_bytes", [1, 4 * 3 * 127 * 3, 2**28])
def test_token_log_probs_match_log_softmax(network, rng, logit_bytes):
    tokens = rng.integers(0, 127, (3, 11))
    mask = np.arange(11)[None] < np.array([11, 1, 6])[:, None]
    logits = np.asarray(forward(network, tokens, mask).logits, np.float64)
    expected = np.full((3, 11), np.nan)
    predicted = scipy.special.log_softmax(logits[:, :-1], axis=-1)
    expected[:, 1:] = np.take_along_axis(predicted, tokens[:, 1:, None], axis=-1)[..., 0]
    expected[~mask] = np.nan
    found = log_probs(network, tokens, mask, logit_bytes=logit_bytes)
    assert np.isfinite(found).sum() == 10 + 0 + 5
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(logits).max())


@pytest.mark.slow
def test_packed_texts_have_the_log_probs_of_single_ones(network, rng):
    tokens = rng.integers(0, 127, (1, 12))
    positions = np.array([[*range(5), *range(7)]])
    mask = np.ones((1, 12), bool)
    packed = log_probs(network, tokens, mask, positions)
    single = [
        log_probs(network, part, mask[:, : part.shape[1]]) for part in np.split(tokens, [5], 1)
    ]
    np.testing.assert_allclose(packed, np.concatenate(single, axis=1), atol=2e-5)
    assert np.flatnonzero(np.isnan(packed[0])).tolist() == [0, 5]


def test_log_probs_never_hold_all_logits(network):

    def run(network, tokens, mask):
        output = network(tokens, mask, taps=())
        return score.token_log_probs(network, output, tokens, mask, logit_bytes=2**14)

    shape = (8, 100)
    lowered = jax.jit(run).lower(network, jnp.zeros(shape, int), jnp.ones(shape, bool))
    text = lowered.as_text()
    # 2^14 bytes are four tokens of each row.
    assert "tensor<8x4x127xf32>" in text
    assert "8x100x127x" not in text and "100x8x127x" not in text


def test_surprisal_is_in_bits():
    np.testing.assert_allclose(score.surprisal_bits(jnp.log(jnp.array([0.5, 0.125]))), [1, 3])


@pytest.mark.slow
def test_rows_end_when_the_host_says_so(network):
    """They may get some tokens more, but those that they have stay the same."""
    free = np.asarray(score.greedy(network, *arrays(PROMPTS, MASK), num_new=60).tokens)
    asked = []

    def third_row_goes_on(tokens, lengths):
        asked.append(lengths.max())
        return (np.arange(3) < 2) | (lengths >= 30)

    found = score.greedy(network, *arrays(PROMPTS, MASK), num_new=60, stop_when=third_row_goes_on)
    lengths = np.asarray(found.lengths)
    assert asked == sorted(set(asked)) and asked[0] == 1
    assert lengths[0] == lengths[1] == 1 and 30 <= lengths[2] < 60
    for row, expected, length in zip(np.asarray(found.tokens), free, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], expected[:length])
    never = lambda tokens, lengths: np.zeros(3, bool)
    found = score.greedy(network, *arrays(PROMPTS, MASK), num_new=60, stop_when=never)
    np.testing.assert_array_equal(found.tokens, free)


@pytest.mark.slow
def test_a_row_with_a_key_of_its_own_draws_alone(network):
    keys = jax.random.split(jax.random.key(3), 3)
    settings = {"num_new": 8, "temperature": 3.0}
    together = score.sample(network, *arrays(PROMPTS, MASK), key=keys, **settings).tokens
    order = np.array([2, 0, 1])
    moved = score.sample(
        network, *arrays(PROMPTS[order], MASK[order]), key=keys[order], **settings
    ).tokens
    np.testing.assert_array_equal(np.asarray(together)[order], moved)
    assert len(set(np.asarray(together)[:, 0].tolist())) > 1


def test_predictions_are_those_of_all_logits(network, rng):
    """Targets need not be the row's own tokens."""
    tokens, targets = rng.integers(0, 127, (2, 3, 11))
    mask = np.ones((3, 11), bool)

    @jax.jit
    @jax.default_matmul_precision("highest")
    def run(network, tokens, mask, targets):
        output = network(tokens, mask, taps=())
        return score.predict(network, output, targets, logit_bytes=4 * 3 * 127 * 3)

    found = run(network, *arrays(tokens, mask, targets))
    logits = np.asarray(forward(network, tokens, mask).logits, np.float64)
    expected = np.take_along_axis(
        scipy.special.log_softmax(logits, axis=-1), targets[..., None], axis=-1
    )[..., 0]
    np.testing.assert_allclose(found.log_probs, expected, atol=2e-5 * np.abs(logits).max())
    np.testing.assert_array_equal(found.most_probable, logits.argmax(axis=-1))


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
        score.greedy(network, jnp.asarray(prompts), jnp.asarray(mask), num_new=num_new)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
        ({"top_k": -1}, "top_k must be >= 0, got -1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
    ],
)
def test_restrictions_out_of_range(network, settings, message):
    with pytest.raises(ValueError, match=message):
        score.restrict(jnp.zeros((1, 3)), **settings)
    with pytest.raises(ValueError, match=message):
        score.sample(network, *arrays(PROMPTS, MASK), key=jax.random.key(0), num_new=1, **settings)


def test_log_probs_of_other_tokens(network):
    output = forward(network, PROMPTS, MASK)
    with pytest.raises(ValueError, match=r"output must be of these tokens: of \(3, 4\)"):
        score.token_log_probs(
            network, output, jnp.asarray(PROMPTS[:, 1:]), jnp.asarray(MASK[:, 1:])
        )


def test_log_probs_of_an_encoder(golden, mesh):
    encoder = zoo.find(str(golden / "bert"), None).load(mesh)
    tokens, mask = jnp.asarray(PROMPTS), jnp.asarray(MASK)
    with pytest.raises(ValueError, match="network must predict tokens"):
        score.token_log_probs(encoder, encoder(tokens, mask), tokens, mask)
