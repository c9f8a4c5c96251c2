"""What a model's instructions give beside one another: which is best where, and what two share."""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxalign import processes, progress
from jaxalign.core import features as features_lib
from jaxalign.core.inference import swaps
from jaxalign.core.metrics import mean_defined
from jaxalign.core.scores import alignment, held_out, layers, scoring
from jaxalign.core.solver import banded, cv, partition
from jaxalign.data.synthetic import planted_instructions
from jaxalign.io import arrays, run_dir
from jaxalign.io import rows as rows_lib
from jaxalign.io.run_dir import Artefact
from jaxalign.reporting.findings import instructions as findings
from jaxalign.results import finished, normalized
from jaxalign.results import scores as score_rows
from jaxalign.results import targets as targets_lib
from jaxalign.stages import Job
from jaxalign.stages.artefacts import Comparison
from jaxalign.stages.encode import inputs, make, work
from jaxalign.stages.encode.config import Config
from jaxalign.stages.encode.inputs import Features, Prepared

R2_OUT, R2, NORMALIZED = "r2_out_of_sample", "r2", "normalized_r"


class Bysample(NamedTuple):
    """What each image adds to the mean score of each subject and ROI."""

    values: Float[np.ndarray, "g n"]


class Joint(NamedTuple):
    """Scores of two instructions, each alone and both together; one row per fold."""

    r: Float[np.ndarray, "3 k v"]
    r2: Float[np.ndarray, "3 k v"]
    first: Int[np.ndarray, " k"]  # layer of the first instruction, by its place
    second: Int[np.ndarray, " k"]


class _Compared(NamedTuple):
    """What is compared, on the images to which no answer is empty."""

    data: Prepared
    every: Sequence[Features]
    results: Sequence[Mapping[int, cv.Nested]]  # of the layers of each instruction
    chosen: Sequence[normalized.Chosen]
    ceiling: Float[np.ndarray, " v"]

    @property
    def texts(self) -> list[str]:
        return [x.source.reading["instruction"] for x in self.every]

    def normalize(self, values: Float[np.ndarray, "k v"]) -> Float[np.ndarray, " v"]:
        """Average scores over folds, and divide each target's by its ceiling."""
        protocol = self.data.protocol
        score = normalized.over_folds(values, protocol)
        return alignment.ratio(score, self.ceiling, protocol.ceiling_floor)[1]


def compare(
    config: Config, job: Job, every: Sequence[Features], alone: Sequence[Artefact], artefact
) -> dict:
    """Compare the instructions of a model; scores that are there already are read."""
    start = time.monotonic()
    data = inputs.prepare(config, job, artefact)
    results = []
    # Answers may be empty of some images under one instruction: all are scored without these.
    lacking = frozenset().union(*(x.source.absent for x in every))
    for x, scored in zip(every, alone, strict=True):
        is_there = x.source.absent == lacking
        results.append(_results(x, data, scored if is_there else artefact, is_there))
    if config.swaps:
        added = _by_sample(data, every, results, artefact)
    pairs = {}
    if config.beside:
        texts = [x.source.reading["instruction"] for x in every]
        first = texts.index(config.beside)
        others = [i for i in range(len(texts)) if i != first]
        for i in progress.bar(others, f"encode {artefact.name}", "pairs"):
            compute = functools.partial(_joint, data, every, results, (first, i))
            pairs[first, i] = arrays.kept(artefact.path / f"pair_{i:03d}.npz", Joint, compute)
    if not processes.is_first():
        return {}
    chosen = [normalized.choose(x, data.responses, data.protocol) for x in results]
    ceiling = inputs.ceilings(data).ceiling[: len(data.responses.target)]
    found = _Compared(data, every, results, chosen, ceiling)
    rows = _rows(found, artefact)
    rows_lib.write(artefact.path / Comparison.ROWS, rows)
    read = rows_lib.read(artefact.path / Comparison.ROWS)
    tables = {
        Comparison.TARGETS: _targets(found),
        Comparison.PARTITION: _partition(found, pairs),
        Comparison.MARGINS: _margins(found, read, added if config.swaps else None),
        Comparison.ANSWERS: _answers(found),
    }
    place = {"dataset": job.dataset.name, "model": every[0].model}
    for name, table in tables.items():
        for column, value in reversed(place.items()):
            table.insert(0, column, value)
        table["fingerprint"] = artefact.fingerprint
        rows_lib.write_table(artefact.path / name, table)
    return {
        "left_out": data.left_out,
        "num_without_answer": len(lacking),
        "seconds": round(time.monotonic() - start, 3),
    }


