import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn import model_selection

from jaxalign.core import folds as folds_lib
from jaxalign.core.folds import Fold, Split

N = 24
GROUPS = np.repeat([0, 1, 2, 3, 4, 5], [2, 5, 4, 6, 3, 4])

settings = hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)


def gapped_folds(gap=3):
    return folds_lib.contiguous_folds(["a"] * 23 + ["b"] * 37, 5, gap=gap)


def assert_equal_splits(found, expected):
    for split, (train, test) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(split.train, train)
        np.testing.assert_array_equal(split.test, test)


SPLITTERS = {
    "k_fold": model_selection.KFold(5),
    "shuffled": model_selection.KFold(4, shuffle=True, random_state=0),
    "group_k_fold": model_selection.GroupKFold(3),
    "shuffle_split": model_selection.ShuffleSplit(7, test_size=0.3, random_state=1),
    "leave_one_group_out": model_selection.LeaveOneGroupOut(),
    "predefined": model_selection.PredefinedSplit(np.arange(N) % 4 - 1),
    "leave_one_out": model_selection.LeaveOneOut(),
    "time_series": model_selection.TimeSeriesSplit(4),
}


@pytest.mark.parametrize("name", SPLITTERS)
def test_splits_are_those_of_sklearn(name):
    # Others warn that they ignore groups.
    groups = GROUPS if "group" in name else None
    expected = list(SPLITTERS[name].split(np.zeros((N, 1)), None, groups))
    found = folds_lib.splits(SPLITTERS[name], N, groups=groups)
    assert_equal_splits(found, expected)
    assert all(isinstance(split, Split) for split in found)


@pytest.mark.parametrize("groups", [GROUPS, np.array(list("abcdef"))[GROUPS]])
def test_groups_are_not_divided(groups):
    for split in folds_lib.splits(model_selection.GroupKFold(3), N, groups=groups):
        assert not set(groups[split.train]) & set(groups[split.test])


@pytest.mark.parametrize("num_blocks", [2, 5, 7, N])
def test_a_number_cuts_contiguous_blocks(num_blocks):
    found = folds_lib.splits(num_blocks, N)
    assert_equal_splits(found, model_selection.KFold(num_blocks).split(np.zeros((N, 1))))


@pytest.mark.parametrize(
    "pairs",
    [
        [([0, 1, 2], [3, 4])],
        [(np.array([5, 0, 2], np.int32), np.array([7, 3], np.uint8))],
        iter([(range(4), range(4, 9)), (range(4, 9), range(4))]),
        ((Split(np.arange(3), np.arange(3, 6))),),
    ],
    ids=["lists", "unordered", "generator", "split"],
)
def test_pairs_of_indices_are_taken_as_they_are(pairs):
    kept = list(pairs)
    assert_equal_splits(folds_lib.splits(iter(kept), 9), kept)


def test_masks_are_turned_into_indices():
    train = np.arange(9) < 5
    (split,) = folds_lib.splits([(train, ~train)], 9)
    assert_equal_splits([split], [(np.arange(5), np.arange(5, 9))])
    mixed = folds_lib.splits([(train, [7, 8]), ([0, 1], ~train)], 9)
    assert_equal_splits(mixed, [(np.arange(5), [7, 8]), ([0, 1], np.arange(5, 9))])


def test_splits_may_leave_samples_out_and_repeat_tests():
    pairs = [([0, 1], [4]), ([2, 3, 5], [4, 1])]
    assert_equal_splits(folds_lib.splits(pairs, 10), pairs)


