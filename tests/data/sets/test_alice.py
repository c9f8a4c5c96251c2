"""The real Alice, and what is said of a spoiled copy of its folder."""

import logging
import re

import numpy as np
import pytest
from alice_copy import WORDS, Copy, table, text_grid
from refusals import refused
from scipy import signal
from scipy import stats as scipy_stats

from jaxalign.data import datasets
from jaxalign.data.sets import alice


@pytest.fixture
def copy(tmp_path, rng):
    return Copy(tmp_path, rng)


@pytest.fixture(scope="module")
def real(data_root):
    return datasets.find("alice", data_root)


# The published data


def test_the_words_are_the_intervals_of_the_text_grid(real, data_root):
    text = (data_root / alice.FOLDER / alice.TEXTGRID).read_text(encoding="utf-8")
    number = r"([\d.]+)\s*"
    entries = re.findall(rf'xmin = {number}xmax = {number}text = "([^"]*)"', text)
    expected = [
        (float(a), float(b), x.strip()) for a, b, x in entries if x.strip() not in ("", "sp")
    ]
    stimuli = real.stimuli
    found = zip(stimuli.onset_s.tolist(), stimuli.offset_s.tolist(), stimuli.text, strict=True)
    assert len(entries) == 2423
    assert list(found) == expected


def test_there_are_2127_words_and_the_first_is_alice(real):
    stimuli = real.stimuli
    assert len(stimuli) == 2127
    assert stimuli.text[:4] == ["Alice", "was", "beginning", "to"]
    assert stimuli.onset_s[0] == 20.05891632653599
    assert stimuli.stimulus_id[0] == "alice-ch1.0000"
    assert stimuli.stimulus_id[-1] == "alice-ch1.2126"
    assert stimuli.unit == "word"


def test_no_word_has_white_space_around_it(real):
    assert [x for x in real.stimuli.text if x != x.strip() or not x] == []


def test_there_are_28_subjects_with_362_samples_of_6_regions(real):
    responses = real.responses
    subjects = list(dict.fromkeys(responses.subject))
    assert responses.values.shape == (362, 28 * 6)
    assert len(subjects) == 28
    assert responses.subject == [s for s in subjects for _ in range(6)]
    assert responses.roi == ["LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG"] * 28


def test_columns_are_those_of_the_files(real, data_root):
    path = data_root / alice.FOLDER / "alice_data_shared/10mm/s42-timecourses.txt"
    lines = [[float(x) for x in line.split()] for line in path.read_text().splitlines()]
    own = [subject == "s42" for subject in real.responses.subject]
    np.testing.assert_array_equal(real.responses.columns(own).values, lines)


def test_sample_k_lies_at_20_plus_2k_seconds(real):
    responses = real.responses
    assert responses.tr_s == 2.0
    np.testing.assert_array_equal(responses.time_s, [20.0 + 2.0 * k for k in range(362)])
    # The story ends before the last sample, and the first word begins at the first one.
    assert responses.time_s[0] < real.stimuli.onset_s[0] < responses.time_s[1]
    assert real.stimuli.offset_s[-1] < responses.time_s[-1] + responses.tr_s
    assert set(responses.run) == set(real.stimuli.run)