def _results(
    features: Features, data: Prepared, source: Artefact, is_scored: bool
) -> dict[int, cv.Nested]:
    """Read the scores of all layers; find them where they are of other images."""
    found = {}
    number = int(run_dir.hash_text(features.source.label)[:8], 16)
    for layer in features.layers(data.config):
        if is_scored:
            path = source.path / make.layer_name(layer)
            found[layer] = arrays.read(path, cv.Nested)
            if found[layer] is None:
                raise run_dir.DamagedError(source.path, f"{path} must hold scores")
            continue
        path = source.path / make.layer_name(layer, f"common_{number:08x}")
        compute = functools.partial(make.evaluate, features, layer, data)
        found[layer] = arrays.kept(path, cv.Nested, compute)
    return found


def _places(data: Prepared) -> dict[tuple[str, str], Int[np.ndarray, " _"]]:
    """Return the targets of each subject and ROI."""
    responses = data.responses
    return features_lib.members(list(zip(responses.subject, responses.roi, strict=True)))


def _by_sample(
    data: Prepared,
    every: Sequence[Features],
    results: Sequence[Mapping[int, cv.Nested]],
    artefact: Artefact,
) -> list[Float[np.ndarray, "g n"]]:
    """Return what each image adds to the score of each subject and ROI under each instruction."""
    found = []
    numbered = list(enumerate(zip(every, results, strict=True)))
    for i, (features, scored) in progress.bar(numbered, f"encode {artefact.name}", "instructions"):
        compute = functools.partial(_added, data, features, scored)
        kept = arrays.kept(artefact.path / f"images_{i:03d}.npz", Bysample, compute)
        found.append(None if kept is None else kept.values)
    return found


def _added(data: Prepared, features: Features, scored: Mapping[int, cv.Nested]) -> Bysample:
    v, places = len(data.responses.target), _places(data)
    chosen = normalized.choose(scored, data.responses, data.protocol)
    score = normalized.over_folds(chosen.r, data.protocol)
    # A mean over targets with a score, of means over folds.
    share = np.zeros((len(data.folds), v, len(places)))
    for g, columns in enumerate(places.values()):
        used = columns[np.isfinite(score[columns])]
        there = np.isfinite(chosen.r[:, used]).sum(axis=0)
        share[:, used, g] = 1 / (np.maximum(there, 1) * max(1, len(used)))
    values = np.stack([x.r[:, :v] for x in scored.values()])
    weights = held_out.layer_weights(values, chosen.layer)
    found = np.zeros((len(places), len(data.Y)))
    for of_layer, (layer, result) in zip(weights, scored.items(), strict=True):
        found += held_out.by_sample(
            make.design(data, features.samples(layer, data), data.protocol),
            data.Y[:, :v],
            data.protocol,
            data.folds,
            held_out.Counted(result.alphas[:, :v], of_layer[:, :, None] * share),
            execution=make.execution(data),
        )
    return Bysample(found)