@pytest.mark.parametrize(
    "cv, message",
    [
        (True, "cv must be a number of blocks, a splitter or pairs of indices, got True"),
        (1, r"cv must lie in 2\.\.9 blocks \(samples\), got 1"),
        (10, r"cv must lie in 2\.\.9 blocks \(samples\), got 10"),
        ([], "cv must yield at least one split, got none"),
        ([([0, 1], [2]), ([0, 1], [])], "Split 1 must have samples to test on, got none"),
        ([([], [2])], "Split 0 must have samples to train on, got none"),
        ([(np.zeros(9, bool), [2])], "Split 0 must have samples to train on, got none"),
        ([([0, 1, 2], [2, 3])], "Split 0 must not test on samples it trains on: sample 2 is on"),
        ([([0, 1, 1], [3])], "Split 0 has a sample more than once in train"),
        ([([0, 1], [3, 3])], "Split 0 has a sample more than once in test"),
        ([([0, 9], [3])], r"Indices must lie in 0\.\.8, got 0\.\.9"),
        ([([0, 1], [-1])], r"Indices must lie in 0\.\.8, got -1\.\.-1"),
        ([([4], [3])], "Split 0 must train on at least 2 samples, got 1"),
        ([(np.ones(8, bool), [3])], r"one entry per sample: 9, got \(8,\)"),
        ([(np.ones((9, 1), bool), [3])], r"one entry per sample: 9, got \(9, 1\)"),
        ([([0.0, 1.0], [3])], r"Indices must be a row of integers, got float64 \(2,\)"),
        ([([[0], [1]], [3])], r"Indices must be a row of integers, got int64 \(2, 1\)"),
    ],
)
def test_impossible_splits_are_refused(cv, message):
    with pytest.raises(ValueError, match=message):
        folds_lib.splits(cv, 9)


class Recorder:
    """Halve what is split, and note what was shown."""

    def __init__(self):
        self.seen = []

    def split(self, X, y=None, groups=None):
        self.seen.append((len(X), None if groups is None else list(groups)))
        half = len(X) // 2
        yield np.arange(half), np.arange(half, len(X))


@pytest.mark.parametrize("groups", [None, GROUPS, np.array(list("abcdef"))[GROUPS]])
def test_inner_splitters_see_positions_and_groups_of_the_outer_training_set(groups):
    inner = Recorder()
    random = model_selection.ShuffleSplit(3, train_size=12, test_size=6, random_state=0)
    outer = list(random.split(np.zeros((N, 1))))
    folds = folds_lib.nest(outer, inner, N, groups=groups)
    trains = [train for train, _ in outer]
    assert inner.seen == [(12, None if groups is None else list(groups[train])) for train in trains]
    for fold, train in zip(folds, trains, strict=True):
        np.testing.assert_array_equal(fold.outer.train, train)
        assert_equal_splits(fold.inner, [(train[:6], train[6:])])


@pytest.mark.parametrize(
    "outer, inner, groups",
    [
        (5, 4, None),
        (5, 4, GROUPS),
        (5, model_selection.KFold(3, shuffle=True, random_state=0), None),
        (model_selection.LeaveOneGroupOut(), model_selection.LeaveOneGroupOut(), GROUPS),
        (model_selection.GroupKFold(3), model_selection.GroupKFold(2), GROUPS),
        (3, model_selection.ShuffleSplit(6, test_size=0.2, random_state=0), None),
        ([(np.arange(16), np.arange(20, 24))], 4, None),
    ],
)
def test_inner_splits_divide_the_outer_training_set(outer, inner, groups):
    folds = folds_lib.nest(outer, inner, N, groups=groups)
    for fold, split in zip(folds, folds_lib.splits(outer, N, groups=groups), strict=True):
        assert_equal_splits([fold.outer], [split])
        labels = None if groups is None else groups[split.train]
        own = folds_lib.splits(inner, len(split.train), groups=labels)
        assert_equal_splits(
            fold.inner, [(split.train[part.train], split.train[part.test]) for part in own]
        )


