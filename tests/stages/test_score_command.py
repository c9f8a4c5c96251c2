"""A model on a benchmark, from the command line."""

import command
import numpy as np
import pandas as pd
import pytest
import tiny


def call(workdir, argument, *flags):
    return command.call(f"score.py:{argument}", workdir, *flags)


@pytest.mark.slow
def test_model_on_benchmark(timed, tmp_path):
    """The benchmark's data set may be exchanged; its protocol and reading stay."""
    model = tiny.GOLDEN / "bert"
    result = call(
        tmp_path / "work",
        f"{model},alice-linear-2026",
        f"--config.dataset={timed}",
        "--config.encode.controls=('word_length',)",
        "--config.extract.untrained_seed=-1",
    )
    assert result.returncode == 0, result.stderr
    report = tmp_path / "work/report"
    rows = pd.read_csv(report / "scores.csv", keep_default_na=False)
    assert set(rows.protocol) == {"brainscore-linear-2026-own-reading"}
    assert set(rows.context) == {"window:10"} and set(rows.pooling) == {"mean_all"}
    table = pd.read_csv(report / "alignment.csv")
    assert table.model.tolist() == ["bert", "word_length"]
    assert set(table.folds_hash) == set(rows.folds_hash)
    assert table.contiguous.notna().all()
    assert "brainscore-linear-2026" in result.stdout and table.folds_hash[0] in result.stdout
    assert "draws single samples" in result.stderr
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "least squares of minimum norm" in page and "contiguous folds of the same data" in page


@pytest.mark.slow
def test_model_on_reading_times(tmp_path, rng):
    """Surprisal over all stories as one text; the data set may be exchanged here too."""
    root = tmp_path / "reading"
    tiny.write_timed(root, rng, num_runs=2, num_trs=20)
    words = pd.read_csv(root / "stimuli.csv").drop(columns=["onset_s", "offset_s"])
    words.to_csv(root / "stimuli.csv", index=False)
    (root / "responses.npz").unlink()
    pd.DataFrame(
        {
            "stimulus_id": words.stimulus_id,
            "participant": "mean",
            "reading_time_ms": 300 + 50 * rng.random(len(words)),
            "word_in_sentence": 1 + np.arange(len(words)) % 8,
        }
    ).to_csv(root / "behavior.csv", index=False)
    result = call(
        tmp_path / "work",
        f"{tiny.GOLDEN / 'llama'},NaturalStories-pearsonr",
        f"--config.dataset={root}",
        "--config.extract.context=accumulate:restart",
    )
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "work/behavior").glob("*/scores.csv")
    table = pd.read_csv(path)
    own = table[table.model == "llama"]
    assert len(own) and own.one_stream.all() and set(own.context) == {"accumulate:restart"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "argument,message",
    [
        ("bert", "--config=configs/score.py:MODEL,BENCHMARK, got 'bert'."),
        ("bert,alice", "benchmark must be one of alice-jaxalign, "),
    ],
)
def test_arguments_are_refused(tmp_path, argument, message):
    result = call(tmp_path / "work", argument)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_alice_under_the_default_protocol(data_root, tmp_path):
    """The same numbers as configs/alice.py, whose settings the protocol names."""
    result = call(
        tmp_path / "work",
        "all-MiniLM-L6-v2,alice-jaxalign",
        f"--data_root={data_root}",
        "--config.encode.controls=()",
        "--config.extract.untrained_seed=-1",
    )
    assert result.returncode == 0, result.stderr
    rows = pd.read_csv(tmp_path / "work/report/scores.csv")
    group = rows[(rows.subject == "group") & (rows.roi == "LATL")].set_index("layer").score
    assert group.idxmax() == 3 and group.max() == pytest.approx(0.596, abs=2e-3)
    table = pd.read_csv(tmp_path / "work/report/alignment.csv")
    assert table.protocol.tolist() == ["jaxalign"] and 0.1 < table.score[0] < table.ceiling[0]
