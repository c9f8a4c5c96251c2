"""Losses of a text's tokens -> tables, charts, what the run prints, and the page."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from jaxalign.core.behavior import next_word as core
from jaxalign.reporting import charts
from jaxalign.reporting.charts import Chart, marks, tip
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page

PROTOCOL = "wikitext2-nwp"
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
    """Compare each network with its untrained counterpart, token by token.

    Args:
      losses: by model and what it is a control of: loss, bytes and block of each token. Networks
        that are compared have the same tokens.
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


def _names(table: pd.DataFrame) -> list[str]:
    return [name(row) for row in table.itertuples()]


def bars(scores: pd.DataFrame) -> Chart:
    """Draw bits per byte of all networks.

    Args:
      scores: a row for each network.
    """
    data = scores[["bits_per_byte", "bits_low", "bits_high", "loss_nats", "num_tokens"]]
    data = data.rename(columns={"bits_low": "ci_low", "bits_high": "ci_high"})
    data = data.assign(network=_names(scores))
    part = charts.networks(scores[scores.control_of == ""].model)
    untrained = charts.untrained(part)
    colours = {name(x): part.get(x.model) or untrained[x.control_of] for x in scores.itertuples()}
    chart = marks.bars(
        data,
        alt.X("bits_per_byte:Q", title="bits per byte"),
        alt.Y("network:N", sort=None, title=None, axis=alt.Axis(ticks=False)),
        alt.Color("network:N", scale=charts.scale(colours), legend=None),
        [
            tip("network", digits=""),
            tip("bits_per_byte"),
            tip("loss_nats", "nats per token"),
            tip("num_tokens", "tokens", "d"),
        ],
    ).properties(width="container", height=charts.height(len(data), 26), data=charts.DATA)
    text = "Bars: bits per byte of each network, with 95 % intervals over blocks."
    return charts.finish("bits", "Bits per byte", text, chart, data)


def course(blocks: pd.DataFrame) -> Chart:
    """Draw bits per byte along the text; controls are dashed.

    Args:
      blocks: a row for each network and block.
    """
    data = blocks.assign(network=_names(blocks))
    # Of different tokenizers the same place is another token; bytes are the same.
    size = data.groupby("network", sort=False).num_bytes
    data["kilobyte"] = (size.cumsum() - data.num_bytes / 2) / 1000
    part = charts.networks(data[data.control_of == ""].model)
    colours = {name(x): part[x.control_of or x.model] for x in data.itertuples()}
    dashes = {name(x): [5, 4] if x.control_of else [1, 0] for x in data.itertuples()}
    data = data[["network", "block", "kilobyte", "bits_per_byte", "loss_nats", "num_tokens"]]
    legend = charts.line_legend()
    base = alt.Chart().encode(
        x=alt.X("kilobyte:Q", title="place in the text, 1000 bytes"),
        y=alt.Y("bits_per_byte:Q", title="bits per byte", scale=alt.Scale(zero=True)),
        color=alt.Color("network:N", scale=charts.scale(colours), legend=legend),
    )
    line = base.mark_line(strokeWidth=1.5, aria=False).encode(
        strokeDash=alt.StrokeDash("network:N", scale=charts.scale(dashes), legend=legend)
    )
    points = base.mark_point(filled=True, size=25, opacity=1).encode(
        tooltip=[
            tip("network", digits=""),
            tip("block", digits="d"),
            tip("bits_per_byte"),
            tip("loss_nats", "nats per token"),
        ]
    )
    chart = alt.layer(line, points).properties(width="container", height=240, data=charts.DATA)
    text = "Lines: bits per byte of each block along the text; dashed: untrained networks."
    return charts.finish("blocks", "Along the text", text, chart, data)


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
    untrained = scores[scores.control_of == row.model]
    control = f" (untrained {untrained.loss_nats.iloc[0]:.3f})" if len(untrained) else ""
    return (
        f"On {row.text}, {row.model} has a loss of "
        f"{_interval(row.loss_nats, row.loss_low, row.loss_high)} nats per token{control}, "
        f"{row.bits_per_byte:.3f} bits per byte, perplexity {row.perplexity:.4g}."
    )


class Found(NamedTuple):
    """What was found of a text."""

    scores: pd.DataFrame  # a row for each network
    blocks: pd.DataFrame  # a row for each network and block
    controls: pd.DataFrame  # from `against_controls`
    block_tokens: int  # predicted tokens of a block


def page(found: Found, provenance: str) -> Page:
    """Lay losses out as a page.

    Args:
      found: of all networks.
      provenance: preformatted text.
    """
    return Page(
        title=f"Next-word prediction: {found.scores.text.iloc[0]}",
        lead=lead(found.scores),
        sections=sections(found),
        tables={"scores": found.scores, "blocks": found.blocks, "controls": found.controls},
        summary=summary(found.scores, found.controls, found.block_tokens),
        provenance=provenance,
        unprinted=("scores", "blocks"),
    )


def sections(found: Found) -> list[Section]:
    """Return the sections of the page."""
    scores, blocks, controls, block_tokens = found
    shown = scores.assign(model=_names(scores)).drop(
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
        "is, and are undefined where there is one block. Blocks of one document are alike: for a "
        "text of few documents give a block the length of a document."
    )
    parts = [
        Section("What to know first", text=[_CAUTION]),
        Section("Loss", tables=[(_SCORES, shown)], charts=[bars(scores), course(blocks)]),
    ]
    if len(controls):
        parts.append(Section("Model minus control", tables=[(_CONTROLS, controls)]))
    return [*parts, Section("Methods", text=[methods])]
