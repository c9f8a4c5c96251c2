import types

import numpy as np
import pytest

from jaxalign.core import features
from jaxalign.core.ceilings import ceiling
from jaxalign.data.schema import Responses
from jaxalign.results import targets

BLOCKS = [np.arange(0, 13), np.arange(13, 40)]


def responses(values, columns):
    """Return responses whose columns are given as "subject roi target"."""
    subject, roi, target = zip(*(x.split() for x in columns), strict=True)
    return Responses(
        values=values,
        run=["r"] * len(values),
        subject=list(subject),
        roi=list(roi),
        target=list(target),
        units="z",
        stimulus_id=[str(i) for i in range(len(values))],
    )


def assemble(given):
    """Return targets and their ceilings."""
    rng = np.random.default_rng(0)
    ceilings = targets.ceilings(given, BLOCKS, num_splits=20, rng=rng)
    return types.SimpleNamespace(**targets.assemble(given)._asdict(), **ceilings._asdict())


def test_group_has_the_targets_that_all_subjects_have(rng):
    given = responses(rng.standard_normal((40, 3)), ["a A t", "a B t", "b A t"])
    found = assemble(given)
    assert found.subject == ["a", "a", "b", "group"]
    assert found.roi == ["A", "B", "A", "A"]
    np.testing.assert_array_equal(np.isnan(found.ceiling[:3]), [False, True, False])
    assert np.isnan(found.signal_r).all()


def test_one_subject_has_no_ceiling_and_no_group(rng):
    found = assemble(responses(rng.standard_normal((40, 2)), ["a A t", "a B t"]))
    assert found.subject == ["a", "a"]
    assert np.isnan(found.ceiling).all()


def test_subjects_are_joined_by_name_not_by_order(rng):
    """The same data with columns in another order: the same group, the same ceilings."""
    values = rng.standard_normal((40, 6)) + rng.standard_normal((40, 1))
    names = ["a A t", "a B t", "b A t", "b B t", "c A t", "c B t"]
    order = [3, 0, 5, 4, 1, 2]
    before = assemble(responses(values, names))
    after = assemble(responses(values[:, order], [names[i] for i in order]))
    np.testing.assert_allclose(after.ceiling[:6], before.ceiling[order])
    place = [after.roi[6:].index(roi) for roi in before.roi[6:]]
    np.testing.assert_allclose(after.Y[:, 6:][:, place], before.Y[:, 6:])


def test_group_is_the_mean_of_standardised_subjects(rng):
    """A subject with a hundred times the scanner units weighs no more than another."""
    values = rng.standard_normal((40, 3)) * [1, 100, 1] + [0, 1e4, 0]
    found = assemble(responses(values, ["a A t", "b A t", "c A t"]))
    standard = features.standardize(values, ["r"] * 40)
    np.testing.assert_allclose(found.Y[:, 3], standard.mean(axis=1))
    np.testing.assert_allclose(found.Y[:, :3], standard)


def test_constant_target_of_one_subject_stays_out_of_the_mean(rng):
    """It would pull the group's mean to zero, and is no evidence about the others."""
    values = rng.standard_normal((40, 6)) + rng.standard_normal((40, 1))
    values[:, 1] = 3.0
    names = ["a A t", "a B t", "b A t", "b B t", "c A t", "c B t"]
    found = assemble(responses(values, names))
    standard = features.standardize(values, ["r"] * 40)
    group_b = found.Y[:, 6 + found.roi[6:].index("B")]
    np.testing.assert_allclose(group_b, standard[:, [3, 5]].mean(axis=1))
    assert np.isnan(found.ceiling[1])
    pair = ceiling.correlation(standard[:, 3], standard[:, 5], BLOCKS)
    np.testing.assert_allclose(found.ceiling[[3, 5]], pair)


def test_simulated_signal_is_compared_with_subjects_and_group(rng):
    signal = rng.standard_normal((40, 1))
    noise = rng.standard_normal((40, 4))
    given = responses(signal + noise, ["a A t", "b A t", "c A t", "d A t"])
    given = Responses(**(vars(given) | {"signal": np.tile(signal, (1, 4))}))
    found = assemble(given)
    for i in range(5):
        expected = ceiling.correlation(signal[:, 0], found.Y[:, i], BLOCKS)
        assert found.signal_r[i] == pytest.approx(expected)
    assert found.signal_r[4] > found.signal_r[:4].max()


def test_select_keeps_regions_and_names_constant_subjects(rng):
    values = rng.standard_normal((40, 4))
    values[:, 2] = 5.0
    given = responses(values, ["a A t", "a B t", "b A t", "b B t"])
    kept, left_out = targets.select(given, ())
    assert (kept.subject, left_out) == (["a", "a", "b", "b"], [])
    kept, left_out = targets.select(given, ("A",))
    assert (kept.subject, kept.roi, left_out) == (["a"], ["A"], ["b"])


def test_runs_of_a_scanner_are_standardised_one_by_one(rng):
    """A step of the baseline between runs is no response; ceiling and target agree about it."""
    values = rng.standard_normal((40, 2))
    steps = np.where(np.arange(40) < 20, 0, 50)[:, None]
    times = 2.0 * np.r_[np.arange(20), np.arange(20)]

    def timed(values):
        fields = vars(responses(values, ["a A t", "b A t"])) | {"stimulus_id": ()}
        runs = ["r1"] * 20 + ["r2"] * 20
        return assemble(Responses(**(fields | {"run": runs, "time_s": times, "tr_s": 2.0})))

    flat, stepped = timed(values), timed(values + steps)
    np.testing.assert_allclose(stepped.Y, flat.Y, atol=1e-12)
    np.testing.assert_allclose(stepped.ceiling, flat.ceiling)


def test_short_runs_of_single_stimuli_keep_their_differences(rng):
    """Without a scanner's drift there is nothing to remove: a run may be one sentence."""
    values = rng.standard_normal((40, 2))
    given = responses(values, ["a A t", "b A t"])
    given = Responses(**(vars(given) | {"run": [str(i) for i in range(40)]}))
    np.testing.assert_allclose(assemble(given).Y[:, 0].std(), 1)


def test_ceilings_of_folds_are_what_ceilings_are_made_of(rng):
    shared = rng.standard_normal((40, 1))
    given = responses(shared + rng.standard_normal((40, 3)), ["a A t", "b A t", "c A t"])
    found = assemble(given)
    assert found.fold_ceilings.shape == (len(BLOCKS), 4)
    np.testing.assert_allclose(found.fold_ceilings[:, :3].mean(axis=0), found.ceiling[:3])
    for block, folds in zip(BLOCKS, found.fold_ceilings, strict=True):
        others = found.Y[block, 1:3].mean(axis=1)
        assert folds[0] == pytest.approx(np.corrcoef(found.Y[block, 0], others)[0, 1])
    r = found.fold_ceilings[:, 3].mean()
    assert found.ceiling[3] == pytest.approx(np.sqrt(ceiling.reliability(np.array(r), 1 / 3)))
