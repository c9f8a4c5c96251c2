"""Features on the samples of responses, and words whose clock is not that of the TRs."""

import dataclasses

import numpy as np
import pytest
from refusals import refused

from jaxalign.data import samples
from jaxalign.data.schema import Responses, Stimuli

TR_S, NUM_TRS, RUNS = 2.0, 60, ("r1", "r2", "r3")
ONSET_S = np.round(np.arange(0, NUM_TRS * TR_S, 0.7), 1)


@pytest.fixture
def words():
    onset_s = np.tile(ONSET_S, len(RUNS))
    names = [f"w{i}" for i in range(len(onset_s))]
    run = np.repeat(RUNS, len(ONSET_S)).tolist()
    return Stimuli(
        stimulus_id=names,
        text=names,
        passage=run,
        run=run,
        unit="word",
        onset_s=onset_s,
        offset_s=onset_s,
    )


@pytest.fixture
def responses(rng):
    time_s = np.tile(TR_S * np.arange(NUM_TRS), len(RUNS))
    return Responses(
        values=rng.normal(size=(len(time_s), 1)),
        run=np.repeat(RUNS, NUM_TRS).tolist(),
        subject=["s"],
        roi=["r"],
        target=["t"],
        units="",
        time_s=time_s,
        tr_s=TR_S,
    )


def moved(words, onset_s):
    return dataclasses.replace(words, onset_s=onset_s, offset_s=onset_s)


def test_words_on_the_clock_of_the_run_are_all_in_a_tr(words, responses, caplog):
    assert samples.check_clock("mine", words, responses, 0) == (0, 0, 0)
    assert not caplog.text


def test_words_on_the_clock_of_the_session_are_refused(words, responses):
    session_s = np.repeat(np.arange(len(RUNS)) * NUM_TRS * TR_S, len(ONSET_S))
    late = moved(words, words.onset_s + session_s)
    with refused(
        *("data set mine: run 'r2': words must begin within its 60 TRs, 0 to 120 s", "all 172"),
        *("from 120 to 239.7 s", "onset_s must be in seconds"),
    ):
        samples.check_clock("mine", late, responses, 0)


@pytest.mark.parametrize(
    "onset_s, lead, lost, empty",
    [
        (ONSET_S + 60, 0, 86, 30),
        (ONSET_S - 20, 0, 29, 10),
        (ONSET_S - 20, 10, 0, 10),
    ],
)
def test_words_without_a_tr_are_counted(words, responses, caplog, onset_s, lead, lost, empty):
    late = moved(words, np.tile(onset_s, len(RUNS)))
    assert samples.check_clock("mine", late, responses, lead) == (3 * lost, 0, 3 * empty)
    assert (f"{3 * lost} of 516 words" in caplog.text) == (lost > 0)
    assert f"in {3 * empty} of 180 TRs" in caplog.text
    onto = samples.Placement(late, responses, "sum", lead)
    assert samples.from_stimuli(np.ones((516, 1)), onto).values.sum() == 516 - 3 * lost


@pytest.mark.parametrize("num", [len(ONSET_S), 20])  # words of the whole run, and of its start
def test_onsets_in_milliseconds_are_refused(words, responses, num):
    """The first word begins with the run in either unit, and so would be in a TR."""
    kept = np.flatnonzero(np.tile(np.arange(len(ONSET_S)) < num, len(RUNS)))
    take = lambda x: [x[i] for i in kept]
    some = dataclasses.replace(
        words,
        **{x: take(getattr(words, x)) for x in ("stimulus_id", "text", "passage", "run")},
        onset_s=1000 * words.onset_s[kept],
        offset_s=1000 * words.onset_s[kept],
    )
    with refused(
        "data set mine: run 'r1': onset_s must be in seconds, but half of its",
        *("and its 60 TRs end at 120 s", "milliseconds are to be divided by 1000"),
    ):
        samples.check_clock("mine", some, responses, 0)


def test_runs_on_the_clock_of_a_long_session_are_not_taken_for_milliseconds(words, responses):
    """A run after nineteen others has no word in its TRs, and is refused for that."""
    late = moved(words, words.onset_s + 19 * NUM_TRS * TR_S)
    with refused("words must begin within its 60 TRs", "on the clock of time_s"):
        samples.check_clock("mine", late, responses, 0)
    early = moved(words, words.onset_s + np.tile(np.where(ONSET_S < 20, 0, 1000), len(RUNS)))
    assert samples.check_clock("mine", early, responses, 0)[0] > 0


def test_words_whose_time_is_not_known_are_counted_and_in_no_tr(words, responses, caplog):
    onset_s = words.onset_s.copy()
    onset_s[:40] = np.nan
    some = moved(words, onset_s)
    lost, unknown, _ = samples.check_clock("mine", some, responses, 0)
    assert (lost, unknown) == (40, 40)
    assert "40 of 516 words (7.8 %) begin in no TR" in caplog.text
    assert "40 of them because their time is not known; most in run r1" in caplog.text
    onto = samples.Placement(some, responses, "sum", 0)
    assert samples.from_stimuli(np.ones((516, 1)), onto).values.sum() == 476
    onset_s[: len(ONSET_S)] = np.nan
    with refused("run 'r1'", "all 172 begin at unknown times"):
        samples.check_clock("mine", moved(words, onset_s), responses, 0)


def test_censored_trs_are_left_out_and_all_else_stays(words, responses, rng):
    values = rng.normal(size=(516, 4))
    whole = samples.from_stimuli(values, samples.Placement(words, responses, "mean", 3))
    kept = np.flatnonzero(rng.random(180) < 0.8)
    censored = dataclasses.replace(
        responses,
        values=responses.values[kept],
        run=[responses.run[i] for i in kept],
        time_s=responses.time_s[kept],
    )
    found = samples.from_stimuli(values, samples.Placement(words, censored, "mean", 3))
    np.testing.assert_array_equal(found.values[found.recorded], whole.values[whole.recorded][kept])
