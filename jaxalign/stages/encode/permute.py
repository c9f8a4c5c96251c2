"""Permutation tests of the encoding stage: p-values of networks' scores, every null fitted anew."""

import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxalign import processes, progress
from jaxalign.core import features
from jaxalign.core.inference import orders
from jaxalign.core.scores import scoring
from jaxalign.data.schema import Responses
from jaxalign.errors import InputError
from jaxalign.io import arrays
from jaxalign.io import rows as rows_lib
from jaxalign.io.run_dir import Artefact
from jaxalign.results import finished, significance
from jaxalign.results.significance import Nulls
from jaxalign.stages import Job
from jaxalign.stages.artefacts import Significance
from jaxalign.stages.encode import config as config_lib
from jaxalign.stages.encode import inputs, make
from jaxalign.stages.encode.config import Config
from jaxalign.stages.encode.inputs import Features


def check(config: Config, responses: Responses) -> int:
    """Refuse tests that protocol or samples do not allow.

    Returns:
      The number of orders that are tried.

    Raises:
      InputError: if there is no such test.
    """
    protocol = config_lib.protocol(config)
    if reason := scoring.why_not_permuted(protocol):
        raise InputError(f"encode.permutations must be 0 under protocol {protocol.name}: {reason}.")
    try:
        return len(draw(config, responses, seed=0))
    except ValueError as error:
        raise InputError(f"encode.permutations, orders {config.orders!r}: {error}") from error


def draw(config: Config, responses: Responses, *, seed: int) -> Int[np.ndarray, "q n"]:
    """Draw the orders of samples, the same for all networks, layers and targets."""
    rng, run = np.random.default_rng(seed), responses.run
    if config.orders == "row":
        return orders.row_orders(run, num=config.permutations, rng=rng)
    if config.orders == "block":
        return orders.block_orders(run, config.order_block, num=config.permutations, rng=rng)
    shifts = orders.draw_shifts(run, num=config.permutations, rng=rng)
    return orders.shift_orders(run, shifts)


def test(config: Config, job: Job, network: Features, artefact: Artefact) -> dict:
    """Test layer by layer; a layer that an interrupted run has tested is not tested again."""
    start = time.monotonic()
    data = inputs.prepare(config, job, artefact)
    drawn = draw(config, data.responses, seed=job.seed)
    if config.orders != "row" and data.responses.is_timed:
        data = data._replace(Y=_detrended(data))
    nulls = _every_layer(network, data, drawn, artefact)
    if not processes.is_first():
        return {}
    common = make.common(data, network, artefact) | {
        "protocol": data.protocol.name,
        "orders": config.orders,
        "num_orders": len(drawn),
    }
    what = {layer: network.layer_columns(layer) for layer in nulls} | {significance.ANY: {}}
    rows = [
        what[row["layer"]] | row for row in significance.by_subject_and_roi(nulls, data.targets)
    ]
    finished.write(artefact.path / Significance.ROWS, rows, common, rows_lib.SIGNIFICANCE)
    found = significance.by_target(list(nulls.values())[-1].best, data.targets)
    path, schema = artefact.path / Significance.TARGETS, rows_lib.TARGET_SIGNIFICANCE
    rows_lib.write_columns(path, found, common, schema)
    return {"left_out": data.left_out, "seconds": round(time.monotonic() - start, 3)}


def _every_layer(
    network: Features, data: inputs.Prepared, drawn: Int[np.ndarray, "q n"], artefact: Artefact
) -> dict[int, Nulls]:
    """Test all layers that an interrupted run has not tested.

    Each layer's file holds the largest nulls of any layer so far, which may be large: once the
    next one is there, that of the layer before is taken out. So what an interrupted run has kept
    counts up to the last layer that holds them. Of several processes the first one reads and
    writes, and what the others return is not used.
    """
    layers = network.layers(data.config)
    path = {layer: artefact.path / f"nulls_{layer:03d}.npz" for layer in layers}
    kept = [arrays.read(path[x], Nulls) for x in layers] if processes.is_first() else []
    is_whole = lambda i: all(x is not None for x in kept[: i + 1]) and kept[i].best.size
    num_kept = max((i + 1 for i in range(len(kept)) if is_whole(i)), default=0)
    found: dict[int, Nulls] = {}
    for i, layer in enumerate(layers):
        if processes.decide(lambda i=i: i >= num_kept):
            last = found.get(layers[i - 1]) if i else None
            found[layer] = _nulls(network, layer, data, drawn, last and last.best, artefact)
            if processes.is_first():
                arrays.write(path[layer], found[layer])
        elif processes.is_first():
            found[layer] = kept[i]
        if i and layers[i - 1] in found and found[layers[i - 1]].best.size:
            found[layers[i - 1]] = found[layers[i - 1]]._replace(best=np.empty((0, 0)))
            if processes.is_first():
                arrays.write(path[layers[i - 1]], found[layers[i - 1]])
    return found


def _detrended(data: inputs.Prepared) -> Float[np.ndarray, "n v"]:
    """Take drifts out of responses, since these do not join end to end: see docs/inference.md.

    Subjects are scaled within runs again, if the protocol does that; the group, a mean of scaled
    subjects, is not.
    """
    runs, num = data.responses.run, len(data.responses.subject)
    found = features.detrend(data.Y, runs, data.responses.time_s)
    if data.protocol.scaling.within_runs != "none":
        found[:, :num] = features.standardize(found[:, :num], runs)
    return found


def _nulls(
    network: Features,
    layer: int,
    data: inputs.Prepared,
    drawn: Int[np.ndarray, "q n"],
    before: Float[np.ndarray, "o v"] | None,
    artefact: Artefact,
) -> Nulls:
    def bar(tiles: Sequence):
        return progress.bar(tiles, f"encode {artefact.name}, layer {layer}", "tiles")

    parts = scoring.permuted(
        make.design(data, make.read(network, layer, data), data.protocol),
        data.Y,
        data.protocol,
        data.folds,
        drawn,
        execution=make.execution(data)._replace(progress=bar),
    )
    return significance.collect(parts, data.targets, before)
