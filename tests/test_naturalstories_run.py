"""Natural Stories as a user runs it, against pandas, SciPy and statsmodels on the raw files."""

import json
import re

import command
import numpy as np
import pandas as pd
import pytest
import tensorstore as ts
from scipy import optimize, stats

SOURCES = ("stories260K", "untrained", "gpt3-davinci")
DATASETS = {  # data set -> column of mean times
    "naturalstories": "published",
    "naturalstories-corrected": "corrected",
    "naturalstories-participants": "participants",
}

sm = pytest.importorskip("statsmodels.api")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(data_root, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stories") / "work"
    flags = [f"--data_root={data_root}"]
    result = command.call("naturalstories.py", workdir, *flags, timeout=1200, is_long=True)
    assert result.returncode == 0, result.stderr
    return workdir, result.stdout


def gpt3(root, words):
    """Sum tokens over the words in which their last letter lies."""
    table = pd.read_csv(root / "probs/all_stories_gpt3.csv", keep_default_na=False)
    table["logprob"] = pd.to_numeric(table.logprob, errors="coerce")
    bits = {}
    for story, own in table.groupby("story"):
        text = "".join(own.token)
        index = np.cumsum([0, *(x == " " for x in text)])
        ends = own.offset + own.token.map(lambda x: len(x.rstrip(" "))) - 1
        # A token of spaces alone belongs to the word that follows.
        ends = np.where(own.token.str.strip(" ") == "", own.offset + own.token.map(len), ends)
        sums = own.logprob.groupby(index[ends]).agg(lambda x: x.sum(skipna=False))
        given = text.split(" ")
        for zone, value in sums.items():
            code = f"{story + 1}.{zone + 1}"
            bits[code] = -value / np.log(2) if given[zone] == words[code] else np.nan
    return bits


@pytest.fixture(scope="module")
def raw(data_root, run):
    """One row per word, with all that the scores are made of."""
    root = data_root / "naturalstories"
    read = lambda path, **options: pd.read_csv(
        root / path, sep="\t", quoting=3, keep_default_na=False, na_values=[""], **options
    )
    key = lambda table: table.item.astype(str) + "." + table.zone.astype(str)
    words = read("naturalstories_RTS/all_stories.tok")
    words.index = key(words)
    times = read("naturalstories_RTS/processed_wordinfo.tsv")
    words["published"] = times.set_index(key(times)).meanItemRT
    shifted = read("processed_wordinfo_shifted2025.tsv")
    words["corrected"] = shifted.set_index(key(shifted)).meanItemRT
    people = pd.read_csv(root / "futrell_batch2_aligned2025.csv", keep_default_na=False)
    people.index = key(people)
    people = people.drop(columns=["item", "zone", "word"]).apply(pd.to_numeric)
    words["participants"] = people.mean(axis=1)
    parses = (root / "parses/ud/stories-aligned.conllx").read_text()
    sentences = re.split(r"\n\s*\n", parses)
    first = {re.search(r"TokenId=(\d+\.\d+)", x)[1] for x in sentences if x.strip()}
    words["initial"] = words.index.isin(first)
    words["length"] = words.word.map(lambda x: sum(letter.isalnum() for letter in x))
    counts = read(
        "freqs/freqs-1.tsv", header=None, names=["code", "order", "token", "n", "context"]
    )
    counts[["word", "part"]] = counts.code.str.extract(r"^(\d+\.\d+)\.(.*)$")
    whole, own = (counts[counts.part == x].set_index("word").n for x in ("whole", "word"))
    words["log_frequency"] = np.log1p(own.reindex(words.index).fillna(whole.reindex(words.index)))
    words["gpt3-davinci"] = pd.Series(gpt3(root, words.word))
    for folder in (run[0] / "extract").iterdir():
        settings = json.loads((folder / "settings.json").read_text())
        array = {"driver": "file", "path": str(folder / "surprisal_bits.zarr")}
        opened = ts.open({"driver": "zarr3", "kvstore": array}).result().read().result()
        ids = json.loads((folder / "stimulus_ids.json").read_text())
        name = "untrained" if settings["settings"]["untrained_seed"] >= 0 else "stories260K"
        words[name] = pd.Series(np.asarray(opened, float), index=ids)
    return words, people


@pytest.fixture(scope="module")
def found(run):
    table = pd.read_csv(run[0] / "behavior/scores.csv", keep_default_na=False, na_values=["nan"])
    return table.set_index(["dataset", "model", "measure", "times", "evaluation", "offset"])


def design(words, source, *, kept):
    """Return the words that count, and predictors without and with surprisal."""
    lagged = {}
    for name in ("length", "log_frequency", source):
        for lag in range(3):
            lagged[f"{name}{lag}"] = words.groupby("item")[name].shift(lag)
    table = pd.DataFrame(lagged, index=words.index)
    table = table[kept & ~words.initial].dropna()
    full = sm.add_constant((table - table.mean()) / table.std())
    return full.drop(columns=[f"{source}{lag}" for lag in range(3)]), full


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("source", [*SOURCES, "length", "log_frequency"])
def test_correlations_are_those_of_scipy(found, raw, dataset, source):
    words, _ = raw
    row = found.loc[dataset, source, "futrell2018-pearsonr", "mean", "all_words", 0]
    own = words[~words.initial][[source, DATASETS[dataset]]].dropna()
    expected = stats.pearsonr(*own.to_numpy().T)
    assert (row.num_words, row.r) == (len(own), pytest.approx(expected.statistic, abs=1e-6))
    assert row.value == abs(row.r)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("source", SOURCES)
def test_gains_of_mean_times_are_those_of_statsmodels(found, raw, dataset, source):
    words, _ = raw
    base, full = design(words, source, kept=words[DATASETS[dataset]].notna())
    y, story = words[DATASETS[dataset]][base.index], words.item[base.index]
    gain = sm.OLS(y, full).fit().llf - sm.OLS(y, base).fit().llf
    key = dataset, source, "delta_log_likelihood", "mean"
    assert found.loc[*key, "in_sample", 0].num_words == len(y)
    assert found.loc[*key, "in_sample", 0].value == pytest.approx(gain / len(y), abs=1e-7)
    gain = 0.0
    for out in story.unique():
        for sign, X in ((-1, base), (1, full)):
            fit = sm.OLS(y[story != out], X[story != out]).fit()
            sd = np.sqrt(np.mean(fit.resid**2))
            test = story == out
            gain += sign * stats.norm.logpdf(y[test], fit.predict(X[test]), sd).sum()
    assert found.loc[*key, "held_out_story", 0].value == pytest.approx(gain / len(y), abs=1e-7)


def random_intercepts(y, X, group):
    """Log-likelihood, as least squares of what is left of a share of each participant's means.

    statsmodels' MixedLM ends at infinite likelihoods here.
    """
    data = pd.DataFrame(np.column_stack([y, X]))
    means = data.groupby(group).transform("mean").to_numpy()
    num = data[0].groupby(group).transform("size").to_numpy()
    each = pd.Series(num).groupby(group).first().to_numpy()

    def height(log_ratio):
        share = 1 - 1 / np.sqrt(1 + num * np.exp(log_ratio))
        left = data.to_numpy() - share[:, None] * means
        fit = sm.OLS(left[:, 0], left[:, 1:]).fit()
        return fit.llf - 0.5 * np.log1p(each * np.exp(log_ratio)).sum()

    options = {"xatol": 1e-9}
    found = optimize.minimize_scalar(
        lambda x: -height(x), bounds=(-6, 3), method="bounded", options=options
    )
    return -found.fun


@pytest.mark.parametrize("source", SOURCES)
def test_gains_of_participants_are_those_of_random_intercepts(found, raw, source):
    words, people = raw
    base, full = design(words, source, kept=words.index.isin(people.index))
    times = people.loc[base.index].stack().dropna()
    word, participant = (times.index.get_level_values(i) for i in (0, 1))
    heights = [
        random_intercepts(times.to_numpy(), X.loc[word].to_numpy(), participant.to_numpy())
        for X in (base, full)
    ]
    row = found.loc[
        "naturalstories-participants",
        source,
        "delta_log_likelihood",
        "participants",
        "in_sample",
        0,
    ]
    assert row.num_observations == len(times)
    gain = (heights[1] - heights[0]) / len(times)
    assert row.value == pytest.approx(gain, abs=1e-7)


def test_ceiling_is_the_median_of_corrected_split_halves(found, raw):
    _, people = raw
    state = np.random.RandomState(0)
    corrected = []
    for _ in range(10):
        first = np.isin(range(88), state.choice(88, size=44, replace=False))
        halves = pd.DataFrame({x: people.loc[:, x == first].mean(axis=1) for x in (True, False)})
        r = abs(stats.pearsonr(*halves.dropna().to_numpy().T).statistic)
        corrected.append(2 * r / (1 + r))
    row = found.loc["naturalstories-participants"].iloc[0]
    assert row.ceiling == pytest.approx(np.median(corrected), abs=1e-9)
    assert row.ceiling_low < row.ceiling < row.ceiling_high


def test_numbers_that_are_known(found):
    """Of the corpus: GPT-3 at r about .21 with the published means; ceilings, and the control."""
    r = lambda dataset, model: found.loc[
        dataset, model, "futrell2018-pearsonr", "mean", "all_words", 0
    ]
    gpt3 = r("naturalstories", "gpt3-davinci")
    assert (round(gpt3.value, 4), gpt3.num_words) == (0.2070, 9770)
    assert r("naturalstories-corrected", "gpt3-davinci").value == pytest.approx(0.154, abs=5e-4)
    assert r("naturalstories", "stories260K").value == pytest.approx(0.375, abs=5e-4)
    assert r("naturalstories", "untrained").value == pytest.approx(0.338, abs=5e-4)
    people = r("naturalstories-participants", "gpt3-davinci")
    assert people.ceiling == pytest.approx(0.616, abs=5e-4)


def test_one_command_gives_tables_figures_and_a_page(run):
    folder, printed = run[0] / "behavior", run[1]
    for name in ("scores", "stories", "correlations", "offsets", "gains", "controls"):
        table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=["nan"])
        assert len(table) and len(pd.read_parquet(folder / f"{name}.parquet")) == len(table)
    page = (folder / "index.html").read_text()
    assert page.count('<figure class="chart">') == 3
    # Vega's script names addresses, which the page forbids itself to fetch.
    assert "default-src 'none'" in page
    assert "://" not in re.sub("<script.*?</script>", "", page, flags=re.DOTALL)
    for dataset in DATASETS:
        assert dataset in page and f"Reading times of {dataset}" in printed
    assert "reliability of mean times: 0.6159" in printed and "gpt3-davinci" in printed