def _joint(
    data: Prepared,
    every: Sequence[Features],
    results: Sequence[Mapping[int, cv.Nested]],
    pair: tuple[int, int],
) -> Joint:
    """Score two instructions together, in each fold the layers that its training data choose.

    The layer is the one with the highest mean score inside the training data over all targets.
    Bands have a penalty each; where training and test samples are scaled apart, as the authors of
    Oota et al. do, features stand side by side under one penalty.
    """
    v, protocol = len(data.responses.target), data.protocol
    picked, alone = [], []
    for i in pair:
        stacked = list(results[i].values())
        inner = np.stack([x.inner_score[:, :v] for x in stacked])
        choice = layers.choose(mean_defined(inner, axis=-1)).layer
        picked.append(choice)
        take = lambda name, stacked=stacked, choice=choice: np.stack(
            [getattr(stacked[layer], name)[k, :v] for k, layer in enumerate(choice)]
        )
        alone.append((scoring_r(stacked, choice, v, protocol), take("r2")))
    read = functools.cache(
        lambda i, place: make.design(
            data, every[i].samples(list(results[i])[place], data), data.protocol
        )
    )
    parts = []
    for k, fold in enumerate(data.folds):
        designs = [read(i, int(choice[k])) for i, choice in zip(pair, picked, strict=True)]
        parts.append(_fit_both(data, designs, fold))
    both = [np.concatenate(x) for x in zip(*parts, strict=True)]
    return Joint(
        r=np.stack([alone[0][0], alone[1][0], both[0]]),
        r2=np.stack([alone[0][1], alone[1][1], both[1]]),
        first=picked[0],
        second=picked[1],
    )


def scoring_r(stacked, choice, v: int, protocol) -> Float[np.ndarray, "k v"]:
    """Return what the protocol reports of the layer of each fold."""
    return np.stack(
        [scoring.scores_of(stacked[layer], protocol)[k, :v] for k, layer in enumerate(choice)]
    )


def _fit_both(data: Prepared, designs: Sequence[scoring.Design], fold) -> tuple[Any, Any]:
    v, protocol, config = len(data.responses.target), data.protocol, data.config
    Y, how = data.Y[:, :v], make.execution(data)
    side_by_side = lambda train: np.concatenate([x(train) for x in designs], axis=1)
    num_tried = config.partition_draws + config.partition_rounds
    if work.each_side(protocol) or not num_tried or protocol.encoding[1].choose == "none":
        found = scoring.evaluate(side_by_side, Y, protocol, [fold], execution=how)
        return scoring.scores_of(found, protocol), found.r2
    widths = [x(fold.outer.train).shape[1] for x in designs]
    label = np.repeat([0, 1], widths)
    features = banded.Features(side_by_side(fold.outer.train), label)
    budget = banded.Budget(data.job.seed, config.partition_draws, rounds=config.partition_rounds)
    method = scoring.method_of(protocol)
    found = banded.nested(features, Y, [fold], method, budget, execution=how)
    return found.r, found.r2


def _rows(found: _Compared, artefact: Artefact) -> list[dict]:
    """Return score rows of what counts of the layers, which have no number: layer -1."""
    data = found.data
    v = len(data.responses.target)
    targets = targets_lib.Targets(data.Y[:, :v], *(x[:v] for x in data.targets[1:]))
    rows = []
    is_mean = data.protocol.aggregation.layers == "mean"
    name = "mean of layers" if is_mean else "chosen inside the training data"
    shared = make.common(data, found.every[0], artefact) | {
        "num_units": found.every[0].num_units(data.config, data.protocol),
        "protocol": data.protocol.name,
        "metric": data.protocol.metric,
        "layer": -1,
        "layer_name": name,
        "final_norm": "",
        "num_layers": found.every[0].num_layers,
    }
    for features, scored, chosen in zip(found.every, found.results, found.chosen, strict=True):
        one = _as_one(scored, chosen, v)
        of_roi = score_rows.by_subject_and_roi(one, targets, inputs.ceilings(data), data.protocol)
        text = {"instruction": features.source.reading["instruction"]}
        rows += [row | text for row in of_roi]
    return finished.finish(rows, shared)


def _as_one(scored: Mapping[int, cv.Nested], chosen: normalized.Chosen, v: int) -> cv.Nested:
    """Return what counts of the layers as if it were the result of one."""
    every = list(scored.values())
    is_mean = (chosen.layer < 0).all()

    def take(name, choose):
        stacked = np.stack([getattr(x, name)[:, :v] for x in every])
        if is_mean:
            return choose(stacked)
        return np.take_along_axis(stacked, chosen.layer[None], axis=0)[0]

    median = lambda x: np.median(x, axis=0)
    mean = lambda x: mean_defined(x, axis=0)
    return every[0]._replace(
        r=chosen.r,
        r2=chosen.r2,
        alphas=take("alphas", median),
        inner_score=take("inner_score", mean),
        predicted_norm=take("predicted_norm", mean),
        recorded_norm=take("recorded_norm", mean),
        num_computed=take("num_computed", median),
        num_constant=np.max([x.num_constant for x in every], axis=0),
    )