def test_refused_inner_splits_name_their_outer_fold():
    # Without group 1 the second outer training set has one group left.
    groups = np.repeat([0, 1], [9, 3])
    outer = [(np.r_[0:8, 9:11], [8]), (np.arange(8), [9])]
    with pytest.raises(ValueError, match=r"^Outer fold 1: cv must lie in 2\.\.8 blocks"):
        folds_lib.nest(outer, 10, 12)
    with pytest.raises(ValueError, match=r"^Outer fold 1: "):
        folds_lib.nest(outer, model_selection.LeaveOneGroupOut(), 12, groups=groups)
    with pytest.raises(ValueError, match=r"^Outer fold 0: cv must lie in 2\.\.10 blocks"):
        folds_lib.nest(outer, 11, 12)


def test_refused_outer_splits_are_reported_as_such():
    with pytest.raises(ValueError, match=r"^cv must lie in 2\.\.12 blocks"):
        folds_lib.nest(13, 3, 12)


def test_fixed_inner_splits_are_refused():
    with pytest.raises(ValueError, match="inner_cv must be a number or a splitter.*got list"):
        folds_lib.nest(3, [([0, 1], [2])], N)


def test_crossed_groups_are_one_group_left_out_and_then_one_more():
    runs = np.array(list("bbaaaccab"))
    leave_out = model_selection.LeaveOneGroupOut()
    folds = folds_lib.cross(folds_lib.splits(leave_out, len(runs), groups=runs))
    assert [set(runs[fold.outer.test]) for fold in folds] == [{"a"}, {"b"}, {"c"}]
    for fold in folds:
        (run,) = set(runs[fold.outer.test])
        np.testing.assert_array_equal(fold.outer.test, np.flatnonzero(runs == run))
        np.testing.assert_array_equal(fold.outer.train, np.flatnonzero(runs != run))
        others = [name for name in "abc" if name != run]
        assert_equal_splits(
            fold.inner,
            [
                (np.flatnonzero((runs != run) & (runs != other)), np.flatnonzero(runs == other))
                for other in others
            ],
        )
    nested = folds_lib.nest(leave_out, leave_out, len(runs), groups=runs)
    assert folds_lib.folds_hash(folds) == folds_lib.folds_hash(nested)


@pytest.mark.parametrize(
    "outer",
    [5, 24, SPLITTERS["shuffled"], SPLITTERS["predefined"], SPLITTERS["group_k_fold"]],
)
def test_crossed_folds_take_the_other_outer_tests_for_inner_ones(outer):
    groups = GROUPS if isinstance(outer, model_selection.GroupKFold) else None
    splits = folds_lib.splits(outer, N, groups=groups)
    folds = folds_lib.cross(splits)
    assert_equal_splits([fold.outer for fold in folds], splits)
    for i, fold in enumerate(folds):
        expected = [
            (np.setdiff1d(splits[i].train, splits[j].test), splits[j].test)
            for j in range(len(splits))
            if j != i
        ]
        assert_equal_splits(fold.inner, expected)


@pytest.mark.parametrize("gap", [0, 2])
def test_crossed_folds_keep_the_gaps(gap):
    expected = folds_lib.contiguous_folds(["a"] * 30, 4, gap=gap)
    crossed = folds_lib.cross([fold.outer for fold in expected])
    for fold, twin in zip(crossed, expected, strict=True):
        for split, other in zip(fold.inner, twin.inner, strict=True):
            np.testing.assert_array_equal(split.train, other.train)
            # A gap next to the outer test block is not tested inside.
            assert set(split.test) <= set(other.test)
            assert not set(split.test) - set(fold.outer.train)


@pytest.mark.parametrize(
    "splits, message",
    [
        ([([0, 1], [2]), ([0, 2], [1])], "outer must be at least 3 splits, .* got 2"),
        ([([0, 1], [2]), ([0, 2], [1]), ([0, 1], [2])], "Outer test sets that share samples"),
        ([([3, 4], [0]), ([5, 6], [1]), ([7, 8], [2])], "Outer training sets must share samples"),
    ],
)
def test_splits_that_cannot_be_crossed_are_refused(splits, message):
    with pytest.raises(ValueError, match=message):
        folds_lib.cross(folds_lib.splits(splits, 9))


