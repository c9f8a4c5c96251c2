"""Checks of what a network computes: the same text gives the same states, however it is passed."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Float

from jaxalign.doctor import findings, patient
from jaxalign.doctor.findings import FAILED, OK, SKIPPED, WARNING, Finding, judged
from jaxalign.doctor.patient import Patient
from jaxalign.errors import InputError
from jaxalign.stages.extract import alike
from jaxalign.stages.extract.plan import describe_layers

# Of distances between states of one text, in units of `findings.spread`: products in float32 with
# sums in another order stay far below, and a fault (another mask, another position) far above.
SAME = 1e-3
BITS = 1e-3  # of a surprisal, relative
BATCH_TOKENS = 4096
PADDED, LONGEST = 16, 512  # tokens of padding behind a row, and of the row for precisions
# Of states in a short type against those in float32, at the median token.
COARSE = 0.1
# So much farther from float32 are the last positions of a row than the first, at most.
GROWTH = 4.0
ROGUE = 0.5  # share of a layer's variance in one unit from which it is named


def same_however_passed(
    examined: Patient, network: nnx.Module
) -> tuple[list[Finding], Float[np.ndarray, "L m D"]]:
    """Check that neither company, nor order, nor padding, nor a shared pass alters a part.

    Returns:
      Findings, and the vectors of all parts.
    """
    reading = examined.read()
    every, bits = examined.vectors(network, reading, batch_tokens=BATCH_TOKENS)
    alone, bits_alone = examined.vectors(network, reading, batch_tokens=1)
    found = [_compared("alone as in a batch", alone, every)]
    if bits is not None and bits_alone is not None:
        apart = np.abs(bits - bits_alone) / np.maximum(np.abs(bits), 1)
        farthest = float(np.nanmax(apart)) if np.isfinite(apart).any() else 0.0
        found.append(
            judged(
                "surprisal alone as in a batch",
                farthest < BITS and bool((np.isnan(bits) == np.isnan(bits_alone)).all()),
                f"largest difference {farthest:.1e} of the larger of a bit and its value",
            )
        )
    stimuli = examined.stimuli
    names = list(dict.fromkeys(stimuli.passage))[::-1]
    order = [i for name in names for i in range(len(stimuli)) if stimuli.passage[i] == name]
    turned = examined.read(patient.rows_of(stimuli, order))
    permuted, _ = examined.vectors(network, turned, batch_tokens=BATCH_TOKENS)
    found.append(_compared("passages in another order", permuted, every[:, order]))
    found.append(_padded(examined, network))
    if examined.model.causal:
        apart = examined.read(alone=True)
        separate, _ = examined.vectors(network, apart, batch_tokens=BATCH_TOKENS)
        finding = _compared("one pass as separate passes", every, separate)
        passes = reading.passes.counts.passes, apart.passes.counts.passes
        said = f"{finding.said}; {passes[0]} passes in the place of {passes[1]}"
        found.append(finding._replace(said=said))
    else:
        said = "each part has a pass of its own, as its states depend on what follows"
        found.append(Finding("one pass as separate passes", SKIPPED, said))
    return found, every


def _compared(check: str, found, expected) -> Finding:
    largest, layer = findings.farthest(findings.apart(found, expected))
    said = f"largest distance {largest:.1e} of the spread of the vectors, in layer {layer}"
    return judged(check, largest < SAME, said)


def _padded(examined: Patient, network: nnx.Module) -> Finding:
    room = examined.model.config.max_length - PADDED
    if room < 1:
        return Finding("padding is not seen", SKIPPED, f"the model takes {room + PADDED} tokens")
    row = examined.long_row(min(room, 64))[None]
    # What stands in the padding must not count, so it is not the same everywhere.
    behind = row[:, np.arange(PADDED) % row.shape[1]]
    padded = examined.states(network, np.concatenate([row, behind], axis=1), row.shape[1])
    bare = examined.states(network, row)
    return _compared("padding is not seen", padded.hidden[:, 0, : row.shape[1]], bare.hidden[:, 0])


def head_and_surprisal(examined: Patient, network: nnx.Module) -> Iterator[Finding]:
    """Check that the head reads the last layer, and that surprisals of parts add up to the text's.

    The log-probabilities of the text are computed anew, in float64 on the host.
    """
    model, check = examined.model, "surprisals add up"
    if not (model.causal and model.predicts):
        what = "it is no causal model" if not model.causal else "its checkpoint has no head"
        yield Finding(check, SKIPPED, what)
        return
    reading = examined.read()
    _, bits = examined.vectors(network, reading, batch_tokens=BATCH_TOKENS)
    assert bits is not None
    predicted = reading.passes.predicted
    row = int(predicted.row[np.flatnonzero(predicted.defined)[0]])
    parts = np.flatnonzero((predicted.row == row) & predicted.defined)
    tokens = reading.rows[row]
    states = examined.states(network, tokens[None])
    assert states.final is not None
    if model.final_norm_applied and states.final.shape[-1] == states.hidden.shape[-1]:
        last = findings.apart(states.final[:1], states.hidden[-1, :1])
        yield judged(
            "the head reads the last layer",
            float(last.max()) < SAME,
            f"what it reads is {last.max():.1e} of the spread from the layer that has passed the "
            "final norm",
        )
    values = np.asarray(patient.logits(network, states.final[:1]))[0].astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    log_probs = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    own = np.arange(predicted.start[parts].min(), predicted.stop[parts].max())
    whole = float(-log_probs[own - 1, tokens[own]].sum() / np.log(2))
    total = float(bits[parts].sum())
    yield judged(
        check,
        abs(total - whole) <= BITS * abs(whole),
        f"{len(parts)} parts have {total:.4f} bits, and the {len(own)} tokens of their text "
        f"{whole:.4f}; {int(np.isnan(bits).sum())} of {len(bits)} parts have none, as nothing is "
        "before their first token",
    )


def layers(
    examined: Patient, vectors: Float[np.ndarray, "L m D"]
) -> tuple[list[Finding], pd.DataFrame]:
    """Describe each layer, and name those that say little of what was read."""
    config = examined.model.config
    described = describe_layers(config, "residual")
    spread = findings.spread(vectors)
    variance = vectors.astype(np.float64).var(axis=1)
    total = variance.sum(axis=1)
    share = np.divide(variance.max(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
    table = pd.DataFrame(
        {
            "layer": np.arange(len(vectors)),
            "what": described["layer_names"],
            "normed": [i in described["normed_layers"] for i in range(len(vectors))],
            "width": vectors.shape[-1],
            "length": np.median(np.linalg.norm(vectors, axis=-1), axis=1),
            "spread": spread,
            "largest_unit": variance.argmax(axis=1),
            "share_of_variance": share,
        }
    )
    found = [
        judged(
            "states are finite",
            bool(np.isfinite(vectors).all()),
            f"{int((~np.isfinite(vectors)).sum())} of {vectors.size} values are not",
        )
    ]
    texts = [
        f"{passage} {text}"
        for passage, text in zip(examined.stimuli.passage, examined.stimuli.text, strict=True)
    ]
    collapsed = alike.count(vectors, texts)
    names = ", ".join(map(str, collapsed))
    said = (
        f"in layers {names} nearly all parts have the same direction (cosine above "
        f"{alike.COSINE:g} to their mean)"
        if collapsed
        else f"no layer where {alike.SHARE:.0%} of the parts have the same direction"
    )
    found.append(Finding("parts are told apart", WARNING if collapsed else OK, said))
    rogue = table[table.share_of_variance > ROGUE]
    said = "no unit has more than half of a layer's variance"
    if len(rogue):
        worst = rogue.loc[rogue.share_of_variance.idxmax()]
        said = (
            f"in layers {', '.join(map(str, rogue.layer))} one unit has more than half of the "
            f"variance (unit {worst.largest_unit} {worst.share_of_variance:.0%} of layer "
            f"{worst.layer}): cosines and RSA see little else; a ridge without scaling, too"
        )
    found.append(Finding("no unit stands for a layer", WARNING if len(rogue) else OK, said))
    return found, table


def precisions(
    examined: Patient, network: nnx.Module
) -> tuple[list[Finding], pd.DataFrame, pd.DataFrame]:
    """Compare a pass in bfloat16, and float16 in the store, with float32, by layer and position.

    Returns:
      Findings; the median distance by layer; and that of the quarters of a row.
    """
    row = examined.long_row(LONGEST)[None]
    whole = examined.states(network, row).hidden[:, 0]
    with np.errstate(over="ignore"):  # what overflows is found below
        stored = whole.astype(np.float16)
    types = {"stored in float16": stored}
    found = []
    try:
        types["passes in bfloat16"] = examined.states(examined.load("bfloat16"), row).hidden[:, 0]
    except InputError as error:  # memory
        found.append(Finding("passes in bfloat16", SKIPPED, str(error).rstrip(".")))
    by_layer, by_position = {"layer": np.arange(len(whole))}, []
    for check, short in types.items():
        distance = findings.apart(short, whole)
        by_layer[check] = np.median(distance, axis=1)
        of_tokens = np.median(distance, axis=0)
        quarters = [float(np.median(x)) for x in np.array_split(of_tokens, 4)]
        by_position += [
            {"what": check, "quarter": i + 1, "distance": x} for i, x in enumerate(quarters)
        ]
        found.append(_judged_precision(check, distance, quarters))
    return found, pd.DataFrame(by_layer), pd.DataFrame(by_position)


def _judged_precision(check: str, distance, quarters: list[float]) -> Finding:
    if not np.isfinite(distance).all():
        layer = int(np.argmax(~np.isfinite(distance).all(axis=1)))
        said = f"values of layer {layer} are too large for it: such a run ends with an error"
        return Finding(check, WARNING, said)
    median = np.median(distance, axis=1)
    said = (
        f"at the median token {median.max():.1e} of the spread, in layer {int(median.argmax())}; "
        f"by quarters of a row of {distance.shape[1]} tokens "
        f"{', '.join(f'{x:.1e}' for x in quarters)}"
    )
    if quarters[-1] > max(GROWTH * quarters[0], COARSE):
        return Finding(check, FAILED, f"{said}: it grows with the position, which is not exact")
    return Finding(check, WARNING if median.max() > COARSE else OK, said)