def _targets(found: _Compared) -> pd.DataFrame:
    """Return score and normalised score of each target under each instruction."""
    data = found.data
    names = {name: list(getattr(data.responses, name)) for name in ("subject", "roi", "target")}
    parts = []
    for text, chosen in zip(found.texts, found.chosen, strict=True):
        score = normalized.over_folds(chosen.r, data.protocol)
        parts.append(
            pd.DataFrame(
                names
                | {
                    "instruction": text,
                    "score": score,
                    "ceiling": found.ceiling,
                    "normalized": found.normalize(chosen.r),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _partition(found: _Compared, pairs: Mapping[tuple[int, int], Joint]) -> pd.DataFrame:
    """Return what two instructions explain alone and share, of each subject and ROI."""
    data, texts = found.data, found.texts
    outer = [fold.outer for fold in data.folds]
    v = len(data.responses.target)
    rows = []
    for (first, second), joint in pairs.items():
        if work.each_side(data.protocol):  # about the mean of the test samples, as they were scaled
            measures = {R2: [x.mean(axis=0) for x in joint.r2]}
        else:
            of = lambda x: partition.r2_out_of_sample(x, data.Y[:, :v], outer)
            measures = {R2_OUT: [of(x) for x in joint.r2]}
        if np.isfinite(found.ceiling).any():
            measures[NORMALIZED] = [found.normalize(x) for x in joint.r]
        names = {"first": texts[first], "second": texts[second]}
        for measure, scores in measures.items():
            of_roi = planted_instructions.partition_by_roi(*scores, data.responses)
            rows += [names | {"measure": measure} | row for row in of_roi]
    columns = ["first", "second", "measure", *planted_instructions.PARTITION]
    return pd.DataFrame(rows, columns=columns)


def _margins(
    found: _Compared, rows: pd.DataFrame, added: Sequence[Float[np.ndarray, "g n"]] | None
) -> pd.DataFrame:
    """Test the best instruction of each ROI against the second, over subjects."""
    data, texts = found.data, found.texts
    places = list(_places(data))
    tested = np.unique(np.concatenate([fold.outer.test for fold in data.folds]))
    made = []
    won = findings.winners(rows) if added is not None else pd.DataFrame()
    for row in won.itertuples() if len(won) else ():
        if row.outcome != findings.WINNER:
            continue
        # Subjects with a score under every instruction, as the winner is picked.
        own = [g for g, (_, roi) in enumerate(places) if roi == row.roi]
        own = [g for g in own if all(x[g].any() for x in added)]
        parts = [
            np.mean([added[texts.index(x)][g][tested] for g in own], axis=0)
            for x in (row.winner, row.second)
        ]
        rng = np.random.default_rng([data.job.seed, places.index(places[own[0]])])
        made.append(
            {
                "roi": row.roi,
                "winner": row.winner,
                "second": row.second,
                "margin": float(parts[0].sum() - parts[1].sum()),
                "p": swaps.swap_test(*parts, num=data.config.swaps, rng=rng),
                "num_swaps": data.config.swaps,
                "num_images": len(tested),
            }
        )
    columns = ["roi", "winner", "second", "margin", "p", "num_swaps", "num_images"]
    return pd.DataFrame(made, columns=columns)


def _answers(found: _Compared) -> pd.DataFrame:
    """Return what is known of the answers to each instruction."""
    rows = []
    for text, features in zip(found.texts, found.every, strict=True):
        facts = features.source.artefact.facts()
        names = ("distinct_answers", "mean_answer_tokens", "empty_answers", "cut_answers")
        rows.append({"instruction": text} | {x: facts.get(x, np.nan) for x in names})
    return pd.DataFrame(rows)