@st.composite
def series(draw):
    """Draw runs, perhaps groups, a number of folds and a gap that leave enough samples."""
    lengths = draw(st.lists(st.integers(1, 25), min_size=1, max_size=4))
    runs = [f"run{i}" for i, length in enumerate(lengths) for _ in range(length)]
    groups = None
    if draw(st.booleans()):
        starts = draw(st.lists(st.booleans(), min_size=len(runs), max_size=len(runs)))
        groups = np.cumsum(starts).tolist()
    return runs, groups, draw(st.integers(3, 6)), draw(st.integers(0, 4))


@pytest.mark.slow
@settings
@hypothesis.given(series())
def test_folds_keep_the_books(problem):
    runs, groups, num_folds, gap = problem
    try:
        folds = folds_lib.contiguous_folds(runs, num_folds, gap=gap, groups=groups)
    except ValueError as error:
        # Whether a refusal is due is another test's question.
        hypothesis.assume("must leave samples" not in str(error))
        raise
    place = np.arange(len(runs))
    labels = np.array(runs)
    near = (np.abs(place[:, None] - place) <= gap) & (labels[:, None] == labels)

    def allowed(*blocks):
        tested = np.concatenate(blocks)
        return np.setdiff1d(np.flatnonzero(~near[:, tested].any(axis=1)), tested)

    blocks = [fold.outer.test for fold in folds]
    np.testing.assert_array_equal(np.concatenate(blocks), place)
    assert all(len(block) for block in blocks)
    for i, fold in enumerate(folds):
        np.testing.assert_array_equal(fold.outer.train, allowed(blocks[i]))
        others = [j for j in range(num_folds) if j != i]
        for j, split in zip(others, fold.inner, strict=True):
            np.testing.assert_array_equal(split.test, blocks[j])
            np.testing.assert_array_equal(split.train, allowed(blocks[i], blocks[j]))
    if groups is None:
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    else:
        fold_of = np.repeat(range(num_folds), [len(block) for block in blocks])
        assert len(set(zip(groups, fold_of.tolist(), strict=True))) == len(set(groups))


@pytest.mark.slow
@settings
@hypothesis.given(st.integers(1, 40), st.integers(3, 8), st.integers(0, 8))
def test_folds_are_refused_only_where_samples_are_missing(n, num_folds, gap):
    # Borders nearest to equal cuts, the lower of two equally near.
    edges = np.ceil(np.arange(num_folds + 1) * n / num_folds - 0.5).astype(int).tolist()
    reach = [set(range(a - gap, b + gap)) for a, b in itertools.pairwise(edges)]
    fewest = min(len(set(range(n)) - a - b) for a, b in itertools.combinations(reach, 2))
    try:
        folds_lib.contiguous_folds(["a"] * n, num_folds, gap=gap)
    except ValueError:
        assert n < num_folds or fewest < 2
    else:
        assert n >= num_folds and fewest >= 2


def test_a_gap_trims_the_same_run_only():
    runs = ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    folds = folds_lib.contiguous_folds(runs, 3, gap=4)
    # The blocks are the runs: nothing is trimmed at their borders.
    np.testing.assert_array_equal(folds[1].outer.train, np.r_[0:10, 20:30])
    one_run = folds_lib.contiguous_folds(["a"] * 30, 3, gap=4)
    np.testing.assert_array_equal(one_run[1].outer.train, np.r_[0:6, 24:30])
    np.testing.assert_array_equal(one_run[0].inner[0].train, np.r_[24:30])


def test_blocks_end_at_the_nearest_border_of_groups():
    groups = list("aaaabbbbbccccccdddd")
    folds = folds_lib.contiguous_folds(["r"] * len(groups), 3, gap=0, groups=groups)
    assert ["".join(dict.fromkeys(groups[i] for i in fold.outer.test)) for fold in folds] == [
        "a",
        "bc",
        "d",
    ]


