import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxalign.core.behavior import next_word


def slide(num_tokens, context, stride, num_given):
    """The published loop, token by token: (start, position) of each prediction."""
    found, seen, begin = [], num_given, 0
    while True:
        end = min(begin + context, num_tokens)
        found += [(begin, t) for t in range(seen, end) if t > begin]
        seen = end
        if end == num_tokens:
            return found
        begin += stride


@settings(deadline=None)
@given(st.data())
def test_windows_are_those_of_the_published_loop(data):
    context = data.draw(st.integers(2, 12))
    stride = data.draw(st.integers(1, context))
    num_given = data.draw(st.integers(1, context - 1))
    num_tokens = data.draw(st.integers(context, 60))
    found = next_word.windows(num_tokens, context=context, stride=stride, num_given=num_given)
    expected = slide(num_tokens, context, stride, num_given)
    begins = np.repeat(found.start, found.stop - found.first)
    assert list(zip(begins, found.predicted, strict=True)) == expected
    assert (found.stop - found.start <= context).all() and (found.first < found.stop).all()


def test_every_token_is_predicted_once_from_enough_before_it():
    found = next_word.windows(1000, context=64, stride=24)
    assert found.predicted.tolist() == list(range(1, 1000))
    assert (found.first - found.start)[1:].min() == 64 - 24


def test_windows_with_nothing_in_common_leave_out_their_first_tokens():
    found = next_word.windows(21, context=10, stride=10)
    assert found.predicted.tolist() == [*range(1, 10), *range(11, 20)]  # the 21st stands alone


@pytest.mark.parametrize(
    "num_tokens,context,stride,given,message",
    [
        (9, 10, 5, 1, "must have a window of 10 tokens, got 9"),
        (20, 1, 1, 1, "context must be >= 2"),
        (20, 10, 11, 1, r"stride must lie in 1\.\.10"),
        (20, 10, 0, 1, r"stride must lie in 1\.\.10"),
        (20, 10, 5, 10, r"num_given must lie in 1\.\.9"),
        (20, 10, 5, 0, r"num_given must lie in 1\.\.9"),
    ],
)
def test_windows_refuse(num_tokens, context, stride, given, message):
    with pytest.raises(ValueError, match=message):
        next_word.windows(num_tokens, context=context, stride=stride, num_given=given)


def test_what_remains_belongs_to_the_last_block():
    assert next_word.blocks(11, 4).tolist() == [0] * 4 + [1] * 7
    assert next_word.blocks(3, 4).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="length must be >= 1"):
        next_word.blocks(3, 0)


def test_ratio_leaves_out_one_block_at_a_time(rng):
    amount, size = rng.gamma(2.0, size=43), rng.integers(0, 9, 43).astype(float)
    block = next_word.blocks(43, 8)
    left_out = np.array(
        [amount[block != b].sum() / size[block != b].sum() for b in range(block[-1] + 1)]
    )
    g = len(left_out)
    error = np.sqrt((g - 1) ** 2 / g * left_out.var(ddof=1))
    found = next_word.ratio(amount, size, block)
    assert found.value == pytest.approx(amount.sum() / size.sum(), rel=1e-12)
    half = stats.t.ppf(0.975, g - 1) * error
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
    assert (found.num, found.num_groups) == (43, 5)


def test_ratio_of_equal_blocks_is_the_t_interval_of_their_means(rng):
    amount = rng.gamma(2.0, size=(12, 20))
    found = next_word.ratio(amount.ravel(), np.ones(240), next_word.blocks(240, 20))
    expected = stats.t.interval(
        0.95, 11, amount.mean(axis=1).mean(), stats.sem(amount.mean(axis=1))
    )
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-10)


def test_ratio_of_one_block_has_no_interval():
    found = next_word.ratio(np.ones(3), np.ones(3), np.zeros(3, int))
    assert found.value == 1 and np.isnan([found.low, found.high]).all()


def test_ratio_refuses():
    with pytest.raises(ValueError, match="amount"):
        next_word.ratio(np.array([1.0, np.nan]), np.ones(2), np.zeros(2, int))
    with pytest.raises(ValueError, match="size must sum to more than 0"):
        next_word.ratio(np.ones(2), np.zeros(2), np.zeros(2, int))


@pytest.mark.slow
def test_intervals_cover_the_mean_of_autocorrelated_losses(rng):
    """Blocks far longer than the correlation cover; single tokens as blocks would not."""
    num, n, memory = 600, 4000, 0.9
    noise = rng.standard_normal((n, num))
    noise[1:] *= np.sqrt(1 - memory**2)
    for t in range(1, n):
        noise[t] += memory * noise[t - 1]
    losses = np.exp(0.5 * noise.T)
    truth = np.exp(0.125)
    share = {}
    for length in (200, 1):
        block = next_word.blocks(n, length)
        ends = [next_word.ratio(x, np.ones(n), block) for x in losses]
        share[length] = np.mean([x.low < truth < x.high for x in ends])
    # Three standard errors of 600 draws; skewed losses of 20 blocks cost a little more.
    assert 0.92 < share[200] < 0.975
    assert share[1] < 0.6
