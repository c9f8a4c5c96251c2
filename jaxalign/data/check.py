"""Say what was understood of a data set, before a model reads it.

  python -m jaxalign.data.check DATA [ACTIVATIONS...] [--data_root=PATH] [--options NAME=VALUE]

DATA is a name or a directory, as everywhere; ACTIVATIONS are files .npz or .npy that are to stand
in the place of a model (the rows of an .npy are taken to be the stimuli, in their order). A line
says each thing: files, stimuli, runs and TRs, words without a TR, subjects, ROIs, reading times,
what is known of words, and what will be undefined. Everything is read, and checked as a run does.

The exit code is 2 where the data are refused, in one line that says where and why.
"""

import argparse
import itertools
import os
import pathlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxalign import command_line
from jaxalign.core import features
from jaxalign.data import datasets
from jaxalign.data.datasets import Dataset
from jaxalign.data.schema import Behavior, Responses, Stimuli
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError
from jaxalign.io import activation_files

_SHOWN = 8  # names in a line
_WIDTH = 15  # characters of a line's title


def understood(dataset: Dataset, activations: Sequence[pathlib.Path] = ()) -> Iterator[str]:
    """Yield what a data set holds, a line for each thing, as it is read.

    Args:
      dataset: from `datasets.find`.
      activations: files that are to stand in the place of a model.

    Raises:
      InputError: if a file is not what it must be, or two do not belong together.
    """
    adapter = dataset.adapter
    line = lambda title, text: f"{title:{_WIDTH}}{text}"
    yield line("data set", f"{dataset.name}: {_kind(dataset)}")
    yield line("files", _files(adapter.files()))
    if adapter.has("stimuli"):
        for text in _stimuli(dataset.stimuli):
            yield line("stimuli", text)
    undefined = []
    if adapter.has("responses"):
        responses = dataset.responses
        counts = dataset.check_samples(responses)
        for title, text in _responses(responses):
            yield line(title, text)
        if counts:
            yield line("words and TRs", _clock(dataset, responses, *counts))
        elif lost := dataset.unanswered(responses):
            undefined.append(lost)
        undefined += _constant(responses)
    if adapter.has("repeats"):
        yield line("repeats", "responses to each repeat of a stimulus can be read")
    if adapter.has("dissimilarities"):
        found = dataset.dissimilarities
        yield line("RDMs", f"dissimilarities between {len(found.stimulus_id):,} stimuli")
    if adapter.has("behavior"):
        text, missing = _behavior(dataset.behavior)
        yield line("reading times", text)
        undefined += missing
    if adapter.has("word_facts"):
        for title, text in _facts(dataset.word_facts):
            yield line(title, text)
    if dataset.networks:
        yield line("activations", f"of {_some(dataset.networks)}, with the data")
    for path in activations:
        yield line("activations", _activations(dataset, path))
    yield from (line("undefined", text) for text in undefined or ["nothing that could be seen"])


def _kind(dataset: Dataset) -> str:
    adapter = dataset.adapter
    sample = "TR" if adapter.is_timed else "stimulus"
    kinds = {
        "responses": f"responses, one for each {sample}",
        "behavior": "reading times",
        "dissimilarities": "dissimilarities of responses",
    }
    found = [what for kind, what in kinds.items() if adapter.has(kind)]
    return " and ".join(found) or "stimuli alone"


def _files(paths: Sequence[pathlib.Path]) -> str:
    size = sum(path.stat().st_size for path in paths)
    names = _some(dict.fromkeys(path.name for path in paths))
    shown = f"{size / 1e6:,.1f} MB" if size > 1e5 else f"{size / 1e3:,.1f} kB"
    return f"{_count(len(paths), 'file')}, {shown}: {names}" if paths else "none"


def _stimuli(stimuli: Stimuli) -> Iterator[str]:
    timed = " with times" if stimuli.is_timed else ""
    passages, runs = (_count(len(set(x)), y) for x, y in _parts(stimuli))
    yield f"{_count(len(stimuli), stimuli.unit)}{timed} in {passages} and {runs}"
    if stimuli.is_timed:
        unknown = int(np.isnan(stimuli.onset_s).sum())
        length = np.nanmedian(stimuli.offset_s - stimuli.onset_s)
        some = f"the time of {unknown:,} is not known; " if unknown else ""
        yield f"{some}the median {stimuli.unit} lasts {length:.3g} s"
    if stimuli.pixels is not None and not stimuli.text:
        yield "without captions, so that no model of text can read them"
    elif stimuli.unit == "word":
        how = "said" if stimuli.space_before else "not said"
        language = stimuli.language or "not said"
        yield f"where there are spaces: {how}; language: {language}"


def _parts(stimuli: Stimuli) -> tuple[tuple[Sequence[str], str], ...]:
    return (stimuli.passage, "passage"), (stimuli.run, "run")