def test_the_hash_of_folds_changes_with_any_split():
    folds = gapped_folds()
    hashes = {
        folds_lib.folds_hash(folds),
        folds_lib.folds_hash(folds[::-1]),
        folds_lib.folds_hash(folds[1:]),
    }
    first = folds[0]
    swapped = Split(first.outer.test, first.outer.train)
    hashes.add(folds_lib.folds_hash([first._replace(outer=swapped), *folds[1:]]))
    hashes.add(folds_lib.folds_hash([first._replace(inner=first.inner[1:]), *folds[1:]]))
    moved = Split(first.inner[0].train[1:], first.inner[0].test)
    hashes.add(folds_lib.folds_hash([first._replace(inner=(moved, *first.inner[1:])), *folds[1:]]))
    hashes.add(folds_lib.folds_hash(gapped_folds(gap=2)))
    assert len(hashes) == 7
    assert all(len(text) == 12 and int(text, 16) >= 0 for text in hashes)


def test_the_hash_of_folds_is_of_their_values():
    folds = gapped_folds()
    narrow = [
        Fold(
            *(
                Split(*(indices.astype(np.int32) for indices in fold.outer)),
                tuple(Split(*(a.astype(np.int32) for a in split)) for split in fold.inner),
            )
        )
        for fold in folds
    ]
    assert folds_lib.folds_hash(narrow) == folds_lib.folds_hash(folds)


@pytest.mark.parametrize(
    "n, num_folds, gap, groups, message",
    [
        (20, 2, 0, None, "num_folds must be >= 3, got 2"),
        (20, 4, -1, None, "gap must be >= 0, got -1"),
        (4, 5, 0, None, r"num_folds must leave samples for every block: 5 blocks of 4 samples\."),
        (20, 3, 0, ["a"] * 10 + ["b"] * 10, r"3 blocks of 20 samples in 2 groups\."),
        (9, 3, 3, None, "gap must leave samples to train on: 3 leaves 0 of 9 with 3 blocks"),
        (6, 3, 0, list("aabbaa"), "Samples of one group must be adjacent"),
    ],
)
def test_impossible_folds_are_refused(n, num_folds, gap, groups, message):
    with pytest.raises(ValueError, match=message):
        folds_lib.contiguous_folds(["a"] * n, num_folds, gap=gap, groups=groups)


def test_what_a_test_block_presents_is_not_trained_on():
    items = ["a", "b", "c", "d", "e", "f", "a", "x", "y"]
    folds = folds_lib.contiguous_folds(["r"] * 9, 3, gap=0, items=items)
    for fold in folds:
        for split in (fold.outer, *fold.inner):
            tested = {items[i] for i in split.test}
            assert not tested & {items[i] for i in split.train}
    assert folds[0].outer.train.tolist() == [3, 4, 5, 7, 8]


def test_samples_of_a_run_must_be_adjacent():
    with pytest.raises(ValueError, match="Samples of one run must be adjacent"):
        folds_lib.contiguous_folds(["a", "b", "a", "b", "a", "a"], 3, gap=0)


def test_every_group_may_be_a_block():
    folds = folds_lib.contiguous_folds(["r"] * 14, 3, gap=0, groups=[*"xxxxxxxxxxyyzz"])
    assert [fold.outer.test.tolist() for fold in folds] == [list(range(10)), [10, 11], [12, 13]]


# Groups that are not adjacent, trimmed folds, chunks


def test_grouped_folds_of_adjacent_groups_are_contiguous_ones():
    runs = np.repeat(["a", "b"], [13, 11])
    for gap in (0, 2):
        found = folds_lib.grouped_folds(GROUPS, 4, gap=gap, runs=runs)
        expected = folds_lib.contiguous_folds(runs, 4, gap=gap, groups=GROUPS)
        assert folds_lib.folds_hash(found) == folds_lib.folds_hash(expected)


