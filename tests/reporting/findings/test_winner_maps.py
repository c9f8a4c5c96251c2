"""Which instruction wins where, from rows and targets with answers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
import score_rows
from score_rows import NAN, row

from jaxalign.core.inference import stats
from jaxalign.core.solver import partition
from jaxalign.reporting.findings import instructions

FOLDS = {  # of instruction and subject
    ("colour", "s1"): [0.30, 0.32],
    ("colour", "s2"): [0.40, 0.46],
    ("caption", "s1"): [0.20, 0.26],
    ("caption", "s2"): [0.41, 0.43],
    ("food", "s1"): [0.10, 0.12],
    ("food", "s2"): [0.12, 0.10],
}


def rows_of(folds, roi="V1", **changes):
    return [
        row("net", subject, roi, 0, scores, instruction=instruction, ceiling=0.5, **changes)
        for (instruction, subject), scores in folds.items()
    ]


def test_scores_of_each_instruction():
    """Layers are chosen for each instruction by itself; what is not asked is left out."""
    deep = row("net", "s1", "V1", 1, [0.9, 0.1], [0.5, 0.0], instruction="colour", ceiling=0.5)
    others = [
        row("net", "s1", "V1", 0, [0.9, 0.9], instruction=""),
        row("word_rate", "s1", "V1", 0, [0.9, 0.9], instruction="colour", control_of="net"),
        row("net", "group", "V1", 0, [0.9, 0.9], instruction="colour"),
        row("net", "all", "V1", 0, [0.5], instruction="colour") | {"fold_scores": []},
    ]
    frame = score_rows.frame([*rows_of(FOLDS), deep, *others])
    found = instructions.winner_map(frame, labels={"colour": "IU1"}).set_index("instruction")
    # The first fold takes the deep layer, which is better on its inner splits.
    expected = np.mean([[0.9, 0.32], [0.40, 0.46]])
    assert found.score["colour"] == pytest.approx(expected)
    assert found.normalized["colour"] == pytest.approx(expected / 0.5)
    assert found.score["caption"] == pytest.approx(0.325)
    folds = np.array([[0.20, 0.26], [0.41, 0.43]])
    interval = stats.crossed_interval(folds, is_correlation=True)
    assert found.ci_low["caption"] == pytest.approx(interval.low)
    assert found["rank"].to_dict() == {"colour": 1, "caption": 2, "food": 3}
    assert found.label.to_dict() == {"colour": "IU1", "caption": "caption", "food": "food"}


@pytest.mark.parametrize(("low", "count"), [(0.05, 0), (0.049, 1), (0.0, 1), (-0.1, 1), (NAN, 0)])
def test_low_ceilings_divide_nothing(low, count):
    """A subject without a usable ceiling is left out of the mean, and counted if it has one."""
    frame = score_rows.frame(rows_of(FOLDS))
    frame.loc[frame.subject == "s2", "ceiling"] = low
    found = instructions.winner_map(frame).set_index("instruction")
    expected = 0.31 / 0.5 if count or np.isnan(low) else np.mean([0.31 / 0.5, 0.43 / low])
    assert found.normalized["colour"] == pytest.approx(expected)
    assert found.num_below_floor["colour"] == count


def test_winner_and_its_margin():
    frame = score_rows.frame([*rows_of(FOLDS), *rows_of(FOLDS, "V2")])
    found = instructions.winners(frame, labels={"colour": "IU1"})
    assert found.roi.tolist() == ["V1", "V2"]
    first = found.iloc[0]
    assert (first.outcome, first.winner, first.second) == ("winner", "colour", "caption")
    assert (first.winner_label, first.second_label) == ("IU1", "caption")
    differences = np.array([[0.10, 0.06], [-0.01, 0.03]])
    interval = stats.crossed_interval(differences)
    assert first.margin == pytest.approx(differences.mean())
    assert (first.ci_low, first.ci_high) == pytest.approx((interval.low, interval.high))
    assert first.num_agree == 2 and first.num_subjects == 2
    assert first.is_clear == (interval.low > 0)


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [
        ({"a": [0.2, 0.2], "b": [0.2, 0.2]}, "tie"),
        ({"a": [-0.2, -0.1], "b": [-0.1, 0.0]}, "none"),
        ({"a": [0.2, 0.1]}, "undefined"),
        ({"a": [0.2, 0.1], "b": [NAN, NAN]}, "undefined"),
    ],
)
def test_regions_without_a_winner(scores, outcome):
    folds = {(name, s): x for name, x in scores.items() for s in ("s1", "s2")}
    found = instructions.winners(score_rows.frame(rows_of(folds))).iloc[0]
    assert found.outcome == outcome
    assert found.winner == "" and np.isnan(found.margin) and not found.is_clear


def test_subjects_without_all_scores_take_no_part():
    folds = FOLDS | {("colour", "s3"): [0.9, 0.9], ("caption", "s3"): [NAN, 0.1]}
    folds |= {("food", "s3"): [0.1, 0.1]}
    found = instructions.winners(score_rows.frame(rows_of(folds))).iloc[0]
    assert found.num_subjects == 2 and found.score == pytest.approx(0.37)


def test_rows_without_instructions_give_empty_tables():
    frame = score_rows.study()
    assert not len(instructions.winner_map(frame))
    assert not len(instructions.winners(frame))


def targets(table):
    """Return a row per target and instruction; targets are (subject, ROI, name)."""
    return pd.DataFrame(
        [
            ("toy", "net", *name, instruction, score)
            for name, scores in table.items()
            for instruction, score in zip(("a", "b"), scores, strict=True)
        ],
        columns=["dataset", "model", "subject", "roi", "target", "instruction", "score"],
    )


TARGETS = {
    ("s1", "V1", "t0"): (0.3, 0.2),
    ("s1", "V1", "t1"): (0.2, 0.3),
    ("s1", "V1", "t2"): (0.2, 0.1),
    ("s1", "V1", "t3"): (-0.1, -0.2),
    ("s2", "V1", "t0"): (0.1, 0.1),
    ("s2", "V1", "t1"): (0.2, NAN),
    ("s2", "V2", "t0"): (0.0, 0.0),
}


def test_targets_are_won_tied_nobodys_or_unknown():
    found = instructions.target_winners(targets(TARGETS))
    found = found.set_index(["subject", "roi", "target"])
    expected = ["winner", "winner", "winner", "none", "tie", "undefined", "none"]
    assert found.outcome.loc[list(TARGETS)].tolist() == expected
    assert found.instruction.loc[list(TARGETS)].tolist() == ["a", "b", "a", "", "", "", ""]
    assert found.score.loc["s1", "V1", "t1"] == 0.3 and np.isnan(found.score.loc["s2", "V1", "t0"])


def test_shares_of_targets():
    found = instructions.shares(targets(TARGETS), labels={"a": "IU1"})
    np.testing.assert_allclose(found.groupby("roi").share.sum(), 1)
    own = found[found.roi == "V1"].set_index(["outcome", "instruction"])
    assert own.share["winner", "a"] == pytest.approx(np.mean([0.5, 0]))
    assert own.share["winner", "b"] == pytest.approx(np.mean([0.25, 0]))
    assert own.share["tie", ""] == pytest.approx(np.mean([0, 0.5]))
    assert own.share["none", ""] == pytest.approx(np.mean([0.25, 0]))
    assert own.share["undefined", ""] == pytest.approx(np.mean([0, 0.5]))
    assert own.num_targets.tolist() == [2, 1, 1, 1, 1]
    assert own.label.tolist() == ["IU1", "b", "tie", "none", "undefined"]


@pytest.mark.slow
def test_all_tables_of_a_run():
    found = instructions.of_run(score_rows.frame(rows_of(FOLDS)), targets(TARGETS))
    assert list(found) == ["instruction_map", "instruction_winners", "instruction_shares"]


def test_order_of_rows_does_not_matter(rng):
    table = targets(TARGETS)
    mixed = table.iloc[rng.permutation(len(table))]
    found = [
        instructions.shares(x).set_index(["roi", "outcome", "instruction"]) for x in (table, mixed)
    ]
    pd.testing.assert_series_equal(found[0].share.sort_index(), found[1].share.sort_index())


def test_partitions_average_subjects_and_keep_negative_parts():
    table = pd.DataFrame(
        {
            "dataset": "toy",
            "model": "net",
            "roi": "V1",
            "measure": "r2",
            "first": "a",
            "second": "b",
            "subject": ["s1", "s2", "s3"],
            "unique_first": [0.3, 0.1, NAN],
            "shared": [0.2, 0.1, NAN],
            "unique_second": [-0.04, 0.0, NAN],
        }
    )
    found = instructions.partitions(table, labels={"b": "IU2"}).set_index("part")
    assert found.value.to_dict() == pytest.approx(
        {"unique_first": 0.2, "shared": 0.15, "unique_second": -0.02}
    )
    percent = {"unique_first": 20 / 0.33, "shared": 15 / 0.33, "unique_second": -2 / 0.33}
    assert found.percent.to_dict() == pytest.approx(percent)
    assert found.percent.sum() == pytest.approx(100)
    assert (found.num_subjects == 2).all() and (found.second_label == "IU2").all()
    wide = instructions.side_by_side(instructions.partitions(table, labels={"b": "IU2"})).iloc[0]
    assert (wide.panel, wide.label, wide["first"], wide.second) == ("V1", "a and IU2", "a", "IU2")
    assert wide[list(instructions.PARTS)].tolist() == pytest.approx([0.2, 0.15, -0.02])
    percents = [f"{part}_percent" for part in instructions.PARTS]
    assert wide[percents].tolist() == pytest.approx(list(percent.values()))
    assert not len(instructions.side_by_side(instructions.partitions(table[:0])))
    table[list(instructions.PARTS)] *= -1
    assert instructions.partitions(table).percent.isna().all()


def test_percentages_of_parts(rng):
    scores = {frozenset("a"): np.array([0.3, 0.1]), frozenset("b"): np.array([0.2, -0.3])}
    scores[frozenset("ab")] = np.array([0.25, -0.1])
    found = partition.percentages(partition.variance_partition(scores))
    # 0.05, -0.05 and 0.25 of 0.25; the second explains nothing.
    np.testing.assert_allclose(found[frozenset("a")], [20, np.nan])
    np.testing.assert_allclose(found[frozenset("b")], [-20, np.nan])
    np.testing.assert_allclose(found[frozenset("ab")], [100, np.nan])


def test_a_test_of_the_margin_says_whether_a_winner_is_clear():
    rows = score_rows.frame([*rows_of(FOLDS), *rows_of(FOLDS, roi="V2")])
    won = instructions.winners(rows)
    place = won[["dataset", "model", "roi", "winner", "second"]]
    tests = place.assign(p=[0.2, 0.01], num_swaps=99)
    found = instructions.winners(rows, margins=tests).set_index("roi")
    assert found.p.to_dict() == {"V1": 0.2, "V2": 0.01}
    assert found.is_clear.to_dict() == {"V1": False, "V2": True}
    # A test of another pair is none of this one.
    other = instructions.winners(rows, margins=tests.assign(second="nothing"))
    assert other.p.isna().all() and (other.is_clear == won.is_clear).all()


def test_instructions_that_ask_for_the_same_are_averaged():
    labels = {"colour": "IU1", "caption": "IC", "food": "SR"}
    table = instructions.winner_map(score_rows.frame(rows_of(FOLDS)), labels=labels)
    found = instructions.concepts(table).set_index("concept")
    own = table.set_index("label").score
    assert found.score["General Scene"] == pytest.approx((own["IC"] + own["SR"]) / 2)
    assert found.score["Color/Texture"] == own["IU1"]
    assert found.instructions["General Scene"] == "IC, SR" and len(found) == 2
    assert found["rank"].to_dict() == {"Color/Texture": 1, "General Scene": 2}
    assert instructions.concepts(table.assign(label="mine")).empty


def test_ratios_of_targets_take_the_place_of_ratios_of_means():
    """Mean over targets, then over subjects; what is undefined is left out."""
    rows = score_rows.frame(rows_of(FOLDS))
    row = rows.iloc[0]
    parts = [("s1", 0.2), ("s1", 0.6), ("s1", NAN), ("s2", 1.0)]
    given = pd.DataFrame(
        [(row.dataset, "net", "V1", "colour", who, x) for who, x in parts],
        columns=["dataset", "model", "roi", "instruction", "subject", "normalized"],
    )
    found = instructions.winner_map(rows, targets=given).set_index("instruction").normalized
    assert found["colour"] == pytest.approx((0.4 + 1.0) / 2) and np.isnan(found["food"])