def _responses(responses: Responses) -> Iterator[tuple[str, str]]:
    n, v = responses.values.shape
    spread = np.std(responses.values[:, : min(v, 1000)], axis=0)
    size = f"mean {responses.values.mean():.3g}, median standard deviation {np.median(spread):.3g}"
    kind = f"TR of {responses.tr_s:g} s" if responses.is_timed else "stimulus"
    if responses.is_timed:
        yield "responses", f"{n:,} TRs of {responses.tr_s:g} s in {responses.units!r}; {size}"
        for run, rows in itertools.islice(features.members(responses.run).items(), _SHOWN):
            first, last = responses.time_s[rows[0]], responses.time_s[rows[-1]] + responses.tr_s
            left_out = int(np.rint((last - first) / responses.tr_s)) - len(rows)
            gaps = f"; {left_out:,} between them are left out" if left_out else ""
            yield "", f"run {run}: {len(rows):,} TRs from {first:g} to {last:g} s{gaps}"
        if (more := len(set(responses.run)) - _SHOWN) > 0:
            yield "", f"and {_count(more, 'run')} more"
    else:
        answered = f"of {_count(n, kind, 'stimuli')}"
        runs = _count(len(set(responses.run)), "run")
        yield "responses", f"{answered} in {runs}, in {responses.units!r}; {size}"
    for title, names, what in (
        ("subjects", responses.subject, "subject"),
        ("labels", responses.roi, "ROI"),
    ):
        found = Counter(names)
        parts = [f"{name} ({number:,})" for name, number in found.items()]
        yield title, f"{_count(len(found), what)} (targets of each): {_some(parts)}"
    own = len(set(zip(responses.roi, responses.target, strict=True)))
    shared = f"; of {own:,} names, so that {v - own:,} are compared between subjects"
    places = f"in {responses.space} space" if responses.space else "without coordinates"
    yield "targets", f"{v:,} voxels or other targets, {places}{shared if own < v else ''}"


def _clock(dataset: Dataset, responses: Responses, lost: int, unknown: int, empty: int) -> str:
    heard = set(responses.run)
    num = sum(run in heard for run in dataset.stimuli.run)
    why = f" ({unknown:,} because their time is not known)" if unknown else ""
    silent = f"no word begins in {empty:,} of {len(responses.run):,} TRs"
    return f"{lost:,} of {num:,} words begin in no TR{why}; {silent}"


def _constant(responses: Responses) -> list[str]:
    constant = responses.constant
    if not constant.any():
        return []
    names = zip(responses.subject, responses.roi, responses.target, strict=True)
    found = ["/".join(x) for x, flag in zip(names, constant, strict=True) if flag]
    by_subject = features.members(responses.subject)
    empty = [x for x, columns in by_subject.items() if constant[columns].all()]
    texts = [f"scores of {_count(len(found), 'target')}, constant: {_some(found)}"]
    if empty:
        texts.append(f"{_count(len(empty), 'subject')} left out, all constant: {_some(empty)}")
    return texts


def _behavior(behavior: Behavior) -> tuple[str, list[str]]:
    times = behavior.reading_time_ms
    missing = int(np.isnan(times).sum())
    people = _count(len(behavior.participant), "participant")
    text = (
        f"{times.size - missing:,} of {_count(len(behavior), 'word')} by {people}, median "
        f"{np.nanmedian(times):.4g} ms, from {np.nanmin(times):g} to {np.nanmax(times):g} ms"
    )
    if not missing:
        return text, []
    return text, [f"{missing:,} of {times.size:,} reading times, which are not there"]


def _facts(facts: WordFacts) -> Iterator[tuple[str, str]]:
    m = len(facts.stimulus_id)
    known = lambda values: f"{int((~np.isnan(values)).sum()):,} of {m:,}"
    if len(facts.log_frequency):
        yield "frequency", f"of {known(facts.log_frequency)} words"
    for name, values in facts.surprisal_bits.items():
        yield "surprisal", f"given, of {name}: {known(values)} words"
    for name, values in facts.columns.items():
        yield "column", f"{name}: {known(values)} words"


def _activations(dataset: Dataset, path: pathlib.Path) -> str:
    if path.suffix == ".npz":
        given = activation_files.open_npz(path)
    elif path.suffix == ".npy":
        given = activation_files.open_npy(path, dataset.stimuli.stimulus_id)
    else:
        raise InputError(f"ACTIVATIONS must be files .npz or .npy, found {str(path)!r}.")
    dataset.check_rows(given)
    given.read()
    layers = f"layers {_some([str(x) for x in given.layers])}"
    order = ", taken to be the stimuli in their order" if path.suffix == ".npy" else ", by id"
    rows = f"{_count(len(given.stimulus_id), 'row')}{order}"
    return f"{path.name}: {layers}; {given.width:,} units, {given.dtype}; {rows}"


def _count(number: int, name: str, many: str = "") -> str:
    return f"{number:,} {name if number == 1 else many or name + 's'}"


def _some(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def main(argv: list[str]) -> None:
    """Read the command line, and print what was understood."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxalign.data.check",
        description=(__doc__ or "").strip().partition("\n")[0],
    )
    parser.add_argument("data", help="name or directory of a data set")
    parser.add_argument(
        "activations", nargs="*", type=pathlib.Path, help="files that stand in a model's place"
    )
    parser.add_argument(
        "--data_root",
        type=pathlib.Path,
        default=os.environ.get("JAXALIGN_DATA"),
        help="folder of published data (default: JAXALIGN_DATA)",
    )
    parser.add_argument(
        "--options", nargs="+", default=(), metavar="NAME=VALUE", help="of the data set's adapter"
    )
    parser.add_argument("--nan", default="refuse", choices=("refuse", "leave_out"))
    given = parser.parse_args(argv)
    data_root = given.data_root and pathlib.Path(given.data_root)
    dataset = datasets.find(given.data, data_root, nan=given.nan, options=given.options)
    tell = lambda text: sys.stdout.write(f"{text}\n")
    for text in understood(dataset, given.activations):
        tell(text)
    has = dataset.adapter.has
    if has("responses") or has("behavior"):
        command = f"launch/local.sh -m jaxalign.main --config=configs/own.py:{given.data},MODEL"
        tell(f"{'next':{_WIDTH}}{command} --dry_run")


if __name__ == "__main__":
    with command_line.ends_in_one_line():
        main(sys.argv[1:])