@pytest.mark.slow
@settings
@hypothesis.given(
    st.lists(st.integers(0, 7), min_size=12, max_size=60), st.integers(0, 3), st.booleans()
)
def test_grouped_folds_keep_groups_whole(groups, gap, one_run):
    """Every sample is tested once, no group is on both sides, and neighbours are left out."""
    groups = np.array(groups)
    runs = np.zeros(len(groups), int) if one_run else None
    try:
        folds = folds_lib.grouped_folds(groups, 3, gap=gap, runs=runs)
    except ValueError:
        hypothesis.assume(False)
    tested = np.concatenate([fold.outer.test for fold in folds])
    np.testing.assert_array_equal(np.sort(tested), np.arange(len(groups)))
    for fold in folds:
        for split in (fold.outer, *fold.inner):
            assert not set(groups[split.test]) & set(groups[split.train])
            if one_run:
                apart = np.abs(split.test[:, None] - split.train[None]).min()
                assert apart > gap
        near = np.abs(np.arange(len(groups))[:, None] - fold.outer.test[None]).min(axis=1)
        own = np.isin(groups, groups[fold.outer.test])
        left = ~own & (near > gap) if one_run else ~own
        np.testing.assert_array_equal(fold.outer.train, np.flatnonzero(left))


def test_grouped_folds_are_refused():
    with pytest.raises(ValueError, match="gap must be >= 0, got -1"):
        folds_lib.grouped_folds(GROUPS, 3, gap=-1)
    with pytest.raises(ValueError, match="3 blocks of 4 samples in 2 groups"):
        folds_lib.grouped_folds([0, 1, 0, 1], 3, gap=0)
    with pytest.raises(ValueError, match="Samples of one run must be adjacent"):
        folds_lib.grouped_folds(GROUPS, 3, gap=0, runs=np.arange(N) % 2)


@pytest.mark.parametrize("n", [40, 43])
def test_trimmed_folds(n):
    """Blocks of n // 4 samples; borders are trimmed on one side only."""
    label = np.minimum(np.arange(n) // (n // 4), 3)
    found = folds_lib.trimmed_folds(n, 4, trim=2)
    for i, (train, test) in enumerate(found):
        own, others = np.flatnonzero(label == i).tolist(), np.flatnonzero(label != i).tolist()
        expected = {0: (others[2:], own), 3: (others[:-2], own)}.get(i, (others, own[2:-2]))
        assert (train.tolist(), test.tolist()) == expected
    assert len(found) == 4
    with pytest.raises(ValueError, match="40 samples in 4 blocks, 5 trimmed"):
        folds_lib.trimmed_folds(40, 4, trim=5)


def test_chunks():
    train = np.arange(100, 147)
    found = folds_lib.chunked_splits(train, 30, chunk=5, num_chunks=3, seed=0)
    assert len({split.test.tobytes() for split in found}) > 20
    for split in found:
        np.testing.assert_array_equal(np.sort(np.r_[split.train, split.test]), train)
        assert len(split.test) == 15
        starts = split.test.reshape(3, 5)[:, 0] - 100
        assert (starts % 5 == 0).all()
        np.testing.assert_array_equal(
            split.test.reshape(3, 5) - 100, starts[:, None] + np.arange(5)
        )
        assert not np.isin([145, 146], split.test).any()  # what is no whole chunk
    again = folds_lib.chunked_splits(train, 30, chunk=5, num_chunks=3, seed=0)
    assert all(a.test.tolist() == b.test.tolist() for a, b in zip(found, again, strict=True))
    with pytest.raises(ValueError, match="9 of 5 samples are held out, and 47 training samples"):
        folds_lib.chunked_splits(train, 3, chunk=5, num_chunks=9, seed=0)
