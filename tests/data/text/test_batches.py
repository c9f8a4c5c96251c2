import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.data.text import batches, readouts
from jaxalign.data.text.passes import Counts, Passes, Predicted


def make_passes(rows):
    """A plan of rows, each the lengths of its parts; tokens are numbered over all rows."""
    rows = [np.array(row) for row in rows]
    total = np.cumsum([0, *(row.sum() for row in rows)])
    stop = np.concatenate([np.cumsum(row) for row in rows])
    size = np.concatenate(rows)
    m = len(size)
    row = np.repeat(np.arange(len(rows)), [len(x) for x in rows])
    return Passes(
        rows=[np.arange(a, b, dtype=np.int32) + 1 for a, b in zip(total, total[1:], strict=False)],
        row=row,
        start=stop - size,
        stop=stop,
        predicted=Predicted(row, stop - size, stop, stop - size > 0),
        length=stop,
        complete=np.ones(m, bool),
        counts=Counts(passes=len(rows), tokens=int(total[-1])),
    )


plans = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=30).map(
    make_passes
)


def all_batches(passes, pooling, batch_tokens, shard_stimuli, num_shares):
    options = {"batch_tokens": batch_tokens, "num_shares": num_shares}
    reading = readouts.Reading(passes, readouts.pool(passes, pooling), readouts.surprisal(passes))
    groups = batches.group(reading, shard_stimuli=shard_stimuli, longest=120, **options)
    for rows, length in zip(*groups, strict=True):
        yield rows, batches.pad(reading, rows, length, **options)


def apply(reads, values, b):
    """Sum values [T] of row b over the entries of each part."""
    found = np.zeros(reads.slot.max() + 1)
    np.add.at(found, reads.slot[b], reads.weight[b] * values[reads.token[b]])
    return found


@pytest.mark.slow
@given(
    plans,
    st.sampled_from(["mean", "sum", "first", "last"]),
    st.sampled_from([1, 40, 200]),
    st.sampled_from([1, 5, 50]),
    st.integers(1, 4),
)
def test_every_part_is_read_once(passes, pooling, batch_tokens, shard_stimuli, num_shares):
    seen, scored = [], []
    for rows, batch in all_batches(passes, pooling, batch_tokens, shard_stimuli, num_shares):
        size, length = batch.tokens.shape
        assert size % num_shares == 0 and len(rows) <= size
        assert size * length <= max(batch_tokens, 0) + num_shares * length
        assert batch.num_tokens == sum(len(passes.rows[row]) for row in rows)
        assert batch.mask.any(axis=1).all()
        for b, row in enumerate(rows):
            np.testing.assert_array_equal(batch.tokens[b][batch.mask[b]], passes.rows[row])
            values = np.sin(batch.tokens[b])
            pooled, predicted = (apply(x, values, b) for x in (batch.pooled, batch.predicted))
            for slot, part in enumerate(batch.part[b]):
                if part < 0:
                    continue
                seen.append(part)
                own = np.sin(passes.rows[row][passes.start[part] : passes.stop[part]])
                expected = {"mean": own.mean(), "sum": own.sum(), "first": own[0], "last": own[-1]}
                np.testing.assert_allclose(pooled[slot], expected[pooling], rtol=1e-5, atol=1e-6)
            for slot, part in enumerate(batch.predicted_part[b]):
                if part >= 0:
                    scored.append(part)
                    own = np.sin(passes.rows[row][passes.start[part] : passes.stop[part]])
                    np.testing.assert_allclose(predicted[slot], own.sum(), rtol=1e-5, atol=1e-6)
        assert (batch.part[len(rows) :] == -1).all()
    assert sorted(seen) == list(range(len(passes.row)))
    assert sorted(scored) == np.flatnonzero(passes.predicted.defined).tolist()


@given(plans, st.sampled_from([1, 64]), st.sampled_from([1, 7]))
def test_windows_keep_the_order_of_texts(passes, batch_tokens, shard_stimuli):
    """A shard is full before much of what follows is computed."""
    reading = readouts.Reading(passes, readouts.pool(passes, "mean"))
    groups = batches.group(
        reading, batch_tokens=batch_tokens, shard_stimuli=shard_stimuli, longest=120, num_shares=1
    )
    order = np.concatenate(groups.rows)
    tokens = np.array([batches.padded_length(len(row), 120) for row in passes.rows])
    parts = np.bincount(passes.row)
    for at, row in enumerate(order):
        late = order[at:] < row  # rows before this one that are computed after it
        between = slice(order[at:][late].min(initial=row), row)
        within = tokens[between].sum() < batches.WINDOW_BATCHES * batch_tokens
        assert within or parts[between].sum() < shard_stimuli


@pytest.mark.parametrize(
    "length, longest, expected",
    [
        (1, 512, 16),
        (17, 512, 24),
        (25, 512, 32),
        (33, 512, 48),
        (500, 512, 512),
        (1000, 1020, 1020),
        (600, 1024, 640),
        (513, 1024, 576),
        (925, 1024, 960),
        (1025, 4096, 1152),
        (2048, 4096, 2048),
    ],
)
def test_lengths_are_few(length, longest, expected):
    assert batches.padded_length(length, longest) == expected
