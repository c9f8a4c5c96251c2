"""Two local models, from answers to the harness's questions to a table of correlations."""

import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install jaxalign[harness]")

import command
import harness_tasks
import small
from scipy import stats

import jaxalign
from jaxalign import config, runner
from jaxalign.stages import collect, properties, report

TASK = "task:local_choice:acc"
LOCAL = {"llama": small.LLAMA, "t5_v1_0": small.GOLDEN / "t5_v1_0"}


@pytest.mark.slow
def test_harness_results_enter_a_correlation_table(tmp_path):
    harness_tasks.write(tmp_path / "harness")
    accuracies = {}
    for name, path in LOCAL.items():
        done = command.call_harness(
            tmp_path / "harness",
            "--model=jaxalign",
            f"--model_args=pretrained={path}",
            "--tasks=local_choice",
            "--include_path=.",
            f"--output_path=out/{name}",
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (file,) = (tmp_path / "harness/out" / name).rglob("results_*.json")
        accuracies[name] = json.loads(file.read_text())["results"]["local_choice"]["acc,none"]
    others = {"bert": 0.5, "roberta": 0.2}
    table = "".join(f"{name},{value}\n" for name, value in others.items())
    (tmp_path / "others.csv").write_text(f"model,{TASK}\n{table}")

    data = small.write(tmp_path / "data")
    alignment, runs = {}, []
    for name, path in (LOCAL | {x: small.GOLDEN / x for x in others}).items():
        runs.append(str(tmp_path / "runs" / name))
        jaxalign.score(path, data, "jaxalign", controls=(), workdir=runs[-1])
        alignment[name] = jaxalign.load_scores(runs[-1])
        assert set(alignment[name].model) == {name}

    def findings(workdir, chosen, *sources):
        settings = config.pack(
            config.Common(),
            collect=collect.Config(runs=tuple(chosen)),
            properties=properties.Config(sources=sources),
            report=report.Config(num_resamples=99, predictors=(TASK,)),
        )
        runner.run(runner.plan(settings, workdir=tmp_path / workdir))
        folder = tmp_path / workdir / "report"
        read = lambda name: pd.read_csv(folder / name, keep_default_na=False, na_values="")
        found = read("findings.csv").set_index(["analysis", "predictor", "statistic"]).sort_index()
        return found.loc["correlation", TASK], read

    harness = f"lm_eval:{tmp_path / 'harness/out'}"
    found, read = findings("all", runs, harness, f"csv:{tmp_path / 'others.csv'}")
    scores = read("model_scores.csv").set_index("model").score
    known = accuracies | others
    x, y = list(known.values()), scores[list(known)]
    for statistic, by_scipy in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        row = found.loc[statistic]
        assert row.n == 4
        np.testing.assert_allclose(row.value, by_scipy(x, y).statistic, rtol=1e-9)
    np.testing.assert_allclose(found.p["pearson"], stats.pearsonr(x, y).pvalue, rtol=1e-9)

    # Two alone are no correlation: NaN, and the reason beside it.
    few, read = findings("two", runs[:2], harness)
    assert few.n.eq(2).all() and few[["value", "ci_low", "p", "p_adjusted"]].isna().all(axis=None)
    reasons = read("findings_remarks.csv").query("predictor == @TASK").remark
    assert set(reasons) == {"2 samples, of at least 3"}
