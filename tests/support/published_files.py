"""Writes small files in the formats of published data sets, for the tests of adapters."""

import csv

import numpy as np
import scipy.io
import xarray as xr

from jaxalign.data.sets import (
    brainscore,
    brainscore_behavior,
    natural_stories,
    pereira_mean,
    pieman,
)

# Two stories; the second has a sentence whose full stop stands before a quotation mark.
STORIES = {
    "1": "If you were to go, go. Now, I said.".split(),
    "2": "NA peaked at 'noon.' Nobody saw it!".split(),
}
# Where sentences begin, as the parses divide them.
SENTENCE_STARTS = {"1": (1, 7), "2": (1, 5)}


def assembly(path, data, dims, labels):
    """Write what BrainIO's write_netcdf does: `data`, and labels as plain variables, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coords = {
        name: (dim, np.array(own, dtype=object) if isinstance(own[0], str) else np.asarray(own))
        for dim, named in labels.items()
        for name, own in named.items()
    }
    found = xr.DataArray(data, dims=dims, coords=coords).to_dataset(name="data")
    packed = {name: {"zlib": True, "complevel": 1} for name in found.variables}
    found.to_netcdf(path, engine="h5netcdf", encoding=packed)


def pereira(root, rng, **changes):
    """Write Pereira2018.language: 4 + 5 sentences; s1 has both experiments, s2 and s3 one each."""
    experiment = ["243sentences"] * 4 + ["384sentences"] * 5
    number = [0, 1, 2, 3, 0, 1, 2, 3, 4]
    subject = ["s1", "s1", "s2", "s2", "s2", "s3"]
    voxel = [7, 8, 7, 8, 9, 7]
    data = rng.normal(size=(9, 6))
    data[4:, 2:5] = np.nan
    data[:4, 5] = np.nan
    label = ["bee", "bee", "dream", "dream", "Apple", "Apple", "Pear", "Pear", "Bed"]
    category = ["bee", "bee", "dream", "dream", "fruit", "fruit", "fruit", "fruit", "home"]
    presentation = {
        "experiment": experiment,
        "stimulus_num": number,
        "stimulus": [f"Sentence {i} of {e}." for e, i in zip(experiment, number, strict=True)],
        "passage_label": label,
        "passage_category": category,
        "stimulus_id": [f"{e}.{i}" for e, i in zip(experiment, number, strict=True)],
    }
    neuroid = {
        "subject": subject,
        "voxel_num": voxel,
        "atlas": ["language"] * 6,
        "neuroid_id": [f"{s}.{v}" for s, v in zip(subject, voxel, strict=True)],
    }
    path = root / brainscore.FOLDER / "assy_Pereira2018_language.nc"
    labels = {"presentation": presentation, "neuroid": neuroid}
    assembly(path, *changed(data, labels, **changes))
    return path, data


def changed(data, labels, *, values=None, dims=("presentation", "neuroid"), drop=(), **replaced):
    """Return the arguments of `assembly` with other values, and labels dropped or replaced."""
    labels = {
        dim: {name: replaced.get(name, own) for name, own in named.items() if name not in drop}
        for dim, named in labels.items()
    }
    return data if values is None else values, dims, labels


def blank(root, rng, *, scrambled=False):
    """Write Blank2014.fROI: two stories, 13 parts, in the order of sorted ids; two subjects."""
    parts = [("Boar", s, p) for s in range(11) for p in range(1)] + [("Aqua", 0, 0), ("Aqua", 0, 1)]
    parts = sorted(parts, key=lambda x: f"{x[0]}.{x[1]}.{x[2]}")
    ids = [f"{s}.{n}.{p}" for s, n, p in parts]
    # The other labels beside the ids, or in an order of their own.
    order = rng.permutation(len(parts)) if scrambled else np.arange(len(parts))
    beside = [parts[i] for i in order]
    presentation = {
        "stimulus_id": ids,
        "story": [x[0] for x in beside],
        "sentence_number_in_story": [x[1] for x in beside],
        "part_number_in_sentence": [x[2] for x in beside],
        "stimulus": [f"text of {s} {n} {p} " for s, n, p in beside],
    }
    regions = ["01_LH_PostTemp", "02_LH_AntTemp"]
    neuroid = {
        "fROI_area": regions * 2,
        "subject_id": ["061", "061", "085", "085"],
        "neuroid_id": [f"{s}.{r}" for s in ("061", "085") for r in regions],
    }
    data = rng.normal(size=(len(parts), 4))
    path = root / brainscore.FOLDER / "assy_Blank2014_fROI.nc"
    labels = {"presentation": presentation, "neuroid": neuroid}
    assembly(path, data, ("presentation", "neuroid"), labels)
    return path, data, ids, presentation["stimulus"]


def fedorenko(root, rng, num_sentences=3, electrodes=(2, 1)):
    """Write Fedorenko2016.language: sentences of eight words, all labels whole numbers."""
    n = num_sentences * 8
    words = [f"WORD{i}" for i in range(n)]
    presentation = {
        "stimulus_id": list(range(n)),
        "stimulus": words,
        "word": words,
        "word_num": [i % 8 for i in range(n)],
        "sentence_id": [i // 8 for i in range(n)],
    }
    subject = [s + 1 for s, count in enumerate(electrodes) for _ in range(count)]
    places = list(range(len(subject)))
    neuroid = {"electrode": places, "neuroid_id": places, "subject_UID": subject}
    data = rng.normal(size=(n, len(subject)))
    path = root / brainscore.FOLDER / "assy_Fedorenko2016_language.nc"
    labels = {"presentation": presentation, "neuroid": neuroid}
    assembly(path, data, ("presentation", "neuroid"), labels)
    return path, data


def tuckute(root, rng, num_sentences=5, largest=1.285):
    """Write Tuckute2024.language: one column."""
    data = rng.uniform(-1, 1, size=(num_sentences, 1))
    data[0] = largest
    presentation = {
        "stimulus_id": list(range(1, num_sentences + 1)),
        "stimulus": [f"Sentence {i}." for i in range(num_sentences)],
        "cond": ["B"] * num_sentences,
        "cond_approach": ["B_baseline"] * num_sentences,
    }
    neuroid = {
        "neuroid_id": [1],
        "subject_UID": ["848-853-865-875-876"],
        "roi": ["lang_LH_netw"],
    }
    path = root / brainscore.FOLDER / "assy_Tuckute2024_language.nc"
    labels = {"presentation": presentation, "neuroid": neuroid}
    assembly(path, data, ("presentation", "neuroid"), labels)
    return path, data


def futrell(root, rng, **changes):
    """Write Futrell2018: the words of `STORIES`, three participants, one of whom read one story."""
    words = [(story, z + 1, w) for story, own in STORIES.items() for z, w in enumerate(own)]
    data = rng.integers(150, 900, size=(len(words), 3)).astype(float)
    data[len(STORIES["1"]) :, 2] = np.nan
    position, sentence = [], []
    for story, zone, _ in words:
        begins = zone in SENTENCE_STARTS[story]
        position.append(1 if begins else position[-1] + 1)
        sentence.append((sentence[-1] if sentence else 0) + begins)
    presentation = {
        "word": [w for _, _, w in words],
        "word_core": [w.strip(".,!'") for _, _, w in words],
        "story_id": [int(s) for s, _, _ in words],
        "word_id": [z for _, z, _ in words],
        "word_within_sentence_id": position,
        "sentence_id": sentence,
        "stimulus_id": list(range(1, len(words) + 1)),
    }
    subject = {
        "subject_id": ["A1", "A2", "A3"],
        "correct": [6, 5, 6],
        "WorkTimeInSeconds": [2801, 1900, 2000],
    }
    path = root / brainscore.FOLDER / brainscore_behavior.FILE
    labels = {"presentation": presentation, "subject": subject}
    changes.setdefault("dims", ("presentation", "subject"))
    assembly(path, *changed(data, labels, **changes))
    return path, data


def stories(root):
    """Write the files of Natural Stories: texts, means, participants, parses, GPT-3.

    The published mean of word z of a story is 100 + z (+ 1000 in the second story), and its number
    of readers is 30 + z; rows are in alphabetical order of words, as published. GPT-3 was given
    "peeked" for "peaked", and its tokens have -ln 2, -2 ln 2, ... in turn within each story.
    """
    words = [(w, z + 1, story) for story, own in STORIES.items() for z, w in enumerate(own)]
    write_tabs(root / natural_stories.FILE, [("word", "zone", "item"), *words])
    header = "word zone item nItem meanItemRT sdItemRT gmeanItemRT gsdItemRT".split()
    rows = [
        (w, z, story, 30 + z, mean_time(story, z), 1.5, 100.5, 1.25)
        for w, z, story in sorted(words)
    ]
    write_tabs(root / natural_stories.MEANS, [header, *rows])
    lines = []
    for w, z, story in words:
        if z in SENTENCE_STARTS[story] and lines:
            lines.append("")
        core = w.rstrip(".,!'")
        pieces = [(core, ".1"), (w[len(core) :], ".2")] if core != w else [(w, "")]
        lines += [f"1\t{x}\t_\tX\tX\t_\t0\tdep\t_\tTokenId={story}.{z}{k}" for x, k in pieces]
    (root / natural_stories.PARSES).parent.mkdir(parents=True)
    (root / natural_stories.PARSES).write_text("\n".join(lines) + "\n")
    _write_participants(root / natural_stories.PARTICIPANTS)
    _write_gpt3(root / natural_stories.GPT3)


def mean_time(story, zone):
    return (0 if story == "1" else 1000) + 100.0 + zone


def _write_participants(path):
    """Two readers of the second story, of whom the second skipped its third word."""
    rows = [("item", "zone", "word", "p000", "p001")]
    for z, word in enumerate(STORIES["2"], start=1):
        rows.append((2, z, word, 200 + z, "" if z == 3 else 300 + z))
    write_commas(path, rows)


def _write_gpt3(path):
    rows = [("token", "logprob", "offset", "model", "time", "id", "story")]
    for number, words in enumerate(STORIES.values()):
        offset, count = 0, 0
        for i, word in enumerate(words):
            word = {"peaked": "peeked"}.get(word, word)
            core = word.rstrip(".,!'") or word
            pieces = [core if i == 0 else f" {core}", word[len(core) :]]
            for token in filter(None, pieces):
                logprob = -count * np.log(2) if count else ""
                rows.append((token, logprob, offset, "davinci:2020-05-03", 1, "cmpl-1", number))
                offset += len(token)
                count += 1
    write_commas(path, rows)


def write_commas(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_tabs(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pie_man(root, rng, num_subjects=3, num_trs=6, num_nodes=4, tables=None):
    """Write weights.mat: a cell array of one table per subject."""
    tables = tables or [
        rng.normal(size=(num_trs, num_nodes)).astype(np.float32) for _ in range(num_subjects)
    ]
    cells = np.empty((1, len(tables)), dtype=object)
    for i, table in enumerate(tables):
        cells[0, i] = table
    path = root / pieman.FILE
    path.parent.mkdir(parents=True)
    scipy.io.savemat(path, {pieman.VARIABLE: cells})
    return path, tables


def language_network(root, rng):
    """Write the mean of the language network for five sentences, and activations of GPT-2."""
    header = (
        "sentence,sentence_num,stimulus_id,experiment,story,passage_index,passage_label,"
        "passage_category"
    ).split(",")
    rows = [
        ["Bees, they say, fly.", 0, "243sentences.0", "243sentences", "243sentences.bee", 1],
        ["They hum.", 1, "243sentences.1", "243sentences", "243sentences.bee", 1],
        ["Bees sleep.", 2, "243sentences.2", "243sentences", "243sentences.bee", 2],
        ["Pears hang.", 0, "384sentences.0", "384sentences", "384sentences.fruit", 1],
        ["Pears fall.", 1, "384sentences.1", "384sentences", "384sentences.fruit", 1],
    ]
    rows = [[*row, "label", "category"] for row in rows]
    responses = np.round(rng.normal(size=5), 4)
    write_commas(
        root / pereira_mean.RESPONSES,
        [[*header, "response"], *([*row, x] for row, x in zip(rows, responses, strict=True))],
    )
    order = [3, 4, 0, 1, 2]
    numbered = ([i, *rows[k]] for i, k in enumerate(order))
    write_commas(root / pereira_mean.STIMULI, [["", *header], *numbered])
    activations = rng.normal(size=(5, 3)).astype(np.float32)
    np.save(root / pereira_mean.ACTIVATIONS, activations[order])
    return responses, activations
