"""Losses of two models and their controls, laid out."""

import numpy as np
import pandas as pd
import pytest

from jaxalign.core.behavior import next_word as core
from jaxalign.reporting import charts
from jaxalign.reporting.pages import next_word as report


@pytest.fixture
def losses(rng):
    """Of each network: another number of tokens for each model, the same for its control."""
    found = {}
    for model, n in (("a", 400), ("b<c", 300)):
        num_bytes, block = rng.integers(0, 6, n), core.blocks(n, 50)
        own = rng.gamma(2.0, size=n)
        found[model, ""] = own, num_bytes, block
        found["untrained", model] = own + 1.5 + 0.1 * rng.standard_normal(n), num_bytes, block
    return found


def lay_out(losses):
    common = {"text": "t.txt", "text_hash": "0", "protocol": report.PROTOCOL, "vocab_size": 9}
    common |= {"context": 64, "stride": 32, "compute_dtype": "float32"}
    common |= {"fingerprint": "1", "git_commit": ""}
    rows, blocks = [], []
    for (model, of), own in losses.items():
        rows.append(common | {"model": model, "control_of": of} | report.values(*own))
        blocks += [
            common | {"model": model, "control_of": of} | row for row in report.block_values(*own)
        ]
    return pd.DataFrame(rows), pd.DataFrame(blocks), report.against_controls(losses)


def test_controls_are_paired_token_by_token(losses):
    controls = lay_out(losses)[2]
    assert controls[["model", "control"]].to_numpy().tolist() == [
        ["a", "untrained"],
        ["b<c", "untrained"],
    ]
    for row in controls.itertuples():
        less = losses[row.model, ""][0] - losses["untrained", row.model][0]
        assert row.loss_nats == pytest.approx(less.mean(), abs=1e-12)
        expected = less.sum() / np.log(2) / losses[row.model, ""][1].sum()
        assert row.bits_per_byte == pytest.approx(expected, abs=1e-12)
        # What the two have in common is not in the interval: 0.1 / sqrt(n), twice.
        assert row.loss_high - row.loss_low < 0.06
        assert row.loss_low < -1.5 < row.loss_high


def test_blocks_sum_to_the_text(losses):
    scores, blocks, _ = lay_out(losses)
    for row in scores.itertuples():
        own = blocks[(blocks.model == row.model) & (blocks.control_of == row.control_of)]
        assert own.num_tokens.sum() == row.num_tokens and own.num_bytes.sum() == row.num_bytes
        mean = np.average(own.loss_nats, weights=own.num_tokens)
        assert mean == pytest.approx(row.loss_nats)


def test_a_block_without_bytes_is_undefined():
    found = report.block_values(np.ones(4), np.array([0, 0, 3, 0]), np.array([0, 0, 1, 1]))
    assert np.isnan(found[0]["bits_per_byte"]) and found[0]["loss_nats"] == 1
    assert found[1]["bits_per_byte"] == pytest.approx(2 / np.log(2) / 3)


@pytest.mark.slow
def test_page_and_summary(losses):
    scores, blocks, controls = lay_out(losses)
    found = report.Found(scores, blocks, controls, 50)
    page = report.page(found, "none")
    drawn = {name: charts.svg(chart) for name, chart in page.charts.items()}
    assert set(drawn) == {"bits", "blocks"} and all(b"<svg" in x for x in drawn.values())
    again = report.page(found, "none").charts
    assert drawn == {name: charts.svg(chart) for name, chart in again.items()}
    assert b"b&lt;c" in drawn["bits"]
    assert [row["bits_per_byte"] for row in page.charts["bits"].rows] == pytest.approx(
        scores.bits_per_byte.tolist(), rel=1e-5
    )
    titles = [x.title for x in page.sections]
    assert titles == ["What to know first", "Loss", "Model minus control", "Methods"]
    text = report.summary(scores, controls, 50)
    assert "untrained of b<c" in text and "a - untrained: -1.5" in text
    assert report.lead(scores).startswith("On t.txt, a has a loss of ")


def test_one_block_has_no_interval(losses):
    one = {key: (x, n, np.zeros_like(b)) for key, (x, n, b) in losses.items() if not key[1]}
    scores, blocks, controls = lay_out(one)
    assert scores.loss_low.isna().all() and scores.perplexity_high.isna().all()
    assert "one block: no interval" in report.summary(scores, controls, 50)
    page = report.page(report.Found(scores, blocks, controls, 50), "none")
    assert len(controls) == 0 and len(page.sections) == 3
    # Nothing is drawn of intervals that are undefined.
    assert "ci_low:Q" not in str(page.charts["bits"].spec)
    assert "'ci_low'" not in str(page.charts["bits"].spec["layer"][1:])
