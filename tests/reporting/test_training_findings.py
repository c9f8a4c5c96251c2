"""Scores along trainings, from planted ones: means, spread over seeds, differences, and words."""

import numpy as np
import pandas as pd
import pytest
from trainings import ARMS, FOLDS, SEEDS, STEPS, planted

from jaxalign.core.inference import stats
from jaxalign.reporting.findings import training
from jaxalign.reporting.run import build
from jaxalign.reporting.run.contents import Contents


def test_points_are_means_over_seeds_with_their_spread():
    rows, tuned, scores = planted()
    found = training.of_run(rows, tuned)
    assert found.models == set(tuned.model) and len(found.finals) == 9
    assert len(found.points) == len(ARMS) * len(STEPS)
    for x in found.points.itertuples():
        of = [scores[x.arm, seed, x.step].mean() for seed in SEEDS]
        expected = [np.mean(of), min(of), max(of), 40 * x.step + 1]
        np.testing.assert_allclose(
            [x.score, x.seed_low, x.seed_high, x.target_tokens], expected, rtol=1e-12
        )
        assert x.num_seeds == 3 and np.isnan(x.mmlu)
        np.testing.assert_equal(x.loss, np.nan if not x.step else 3.0 - 0.1 * x.step)


def test_differences_are_paired_by_seed_and_fold():
    rows, tuned, scores = planted()
    table = training.of_run(rows, tuned).differences
    assert len(table) == 3 * 3 + 3 * 2
    for x in table.itertuples():
        other = (x.first, 0) if x.second == training.START else (x.second, x.step)
        values = np.stack(
            [scores[x.first, i, x.step] - scores[other[0], i, other[1]] for i in SEEDS]
        )
        expected = stats.crossed_interval(values)
        np.testing.assert_allclose(
            [x.difference, x.ci_low, x.ci_high], expected[:3], rtol=1e-9, atol=1e-15
        )
        assert (x.num_seeds, x.num_folds) == (3, FOLDS)
    adjusted = stats.benjamini_hochberg(table.p.to_numpy(float))
    np.testing.assert_allclose(table.p_adjusted, adjusted)


def test_words_say_what_follows_and_what_does_not():
    said = training.of_run(*planted()[:2]).sentences
    text = " ".join(said)
    assert "instruction is above frozen by 0.116" in text
    assert "instruction is above its own step 0" in text
    assert "instruction minus shuffled" in said[-2] and "nothing follows" in said[-2]
    assert "differs by exactly 0 from its beginning" in said[-1]
    still = dict.fromkeys(ARMS, 0.0)
    said = training.of_run(*planted(still)[:2]).sentences
    assert len(said) == 2 and "nothing follows" in said[0]
    moved = training.of_run(*planted(still | {"frozen": 0.01})[:2]).sentences
    assert "something else than training moves scores" in moved[-1]
    one = training.of_run(*planted(seeds=(0,))[:2]).sentences
    assert "trained with one seed" in one[-1]


def test_models_that_were_not_scored_are_no_part():
    rows, tuned, _ = planted()
    assert training.of_run(rows, tuned.assign(model="other")) is None
    part = rows[~rows.model.str.contains("s2")]
    found = training.of_run(part, tuned)
    assert (found.points.num_seeds == 2).all() and (found.differences.num_seeds == 2).all()


def test_mmlu_is_shown_where_it_is_known():
    rows, tuned, _ = planted()
    known = pd.DataFrame({"mmlu": 0.3}, index=pd.Index(tuned.model, name="model"))
    found = training.of_run(rows, tuned, known)
    np.testing.assert_allclose(found.points.mmlu, 0.3)


@pytest.mark.slow
def test_the_page_has_a_section():
    rows, tuned, _ = planted(seeds=(0,))
    rows, tuned = (x[~x.model.str.contains("shuffled")] for x in (rows, tuned))
    found = training.of_run(rows, tuned)
    page = build.build(Contents(scores=rows, along=found))
    [section] = [x for x in page.sections if x.title == "Along training"]
    assert tuple(section.text) == found.sentences
    names = [x.name for x in section.charts]
    assert names == ["along_score", "along_score_targets", "along_loss"]
    assert len(section.charts[0].rows) == len(found.points)
    assert len(page.tables["training_differences"]) == len(found.differences)
    # Steps of a training are compared in that section, and not each model with each other one.
    assert "models" not in page.tables and "Between models" not in {x.title for x in page.sections}
