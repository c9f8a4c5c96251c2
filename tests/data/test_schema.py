"""Stimuli and responses: what is refused when they are built, and what a file keeps."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest
from refusals import refused

from jaxalign.data.images.stored import Hdf5
from jaxalign.data.schema import Responses, Stimuli

REQUIRED = ("values", "run", "subject", "roi", "target", "units")


def words(**changes):
    """Return three words of one run, the second and the third adjacent."""
    columns = {
        "stimulus_id": ["w0", "w1", "w2"],
        "text": ["The", "girl", "ran"],
        "passage": ["p"] * 3,
        "run": ["r"] * 3,
        "unit": "word",
        "onset_s": np.array([0.5, 1.0, 1.5]),
        "offset_s": np.array([0.75, 1.5, 2.0]),
    }
    return Stimuli(**columns | changes)


def sentences(**changes):
    return words(**{"unit": "sentence", "onset_s": np.empty(0), "offset_s": np.empty(0)} | changes)


VALUES = np.random.default_rng(0).normal(size=(4, 3))


def untimed(**changes):
    """Return responses of two subjects, one with two ROIs, to four stimuli in two runs."""
    columns = {
        "values": VALUES,
        "run": ["r1", "r1", "r2", "r2"],
        "subject": ["s1", "s1", "s2"],
        "roi": ["LATL", "LIFG", "LATL"],
        "target": ["mean"] * 3,
        "units": "z",
        "stimulus_id": ["a", "b", "c", "d"],
    }
    return Responses(**columns | changes)


def timed(**changes):
    times = {"stimulus_id": (), "time_s": np.array([20.0, 22.0, 4.0, 6.0]), "tr_s": 2.0}
    return untimed(**times | changes)


def arrays(responses=None):
    """Return what `to_bytes` writes, to be changed and written by the test itself."""
    responses = responses or untimed()
    # Grids are several arrays (tests/data/formats/test_grids.py); these responses have none.
    names = [f.name for f in dataclasses.fields(responses) if f.name != "grids"]
    return {name: getattr(responses, name) for name in names}


@pytest.fixture
def save(tmp_path):
    """Write arrays to a file; a value `...` leaves the array out."""

    def write(**changes):
        path = tmp_path / "responses.npz"
        kept = {name: x for name, x in (arrays() | changes).items() if x is not ...}
        np.savez(path, **kept)
        return path

    return write


def same(a: Responses, b: Responses):
    for field in dataclasses.fields(Responses):
        mine, other = getattr(a, field.name), getattr(b, field.name)
        assert np.shape(mine) == np.shape(other), field.name
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(other), err_msg=field.name)


# Stimuli


@pytest.mark.parametrize("name", ["text", "passage", "run"])
def test_a_column_of_another_length_is_refused(name):
    with refused(f"stimuli: {name} must have one entry per stimulus_id (3)", "found 2"):
        words(**{name: ["x", "y"]})


def test_a_repeated_stimulus_id_is_refused():
    with refused("stimuli: stimulus_id must be unique", "'w1' twice"):
        words(stimulus_id=["w0", "w1", "w1"])


@pytest.mark.parametrize("text", ["", " ", "\t\n"])
def test_a_part_without_text_is_refused(text):
    with refused("stimuli: text must not be empty", "'w1'"):
        words(text=["The", text, "ran"])


@pytest.mark.parametrize("onsets, offsets", [(2, 3), (4, 4), (3, 2), (3, 0), (0, 3)])
def test_times_of_another_length_are_refused(onsets, offsets):
    with refused("onset_s and offset_s must have 3 entries", f"found {onsets} and {offsets}"):
        words(onset_s=np.arange(float(onsets)), offset_s=np.arange(float(offsets)) + 0.5)


def test_a_word_that_ends_before_it_begins_is_refused():
    with refused("stimuli: 'girl' (w1, 1.0 s) must end after it begins", "ends at 0.9 s"):
        words(offset_s=np.array([0.75, 0.9, 2.0]))


@pytest.mark.parametrize(
    "name, i, value",
    [
        ("onset_s", 0, np.nan),
        ("offset_s", 0, np.nan),
        ("onset_s", 2, np.nan),
        ("offset_s", 2, np.nan),
        ("onset_s", 0, -np.inf),
        ("offset_s", 2, np.inf),
    ],
)
def test_a_time_that_is_not_finite_is_refused(name, i, value):
    times = getattr(words(), name).copy()
    times[i] = value
    with refused("stimuli:", f"{words().text[i]!r} (w{i}"):
        words(**{name: times})


def test_a_word_without_a_time_has_no_part_in_the_order_of_times():
    unaligned = words(onset_s=np.array([0.5, np.nan, 1.5]), offset_s=np.array([0.75, np.nan, 2.0]))
    assert unaligned.is_timed
    with refused("must not overlap", "'ran' (w2, 0.6 s) begins before 'The' (w0"):
        words(onset_s=np.array([0.5, np.nan, 0.6]), offset_s=np.array([0.75, np.nan, 2.0]))


def test_words_that_overlap_are_refused():
    with refused("must not overlap", "'ran' (w2, 1.4 s)", "before 'girl' (w1, 1.0 s)", "(1.5 s)"):
        words(onset_s=np.array([0.5, 1.0, 1.4]))
    # Ten microseconds are more than rounding.
    with refused("must not overlap", "'ran' (w2"):
        words(onset_s=np.array([0.5, 1.0, 1.5 - 1e-5]))


def test_words_may_touch_overlap_by_rounding_and_start_anew_in_another_run():
    assert len(words()) == 3
    assert len(words(onset_s=np.array([0.5, 1.0, 1.5 - 1e-7]))) == 3
    assert len(words(run=["r1", "r1", "r2"], onset_s=np.array([0.5, 1.0, 0.0]))) == 3


def test_a_word_may_have_no_duration():
    assert words(offset_s=np.array([0.5, 1.0, 1.5])).is_timed


def test_sentences_without_times_are_untimed():
    assert words().is_timed
    assert not sentences().is_timed
    assert len(sentences()) == 3


CHANGES = {
    "stimulus_id": ["w0", "w1", "w3"],
    "text": ["The", "girl", "Ran"],
    "passage": ["p", "p", "q"],
    "run": ["r", "r", "R"],
    "unit": "sentence",
    "onset_s": np.array([0.5, 1.0, np.nextafter(1.5, 2)]),
    "offset_s": np.array([0.75, 1.5, np.nextafter(2.0, 3)]),
    "space_before": [True, True, False],
    "language": "en",
}


def test_the_hash_changes_with_any_content():
    variants = [words(), *(words(**{name: value}) for name, value in CHANGES.items())]
    variants += [sentences(), words(text=["girl", "The", "ran"])]
    # The same letters, cut elsewhere.
    variants += [words(text=["Theg", "irl", "ran"]), words(text=["The", "girlr", "an"])]
    hashes = [x.hash for x in variants]
    assert {*CHANGES, "pixels"} == {f.name for f in dataclasses.fields(Stimuli)}
    assert len(set(hashes)) == len(variants)
    assert all(re.fullmatch("[0-9a-f]{16}", x) for x in hashes)


def images(*row, **changes):
    pixels = Hdf5(file=pathlib.Path("images.hdf5"), key="brick", row=np.array(row))
    return sentences(**{"unit": "image", "text": (), "pixels": pixels} | changes)


def test_images_are_told_apart_by_their_rows_and_captions():
    captioned = images(7, 8, 9, text=["A dog.", "A cat.", "A cow."])
    assert len({images(7, 8, 9).hash, images(7, 9, 8).hash, captioned.hash}) == 3
    assert len(images(7, 8, 9)) == 3


def test_images_and_nothing_else_have_pixels():
    for wrong in ({"unit": "sentence"}, {"pixels": None}):
        with refused("images, and nothing else, must have pixels"):
            images(7, 8, 9, **wrong)
    with refused("text must have one entry per stimulus_id (3), found 1"):
        images(7, 8, 9, text=["A dog."])


def test_the_hash_depends_on_content_alone():
    assert words().hash == words(text=("The", "girl", "ran"), onset_s=words().onset_s + 0.0).hash


# Responses


@pytest.mark.parametrize("name, size", [("run", 4), ("subject", 3), ("roi", 3), ("target", 3)])
def test_labels_of_another_length_are_refused(name, size):
    with refused(f"responses: {name} must have {size} entries for values 4 x 3", "found 1"):
        untimed(**{name: ["x"]})


def test_a_target_that_comes_twice_is_refused():
    with refused("subject 's1', roi 'LATL', target 'mean'", "must be there once, found twice"):
        untimed(roi=["LATL", "LATL", "LATL"])


@pytest.mark.parametrize(
    "changes",
    [
        {"roi": ["LATL", "LATL", "LATL"], "target": ["v1", "v2", "v1"]},
        {"subject": ["s1", "s2", "s3"], "roi": ["LATL"] * 3},
    ],
)
def test_targets_need_differ_in_one_label_only(changes):
    assert untimed(**changes).values.shape == (4, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value):
    values = VALUES.copy()
    values[2, 1] = values[3, 2] = value
    with refused("found 2 that are not", f"{value} at sample 2 of subject 's1', roi 'LIFG'"):
        untimed(values=values)


@pytest.mark.parametrize("build", [untimed, timed])
def test_times_and_stimuli_exclude_each_other(build):
    with refused("responses must have either time_s or stimulus_id, and not both"):
        build(stimulus_id=(), time_s=np.empty(0))
    with refused("responses must have either time_s or stimulus_id, and not both"):
        build(stimulus_id=list("abcd"), time_s=np.array([20.0, 22.0, 4.0, 6.0]))


def test_sample_labels_of_another_length_are_refused():
    with refused("responses: stimulus_id must have 4 entries, found 3"):
        untimed(stimulus_id=list("abc"))
    with refused("responses: time_s must have 4 entries, found 5"):
        timed(time_s=np.arange(5) * 2.0)


def test_a_repetition_time_in_milliseconds_is_refused():
    with refused(
        "responses: tr_s must be positive, in seconds", "found 2000.0, as if in milliseconds."
    ):
        timed(tr_s=2000.0, time_s=np.array([0, 2000.0, 0, 2000.0]))


@pytest.mark.parametrize("tr_s", [0.0, -2.0, float("nan")])
def test_a_repetition_time_that_is_not_positive_is_refused(tr_s):
    with refused("responses: tr_s must be positive", f"found {tr_s}"):
        timed(tr_s=tr_s)


@pytest.mark.parametrize("gap, is_even", [(400.0, True), (400.4, False), (401.0, False)])
def test_a_long_gap_is_whole_trs_as_a_short_one_is(gap, is_even):
    """The tolerance is that of one step: of a gap of 200 TRs .2 TRs were let pass."""
    time_s = np.r_[2.0 * np.arange(300), 598.0 + gap + 2.0 * np.arange(300)]
    values = np.outer(np.arange(600.0), [1, 2, 3])
    make = lambda: timed(time_s=time_s, values=values, run=["r"] * 600)
    if is_even:
        make()
    else:
        with refused("time_s must advance by tr_s = 2.0 s within a run", f"step of {gap:.4f} s"):
            make()


def test_a_rounded_tr_does_not_add_up_in_a_gap():
    """A TR of 1.4993 s that was given as 1.5 s is .05 TRs off after a gap of a hundred."""
    time_s = 1.4993 * np.r_[np.arange(300), np.arange(400, 700)]
    n = len(time_s)
    timed(time_s=time_s, tr_s=1.5, values=np.outer(np.arange(n), [1.0, 2, 3]), run=["r"] * n)


@pytest.mark.parametrize("step", [0.0, 1.99, 2.01, 3.0, 4.1, -2.0])
def test_uneven_samples_are_refused(step):
    with refused("time_s must advance by tr_s = 2.0 s within a run", f"step of {step:.4f} s"):
        timed(time_s=np.array([20.0, 22.0, 4.0, 4.0 + step]))


def test_samples_without_a_time_are_refused():
    with refused("responses: time_s"):
        timed(time_s=np.array([20.0, 22.0, np.nan, np.nan]))


def test_samples_may_be_rounded_and_runs_have_clocks_of_their_own():
    assert timed(time_s=np.array([20.0, 22.001, 4.0, 6.0])).is_timed
    assert timed(time_s=np.array([0.0, 2.0, 0.0, 2.0])).is_timed
    assert timed(time_s=np.array([0.0, 2.0, 100.0, 102.0])).is_timed


def test_censored_samples_leave_a_gap_of_whole_trs():
    assert timed(time_s=np.array([0.0, 4.0, 0.0, 20.0])).is_timed


def test_samples_of_a_run_that_are_not_adjacent_are_refused():
    with refused("responses:", "run", "r1"):
        timed(run=["r1", "r2", "r1", "r2"])


def test_two_identical_subjects_are_refused():
    with refused("responses of two subjects must differ", "'s1' and 's2' are identical"):
        untimed(
            values=VALUES[:, [0, 1, 0, 1]],
            subject=["s1", "s1", "s2", "s2"],
            roi=["LATL", "LIFG"] * 2,
            target=["mean"] * 4,
        )


def test_identical_subjects_are_found_among_others():
    with refused("'s1' and 's3' are identical"):
        untimed(values=VALUES[:, [0, 1, 0]], subject=["s1", "s2", "s3"], roi=["LATL"] * 3)


def test_subjects_may_be_constant_alike_or_share_some_targets():
    constant = np.full((4, 2), 7.0)
    pair = {"subject": ["s1", "s2"], "roi": ["LATL"] * 2, "target": ["mean"] * 2}
    assert untimed(values=constant, **pair).constant.all()
    shared = untimed(
        values=np.c_[VALUES, VALUES[:, 0]],
        subject=["s1", "s1", "s2", "s2"],
        roi=["LATL", "LIFG", "LIFG", "LATL"],
        target=["mean"] * 4,
    )
    assert not shared.constant.any()


@pytest.mark.parametrize("shape", [(4, 2), (3, 3), (3, 4)])
def test_a_signal_of_another_shape_is_refused(shape):
    with refused(f"responses: signal must be 4 x 3, found {shape}"):
        untimed(signal=np.ones(shape))


def test_constant_targets_are_found_up_to_rounding():
    wobble = 1000 * (1 + np.float64(np.finfo(np.float32).eps) * np.array([0, 1, 0, -1]))
    values = np.c_[np.full(4, 3.5), wobble, np.zeros(4), 1000 + np.arange(4.0)]
    responses = untimed(values=values, subject=["s1"] * 4, roi=list("abcd"), target=["mean"] * 4)
    assert responses.constant.tolist() == [True, True, True, False]


def test_columns_keeps_the_targets_asked_for():
    responses = untimed(signal=VALUES + 1)
    kept = responses.columns([True, False, True])
    np.testing.assert_array_equal(kept.values, VALUES[:, [0, 2]])
    np.testing.assert_array_equal(kept.signal, VALUES[:, [0, 2]] + 1)
    assert (kept.subject, kept.roi, kept.target) == (["s1", "s2"], ["LATL"] * 2, ["mean"] * 2)
    assert (kept.stimulus_id, kept.run) == (responses.stimulus_id, responses.run)
    assert untimed().columns([False, True, False]).signal.shape == (0, 0)


# Files


@pytest.mark.parametrize("build", [untimed, timed], ids=["untimed", "timed"])
@pytest.mark.parametrize("signal", [np.empty((0, 0)), VALUES + 1], ids=["recorded", "simulated"])
def test_a_file_keeps_everything(tmp_path, build, signal):
    responses = build(signal=signal)
    path = tmp_path / "responses.npz"
    path.write_bytes(responses.to_bytes())
    loaded = Responses.load(path)
    same(loaded, responses)
    assert loaded.is_timed == responses.is_timed
    assert all(type(x) is str for x in [*loaded.subject, *loaded.stimulus_id, loaded.units])


def test_the_same_responses_are_the_same_bytes():
    assert untimed().to_bytes() == untimed().to_bytes()
    assert untimed().to_bytes() != untimed(values=VALUES + 1).to_bytes()


def test_arrays_that_are_not_needed_may_be_left_out(save):
    same(Responses.load(save(time_s=..., tr_s=..., signal=...)), untimed())
    path = save(**arrays(timed()) | {"stimulus_id": ..., "signal": ...})
    same(Responses.load(path), timed())


def test_numbers_of_other_types_become_float64(save):
    integers = np.arange(12).reshape(4, 3) ** 2
    loaded = Responses.load(save(values=integers, subject=np.array([1, 1, 2])))
    assert loaded.values.dtype == np.float64
    np.testing.assert_array_equal(loaded.values, integers)
    assert loaded.subject == ["1", "1", "2"]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_array_is_named(save, name):
    with refused("responses.npz must hold array", f"'{name}'", "is missing"):
        Responses.load(save(**{name: ...}))


def test_an_unknown_array_is_named(save):
    with refused("responses.npz: array 'voxels' is none of", "'roi'"):
        Responses.load(save(voxels=np.ones(3)))


@pytest.mark.parametrize("name", ["subject", "values"])
def test_a_pickled_array_is_refused(save, name):
    with refused("responses.npz must be an .npz of plain arrays"):
        Responses.load(save(**{name: np.asarray(arrays()[name]).astype(object)}))


@pytest.mark.parametrize(
    "values", [VALUES[:, 0], VALUES[None]], ids=lambda x: "x".join(map(str, x.shape))
)
def test_values_that_are_no_table_are_refused(save, values):
    with refused(
        "responses.npz: values must be numbers in 2 dimensions", f"of shape {values.shape}"
    ):
        Responses.load(save(values=values))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with refused("nobody.npz", "No such file"):
        Responses.load(tmp_path / "nobody.npz")


@pytest.mark.parametrize("content", [b"", b"stimulus_id,text\n", b"PK\x03\x04"], ids=repr)
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "responses.npz"
    path.write_bytes(content)
    with refused(path, "must be an .npz of plain arrays"):
        Responses.load(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "responses.npz"
    content = untimed().to_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with refused(path, "must be an .npz of plain arrays"):
        Responses.load(path)


def test_a_single_array_in_place_of_an_npz_is_refused(tmp_path):
    path = tmp_path / "responses.npz"
    with open(path, "wb") as file:
        np.save(file, VALUES)
    with refused(path, "must be an .npz of plain arrays"):
        Responses.load(path)


@pytest.mark.parametrize(
    "name, value",
    [
        ("values", np.full((4, 3), "high")),
        ("time_s", np.array(list("abcd"))),
        ("time_s", np.ones((4, 1))),
        ("tr_s", np.array([2.0, 2.0])),
        ("tr_s", np.array("two")),
        ("run", np.array("r1")),
    ],
    ids=lambda x: x if isinstance(x, str) else f"{x.dtype.kind}{x.shape}",
)
def test_an_array_of_another_kind_is_named(save, name, value):
    with refused("responses.npz", name):
        Responses.load(save(**arrays(timed()) | {"stimulus_id": ..., name: value}))


def test_what_a_file_holds_is_checked_like_anything_else(save):
    with refused("responses must be finite"):
        Responses.load(save(values=np.where(VALUES == VALUES[0, 0], np.nan, VALUES)))
    with refused("responses: run must have 4 entries"):
        Responses.load(save(run=["r1"]))


def test_a_subject_may_not_be_called_the_group():
    with refused("no subject may be called 'group'"):
        Responses(
            values=np.arange(4.0)[:, None],
            run=["r"] * 4,
            subject=["group"],
            roi=["A"],
            target=["t"],
            units="z",
            stimulus_id=["a", "b", "c", "d"],
        )