def test_words_and_samples_have_one_clock(real, data_root):
    """Word offsets under a haemodynamic response give the published word rate, at lag 0 best."""
    path = data_root / alice.FOLDER / "alice_data_shared/s22-rate.txt"
    published = np.array([float(x) for x in path.read_text().split()])
    step_s = 0.1
    time_s = np.arange(0, 32, step_s)
    response = scipy_stats.gamma.pdf(time_s, 6) - scipy_stats.gamma.pdf(time_s, 16) / 6
    ends = np.zeros(7800)
    np.add.at(ends, (real.stimuli.offset_s / step_s).astype(int), 1)
    heard = np.convolve(ends, response)
    r = {
        lag_s: np.corrcoef(heard[((real.responses.time_s + lag_s) / step_s).astype(int)], published)
        for lag_s in (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
    }
    assert r[0.0][0, 1] > 0.98
    assert max(r, key=lambda lag_s: r[lag_s][0, 1]) == 0.0


def test_s24_and_s35_alone_share_a_word_rate_file(data_root, caplog):
    with caplog.at_level(logging.WARNING):
        found = datasets.find("alice", data_root).responses
    (said,) = (x.getMessage() for x in caplog.records)
    assert "s35-rate.txt has the content of s24-rate.txt" in said
    assert {"s24", "s35"} <= set(found.subject)


def test_s33_alone_is_constant(real):
    responses = real.responses
    constant = np.array(responses.constant).reshape(28, 6)
    subjects = responses.subject[::6]
    assert [s for s, x in zip(subjects, constant, strict=True) if x.any()] == ["s33"]
    assert constant.sum() == 6


def test_subjects_agree_most_in_temporal_and_least_in_frontal_cortex(real):
    responses = real.responses.columns((~real.responses.constant).tolist())
    cube = signal.detrend(responses.values.reshape(362, 27, 6), axis=0)
    cube /= cube.std(axis=0)
    others = cube.sum(axis=1, keepdims=True) - cube
    agreement = (cube * others / others.std(axis=0)).mean(axis=(0, 1))
    # The index of the data says .14 to .38; two decimals are all that it gives.
    assert agreement.min() == pytest.approx(0.14, abs=0.005)
    assert agreement.max() == pytest.approx(0.38, abs=0.005)
    assert responses.roi[agreement.argmin()] == "LIFG"
    assert responses.roi[agreement.argmax()] == "LPTL"


def test_6_mm_are_other_data_with_the_same_words(real, data_root):
    small = datasets.find("alice-6mm", data_root)
    assert small.responses.values.shape == real.responses.values.shape
    assert small.responses.subject == real.responses.subject
    varying = ~real.responses.constant
    difference = small.responses.values[:, varying] - real.responses.values[:, varying]
    assert (np.abs(difference).max(axis=0) > 0).all()
    assert small.stimuli.hash == real.stimuli.hash
    assert small.hash != real.hash


# Copies of the folder


def test_a_copy_is_read(copy):
    stimuli = copy.stimuli()
    assert stimuli.text == ["Alice", "was", "beginning"]
    assert stimuli.onset_s.tolist() == [20.0, 20.5, 21.5]
    assert stimuli.offset_s.tolist() == [20.5, 21.0, 22.25]
    assert stimuli.stimulus_id == ["alice-ch1.0000", "alice-ch1.0001", "alice-ch1.0002"]
    assert copy.responses().subject == ["s18"] * 6 + ["s22"] * 6
    assert copy.responses().is_timed and alice.Alice.timed


def test_subjects_are_named_by_their_number(copy):
    values = copy.draw()
    copy.write("s007", values)
    responses = copy.responses()
    own = [subject == "s7" for subject in responses.subject]
    np.testing.assert_array_equal(responses.columns(own).values, values)


def test_two_constant_subjects_are_read(copy):
    for subject in ("s30", "s33"):
        copy.write(subject, np.ones((362, 6)))
    assert copy.responses().constant.tolist() == [False] * 12 + [True] * 12


def test_a_missing_folder_is_named(copy, tmp_path):
    with refused("alice needs", tmp_path / "elsewhere" / alice.FOLDER, "missing"):
        (tmp_path / "elsewhere").mkdir()
        datasets.find("alice", tmp_path / "elsewhere")


def test_a_missing_text_grid_is_named(copy):
    copy.grid.unlink()
    with refused("alice needs", copy.grid, "missing"):
        copy.stimuli()


def test_missing_time_courses_are_named(copy):
    with refused("alice-6mm needs", copy.courses.with_name("6mm"), "none is there"):
        datasets.find("alice-6mm", copy.root)
    for path in copy.courses.iterdir():
        path.unlink()
    with refused("alice needs sNN-timecourses.txt in", copy.courses, "none is there"):
        copy.responses()


@pytest.mark.parametrize("shape", [(361, 6), (363, 6), (362, 5), (362, 7)])
def test_a_time_course_of_another_size_is_refused(copy, shape):
    path = copy.write("s30", copy.rng.normal(size=shape))
    with refused(path, "must have 362 TRs x 6 regions", f"found {shape[0]} x {shape[1]}"):
        copy.responses()


def test_a_time_course_with_text_is_refused(copy):
    path = copy.write("s30", table(copy.draw(361)) + "1 2 x 4 5 6\n")
    with refused(path, "must be a table of numbers", "'x'", "row 361"):
        copy.responses()


def test_a_time_course_with_a_short_line_is_refused(copy):
    path = copy.write("s30", table(copy.draw(361)) + "1 2 3 4 5\n")
    with refused(path, "must be a table of numbers"):
        copy.responses()


def test_an_empty_time_course_is_refused(copy):
    path = copy.write("s30", "")
    with refused(path):
        copy.responses()


def test_a_time_course_that_is_no_text_is_refused(copy):
    path = copy.courses / "s30-timecourses.txt"
    path.write_bytes(bytes(range(256)))
    with refused(path, "must be a table of numbers"):
        copy.responses()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_value_that_is_not_finite_is_named(copy, value):
    path = copy.write("s30", table(copy.draw(361)) + f"1 2 3 {value} 5 6\n")
    with refused(path, "must be finite", f"{value} at sample 361 of subject 's30', roi 'LIPL'"):
        copy.responses()


def test_two_files_of_one_subject_are_refused(copy):
    copy.write("s018", copy.draw())
    with refused(copy.courses, "subject 's18'", "found twice: subject ids must be unique"):
        copy.responses()


def test_a_copy_under_another_subject_is_refused(copy):
    copy.write("s30", (copy.courses / "s18-timecourses.txt").read_text())
    with refused(copy.courses, "two subjects must differ", "'s18' and 's30' are identical"):
        copy.responses()


def test_a_shared_word_rate_file_is_reported_and_no_reason_to_refuse(copy, caplog):
    rates = copy.courses.parent
    for subject in ("s18", "s22", "s30"):
        (rates / f"{subject}-rate.txt").write_text("1\n" if subject == "s22" else "0\n")
    with caplog.at_level(logging.WARNING):
        assert copy.responses().subject == ["s18"] * 6 + ["s22"] * 6
    few, said = (x.getMessage() for x in caplog.records)
    assert few == f"{copy.courses} holds 2 of the 28 subjects"
    assert said.startswith(f"{rates / 's30-rate.txt'} has the content of s18-rate.txt")


@pytest.mark.parametrize("name", ["subject30", "s", "s3a"])
def test_a_file_of_another_name_is_refused(copy, name):
    path = copy.write(name, copy.draw())
    with refused(path, "the name must be sNN-timecourses.txt"):
        copy.responses()


def test_words_that_overlap_are_refused(copy):
    copy.grid.write_text(text_grid([*WORDS[:2], (20.25, 21.0, "was")]))
    with refused(copy.grid, "overlap", "Alice", "was"):
        copy.stimuli()


def test_a_word_that_ends_before_it_begins_is_refused(copy):
    copy.grid.write_text(text_grid([*WORDS[:2], (20.75, 20.5, "was")]))
    with refused(copy.grid, "20.75", "20.5"):
        copy.stimuli()


def test_a_text_grid_without_a_tier_word_is_refused(copy):
    copy.grid.write_text(text_grid(WORDS, name="phone"))
    with refused(copy.grid, "must be a TextGrid with a tier 'word'"):
        copy.stimuli()


def test_a_tier_of_points_is_refused(copy):
    copy.grid.write_text(text_grid(WORDS, points=True))
    with refused(copy.grid, "tier 'word'", "points, not intervals"):
        copy.stimuli()


@pytest.mark.parametrize(
    "grid",
    [text_grid([], points=True), text_grid([]), text_grid([(0.0, 60.0, "sp")])],
    ids=["no points", "no intervals", "only pauses"],
)
def test_a_tier_without_words_is_refused(copy, grid):
    copy.grid.write_text(grid)
    with refused(copy.grid, "word"):
        copy.stimuli()


@pytest.mark.parametrize("content", [b"", b"Alice was beginning\n", bytes(range(256))], ids=len)
def test_a_file_that_is_no_text_grid_is_refused(copy, content):
    copy.grid.write_bytes(content)
    with refused(copy.grid, "must be a TextGrid"):
        copy.stimuli()


@pytest.mark.parametrize(
    "last",
    ['item [1]:\n        class = "Interv', "xmin = 20.", 'text = "was', 'text = "was "'],
    ids=["in the header", "in a time", "in a word", "behind a word"],
)
def test_a_truncated_text_grid_is_refused(copy, last):
    whole = text_grid(WORDS)
    copy.grid.write_text(whole[: whole.index(last) + len(last)])
    with refused(copy.grid, "must be a TextGrid"):
        copy.stimuli()
