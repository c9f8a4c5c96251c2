"""Losses of a text's tokens -> tables, figures, what the run prints, and sections of the page."""

import math
from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from jaxalign.core.behavior import next_word as core
from jaxalign.reporting import html
from jaxalign.reporting.pages import plots

PROTOCOL = "wikitext2-nwp"
_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#D55E00", "#332288", "#44AA99")
_SCORES = (
    "Loss: mean cross-entropy of the next token in nats, the score; perplexity is its exponential. "
    "Bits per byte divides the loss of all tokens that count by the bytes of text they stand for. "
    "95 % intervals (ci) leave out one block of neighbouring tokens at a time (jackknife)."
)
_CONTROLS = (
    "Model minus control, paired token by token, with 95 % intervals over the same blocks: below 0 "
    "the model predicts better. The control is the same network with random weights."
)
_CAUTION = (
    "Losses in nats per token are comparable between models of the same tokenizer only: a model "
    "with longer tokens has fewer of them and a higher loss of each. Bits per byte divide by the "
    "same text for all."
)

Losses = tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]


def values(
    loss: Float[np.ndarray, " n"], num_bytes: Int[np.ndarray, " n"], block: Int[np.ndarray, " n"]
) -> dict[str, float | int]:
    """Average losses over a text.

    Args:
      loss: of each token that counts, in nats.
      num_bytes: of the text that it stands for.
      block: from `core.behavior.next_word.blocks`.

    Returns:
      Loss in nats per token, bits per byte and perplexity, each with a 95 % interval over blocks,
      and how many tokens, bytes and blocks these are of.
    """
    nats = core.ratio(loss, np.ones(len(loss)), block)
    bits = _bits_per_byte(loss, num_bytes, block)
    return {
        "loss_nats": nats.value,
        "loss_low": nats.low,
        "loss_high": nats.high,
        "bits_per_byte": bits.value,
        "bits_low": bits.low,
        "bits_high": bits.high,
        "perplexity": math.exp(nats.value),
        "perplexity_low": math.exp(nats.low),
        "perplexity_high": math.exp(nats.high),
        "num_tokens": len(loss),
        "num_bytes": int(num_bytes.sum()),
        "num_blocks": nats.num_groups,
    }


def _bits_per_byte(loss, num_bytes, block):
    return core.ratio(loss / math.log(2), num_bytes.astype(np.float64), block)


def block_values(
    loss: Float[np.ndarray, " n"], num_bytes: Int[np.ndarray, " n"], block: Int[np.ndarray, " n"]
) -> list[dict[str, float | int]]:
    """Average losses over each block; arguments as of `values`. NaN of blocks without bytes."""
    sums = {
        "num_tokens": np.bincount(block),
        "num_bytes": np.bincount(block, weights=num_bytes).astype(int),
        "loss": np.bincount(block, weights=loss),
    }
    return [
        {
            "block": i,
            "num_tokens": int(n),
            "num_bytes": int(size),
            "loss_nats": total / n,
            "bits_per_byte": total / math.log(2) / size if size else np.nan,
        }
        for i, (n, size, total) in enumerate(zip(*sums.values(), strict=True))
    ]


def against_controls(losses: Mapping[tuple[str, str], Losses]) -> pd.DataFrame:
    """Compare each network with itself untrained, token by token.

    Args:
      losses: by model and what it is a control of: loss, bytes and block of each token. Networks
        that stand beside each other have the same tokens.
    """
    rows = []
    for (control, model), (loss, num_bytes, block) in losses.items():
        if not model:
            continue
        less = losses[model, ""][0] - loss
        nats = core.ratio(less, np.ones(len(less)), block)
        bits = _bits_per_byte(less, num_bytes, block)
        rows.append(
            {
                "model": model,
                "control": control,
                "loss_nats": nats.value,
                "loss_low": nats.low,
                "loss_high": nats.high,
                "bits_per_byte": bits.value,
                "bits_low": bits.low,
                "bits_high": bits.high,
                "num_tokens": len(less),
                "num_blocks": nats.num_groups,
            }
        )
    columns = ["model", "control", "loss_nats", "loss_low", "loss_high"]
    columns += ["bits_per_byte", "bits_low", "bits_high", "num_tokens", "num_blocks"]
    return pd.DataFrame(rows, columns=columns)


def name(row) -> str:
    """Name the network of a row."""
    return f"{row.model} of {row.control_of}" if row.control_of else row.model


def figures(scores: pd.DataFrame, blocks: pd.DataFrame) -> dict[str, bytes]:
    """Draw losses of all networks, and their course along the text, as SVG.

    Args:
      scores: a row for each network.
      blocks: the same, block by block.
    """
    return {"bits": _bars(scores), "blocks": _course(blocks)}


def _colours(table: pd.DataFrame) -> dict[str, str]:
    """Return the colour of each network; controls are told apart by their lines."""
    own = [x for x in dict.fromkeys(table.model) if x != "untrained"]
    found = {x: _COLOURS[i % len(_COLOURS)] for i, x in enumerate(own)}
    return found | {"untrained": plots.COLOURS["untrained"]}


