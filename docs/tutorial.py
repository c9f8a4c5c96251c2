# %% [markdown]
"""From a list of models to a report, in a minute, on data that come with the package.

Run it as a script (`python docs/tutorial.py`), or cell by cell in an editor that knows `# %%`. It
writes to the folder `tutorial` where it is run; a second run computes nothing again.
"""

# %% [markdown]
# # What there is
#
# Models, benchmarks and protocols go by name. A benchmark is a data set under a protocol; a
# protocol is everything that fixes a score: folds, penalties, metric, averages, ceiling.

# %%
import jaxalign

print(len(jaxalign.list_models()), "models, such as", *jaxalign.list_models()[:3])
print("benchmarks:", *jaxalign.list_benchmarks()[:4], "...")
print("protocols:", *jaxalign.list_protocols()[:4], "...")

# %% [markdown]
# # Data of one's own
#
# Published recordings have to be fetched (docs/datasets), so here are some of our own: 60 of the
# sentences that come with the package, and three participants who were made up. Of their three
# regions two respond to how long a sentence is, with noise, and "motor" does not respond at all. A
# data set is a folder with two files.

# %%
import pathlib

import numpy as np
import pandas as pd

from jaxalign.data import datasets

folder = pathlib.Path("tutorial")
data = folder / "data"
data.mkdir(parents=True, exist_ok=True)

demo = datasets.find("demo", None).stimuli
every = pd.DataFrame({"stimulus_id": demo.stimulus_id, "text": demo.text, "passage": demo.passage})
sentences = every.groupby("passage", sort=False).head(5).head(60)
sentences.to_csv(data / "stimuli.csv", index=False)

rng = np.random.default_rng(0)
length = sentences.text.str.split().str.len().to_numpy()
signal = (length - length.mean()) / length.std()
regions = {"frontal": 1.0, "temporal": 1.0, "motor": 0.0}  # weight of the signal
columns = [(f"p{i}", roi) for i in range(3) for roi in regions]
values = [regions[roi] * signal + rng.standard_normal(len(signal)) for _, roi in columns]
np.savez(
    data / "responses.npz",
    values=np.stack(values, axis=1),
    run=["session"] * len(sentences),
    subject=[subject for subject, _ in columns],
    roi=[roi for _, roi in columns],
    target=["mean"] * len(columns),
    units="z",
    stimulus_id=sentences.stimulus_id.tolist(),
)

# %% [markdown]
# # A score
#
# all-MiniLM-L6-v2 reads the sentences, a ridge regression from each of its layers predicts the
# responses to passages that it was not fitted on, and the correlation of the two is the score. The
# protocol `jaxalign` keeps passages whole and chooses penalties and layers inside the training
# data. Beside it stand controls, which know nothing of language.

# %%
found = jaxalign.score(
    "all-MiniLM-L6-v2",
    data,
    protocol="jaxalign",
    controls=["length", "position"],
    workdir=folder / "runs",
    settings={"extract.context": "none"},  # each sentence by itself
)
print(found)

# %% [markdown]
# It would be easy to call this alignment. The table says what it is: the control `length` knows
# only how many words and letters a sentence has, and it is ahead. Whatever the model's activations
# predict here, they do so because they hold the length too.

# %%
print(found.table[["raw", "raw_low", "raw_high", "ceiling"]].round(3))

# %% [markdown]
# Everything that belongs to a score is an attribute: the raw score of each layer, the layer that
# each fold chose, each target's correlation, the hash of the folds.

# %%
print("layers:", found.per_layer.round(3))
print("chosen in the six folds:", found.layers[:, 0])
print("folds", found.folds_hash, "kept in", found.workdir.name, found.fingerprint)

# %% [markdown]
# Asked again, it returns at once: what was computed is kept under a hash of all that fixes it. So
# one work directory can hold many models, data sets and protocols.

# %% [markdown]
# # Rows
#
# `load_scores` gives one row for each model, layer, participant and region, with its ceiling. From
# here on it is pandas. The regions with a signal score well above 0. "motor" has none: its scores
# are those of chance, which with 60 sentences is no exact 0, and neither is its ceiling.

# %%
scores = jaxalign.load_scores(folder / "runs")
own = scores[(scores.control_of == "") & (scores.subject != "group")]
print(own.pivot_table(index="layer", columns="roi", values="score").round(2))
print(own.groupby("roi").ceiling.mean().round(2))

# %% [markdown]
# # A report
#
# The same rows as a page that opens from disk, with figures for papers and tables.

# %%
report = jaxalign.report(scores, path=folder / "report", title="Length, in three regions")
print(report)

# %% [markdown]
# # Arrays
#
# Features and responses that one has already need no files and no model. Folds, penalties and the
# rest are those of the protocol; samples of one passage stay together.

# %%
X = np.stack([length, sentences.text.str.len()], axis=1)
Y = np.stack(values, axis=1)
of_arrays = jaxalign.score_arrays(
    X,
    Y,
    protocol="jaxalign",
    groups=sentences.passage,
    subjects=[subject for subject, _ in columns],
    targets=[roi for _, roi in columns],
)
print(of_arrays)

# %% [markdown]
# docs/concepts.md says what such numbers mean and what they do not; docs/datasets how to obtain
# recordings: `jaxalign.score("all-MiniLM-L6-v2", "Pereira2018.243sentences-jaxalign",
# download=True)`.