def _bars(scores: pd.DataFrame) -> bytes:
    colours = _colours(scores)
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(5.6, 0.36 * len(scores) + 1.0), layout="constrained")
        axis = figure.subplots()
        for y, row in enumerate(scores.itertuples()):
            reach = [[row.bits_per_byte - row.bits_low], [row.bits_high - row.bits_per_byte]]
            axis.barh(
                y,
                row.bits_per_byte,
                0.7,
                xerr=None if np.isnan(row.bits_low) else reach,
                color=colours[row.model],
                error_kw={"lw": 0.8},
            )
        axis.set_yticks(range(len(scores)), [name(row) for row in scores.itertuples()])
        axis.invert_yaxis()
        axis.set_xlabel("bits per byte")
        return plots.svg(figure)


def _course(blocks: pd.DataFrame) -> bytes:
    colours = _colours(blocks)
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(6.4, 2.7), layout="constrained")
        axis = figure.subplots()
        for _, own in blocks.groupby(["model", "control_of"], sort=False):
            row = own.iloc[0]
            # Of different tokenizers the same place is another token; bytes are the same.
            place = (own.num_bytes.cumsum() - own.num_bytes / 2) / 1000
            axis.plot(
                place,
                own.bits_per_byte,
                color=colours[row.control_of or row.model],
                ls="--" if row.control_of else "-",
                marker="o",
                ms=2.5,
                lw=1,
                label=name(row),
            )
        axis.set_ylim(bottom=0)
        axis.set_xlabel("place in the text, 1000 bytes")
        axis.set_ylabel("bits per byte")
        figure.legend(loc="outside right upper", frameon=False)
        return plots.svg(figure)


def _interval(value: float, low: float, high: float, digits: int = 3) -> str:
    if math.isnan(low):
        return f"{value:.{digits}f} [one block: no interval]"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def summary(scores: pd.DataFrame, controls: pd.DataFrame, block_tokens: int) -> str:
    """Lay out what the run prints.

    Args:
      scores: a row for each network.
      controls: from `against_controls`.
      block_tokens: predicted tokens of a block.
    """
    cells = [
        {
            "": name(row),
            "nats per token": _interval(row.loss_nats, row.loss_low, row.loss_high),
            "bits per byte": _interval(row.bits_per_byte, row.bits_low, row.bits_high),
            "perplexity": f"{row.perplexity:.4g}",
            "tokens": str(row.num_tokens),
            "context": str(row.context),
            "stride": str(row.stride),
        }
        for row in scores.itertuples()
    ]
    lines = [
        "",
        f"Loss of the next token ({PROTOCOL}) on {scores.text.iloc[0]}. In brackets: 95 %",
        f"intervals over blocks of {block_tokens} tokens (jackknife: leaves out one at a time).",
        pd.DataFrame(cells).to_string(index=False),
    ]
    if len(controls):
        lines += ["", "Model minus control, paired token by token:"]
        lines += [
            f"  {row.model} - {row.control}: "
            f"{_interval(row.loss_nats, row.loss_low, row.loss_high)} nats per token, "
            f"{_interval(row.bits_per_byte, row.bits_low, row.bits_high)} bits per byte"
            for row in controls.itertuples()
        ]
    return "\n".join(lines) + "\n"


def lead(scores: pd.DataFrame) -> str:
    """Say what was found for the first model."""
    row = scores.iloc[0]
    beside = scores[scores.control_of == row.model]
    control = f" (untrained {beside.loss_nats.iloc[0]:.3f})" if len(beside) else ""
    return (
        f"On {row.text}, {row.model} has a loss of "
        f"{_interval(row.loss_nats, row.loss_low, row.loss_high)} nats per token{control}, "
        f"{row.bits_per_byte:.3f} bits per byte, perplexity {row.perplexity:.4g}."
    )


def sections(
    scores: pd.DataFrame,
    controls: pd.DataFrame,
    drawn: Mapping[str, bytes],
    block_tokens: int,
) -> list[html.Section]:
    """Return the sections of the page.

    Args:
      scores: a row for each network.
      controls: from `against_controls`.
      drawn: from `figures`.
      block_tokens: predicted tokens of a block.
    """
    shown = scores.assign(model=[name(row) for row in scores.itertuples()]).drop(
        columns=["control_of", "text", "text_hash", "fingerprint", "git_commit", "protocol"]
    )
    row = scores.iloc[0]
    methods = (
        f"Protocol {PROTOCOL}; text {row.text}, {row.text_hash}. The text is cut into tokens as a "
        "whole and read in windows, each beginning `stride` tokens after the one before it; a "
        "token counts in the first window that holds it and a token before it, and every token "
        "counts alike. What the tokenizer puts before a text is not predicted, nor is the first "
        "token where it puts nothing there. With a stride as long as the context, the first token "
        f"of each window is left out. Blocks of {block_tokens} tokens that count, the last one up "
        "to twice as long: intervals are about other text of the same kind, with the model as it "
        "is, and are NaN where there is one block. Blocks of one document are alike: for a text of "
        "few documents give a block the length of a document."
    )
    found = [
        html.Section("What to know first", text=[_CAUTION]),
        html.Section(
            "Loss",
            tables=[(_SCORES, shown)],
            figures=[
                ("Bars: bits per byte of each network, with intervals over blocks.", drawn["bits"]),
                ("Lines: bits per byte of each block along the text.", drawn["blocks"]),
            ],
        ),
    ]
    if len(controls):
        found.append(html.Section("Model minus control", tables=[(_CONTROLS, controls)]))
    return [*found, html.Section("Methods", text=[methods])]
