"""Log-likelihoods and continuations of rows of token ids, in few passes of few shapes."""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core import mesh as mesh_lib
from jaxalign.data.text.batches import padded_length
from jaxalign.models import generate, log_probs, seq2seq

# Passes that are computed while the host takes the results of those before.
PASSES_IN_FLIGHT = 2


class Request(NamedTuple):
    """A request for the log-likelihood of a continuation.

    Attributes:
      source: what the encoder reads; empty where there is none.
      inputs: tokens of the pass: the context, and the continuation but for its last token.
      last: the last token, which is predicted and need not be read.
      num_scored: tokens of the continuation.
    """

    source: tuple[int, ...]
    inputs: tuple[int, ...]
    last: int
    num_scored: int


class Answer(NamedTuple):
    """A request's index, its log-likelihood in nats, and whether it is the greedy continuation."""

    index: int
    log_likelihood: float
    is_greedy: bool


class Size(NamedTuple):
    """How many rows pass together.

    Attributes:
      rows: their number; 0: as many as fill `tokens`.
      tokens: of a batch, padding included.
      longest: tokens of a row that the model takes.
    """

    rows: int
    tokens: int
    longest: int


class _Row(NamedTuple):
    source: tuple[int, ...]
    inputs: tuple[int, ...]
    last: list[int]  # different ones
    members: list[int]  # indices of requests


def log_likelihoods(
    network: nnx.Module, mesh: Mesh, requests: Sequence[Request], size: Size
) -> Iterator[Answer]:
    """Yield the answer to each request, the longest first.

    Requests that differ in their last token alone share a pass.

    Args:
      network: causal, or a T5 with both stacks, whose rows have a source and begin with its start
        token.
      mesh: devices of the network, which divide the rows of a batch.
      requests: inputs not empty, and not longer than the network takes.
      size: of the batches.
    """
    in_flight = collections.deque()
    for rows, batch in _batches(_rows(requests), mesh, size):
        in_flight.append((rows, _score(network, *batch)))
        if len(in_flight) > PASSES_IN_FLIGHT:
            yield from _answers(requests, *in_flight.popleft())
    for done in in_flight:
        yield from _answers(requests, *done)


def _rows(requests: Sequence[Request]) -> list[_Row]:
    rows = {}
    for index, request in enumerate(requests):
        key = request.source, request.inputs
        row = rows.setdefault(key, _Row(*key, [], []))
        row.members.append(index)
        if request.last not in row.last:
            row.last.append(request.last)
    # Rows of one length are sorted by content, so that batches do not depend on the order.
    return sorted(rows.values(), key=lambda row: (-len(row.source), -len(row.inputs), row[:2]))


def _batches(rows: Sequence[_Row], mesh: Mesh, size: Size) -> Iterator[tuple]:
    start = 0
    while start < len(rows):
        length = sum(padded_length(len(x), size.longest) for x in rows[start][:2] if x)
        num = num_rows(size, length, mesh, left=len(rows) - start)
        batch = rows[start : start + num]
        start += len(batch)
        most = max(len(row.last) for row in batch)
        last = np.zeros((num, 1 << (most - 1).bit_length()), np.int32)
        for i, row in enumerate(batch):
            last[i, : len(row.last)] = row.last
        source = pad([row.source for row in batch], num, size.longest, mesh)
        inputs = pad([row.inputs for row in batch], num, size.longest, mesh)
        yield batch, (source, inputs, _place(last, mesh))


def num_rows(size: Size, length: int, mesh: Mesh, *, left: int) -> int:
    """Return the rows of a batch of a length, divisible by the devices that share it.

    Where fewer are left, the next power of two: few more shapes, and little waste.
    """
    shares = mesh.shape["data"]
    rows = min(size.rows or max(size.tokens // length, 1), 1 << (left - 1).bit_length())
    return -(-rows // shares) * shares


class Padded(NamedTuple):
    """Rows padded on the right to one length, and with rows of one token."""

    tokens: Int[Array, "B T"]
    mask: Bool[Array, "B T"]


def pad(rows: Sequence[Sequence[int]], num: int, longest: int, mesh: Mesh) -> Padded | None:
    """Pad rows and divide them over devices; None if they are empty, as without an encoder."""
    if not rows[0]:
        return None
    shape = num, padded_length(max(map(len, rows)), longest)
    tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    mask[:, 0] = True  # a row of padding alone would not stay finite
    for i, row in enumerate(rows):
        tokens[i, : len(row)], mask[i, : len(row)] = row, True
    return Padded(_place(tokens, mesh), _place(mask, mesh))


def _place(x: np.ndarray, mesh: Mesh) -> Array:
    return jax.device_put(x, mesh_lib.sharding(mesh, ("batch", *[None] * (x.ndim - 1)), x.shape))


class _Scored(NamedTuple):
    inputs: log_probs.Predicted  # of each token's successor in its row
    last: Float[Array, "B K"]  # log-probabilities of candidates for the last
    most_probable: Int[Array, " B"]  # last token


@jax.jit
@jax.default_matmul_precision("highest")
def _score(network, source: Padded | None, inputs: Padded, last: Int[Array, "B K"]) -> _Scored:
    if source is not None:
        network = seq2seq.read(network, *source)
    output = network(*inputs, taps=())
    at = inputs.mask.sum(axis=1)[:, None, None] - 1
    final = jnp.take_along_axis(output.final, at, axis=1)[:, 0]
    logits = network.logits(final).astype(jnp.float32)
    return _Scored(
        inputs=log_probs.predict(network, output, jnp.roll(inputs.tokens, -1, axis=1)),
        last=jnp.take_along_axis(jax.nn.log_softmax(logits), last, axis=-1),
        most_probable=logits.argmax(axis=-1),
    )


def _answers(requests: Sequence[Request], rows: Sequence[_Row], scored) -> Iterator[Answer]:
    scored = jax.tree.map(np.asarray, scored)
    for i, row in enumerate(rows):
        end = len(row.inputs) - 1
        for index in row.members:
            request = requests[index]
            scored_inputs = slice(end - (request.num_scored - 1), end)
            targets = row.inputs[scored_inputs.start + 1 :]
            last = scored.last[i, row.last.index(request.last)]
            yield Answer(
                index,
                math.fsum([*scored.inputs.log_probs[i, scored_inputs].tolist(), float(last)]),
                bool(scored.most_probable[i] == request.last)
                and tuple(scored.inputs.most_probable[i, scored_inputs].tolist()) == targets,
            )


class Ending(NamedTuple):
    """When an answer ends.

    Attributes:
      num_new: most tokens to add.
      stop_token: ends an answer, and is its last token then.
      is_over: of the tokens so far, whether an answer needs no more; asked every few tokens, so
        that it may get some more.
    """

    num_new: int
    stop_token: int
    is_over: Callable[[list[int]], bool]


class Draws(NamedTuple):
    """How answers are drawn, and the seed of each prompt's draws, below 2^32."""

    sampling: generate.Sampling
    seeds: Sequence[int]


def continuations(
    network: nnx.Module,
    mesh: Mesh,
    prompts: Sequence[Sequence[int]],
    size: Size,
    ending: Ending,
    draws: Draws | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """Yield the index of each prompt and the tokens after it, the longest prompt first.

    Args:
      network: as of `log_likelihoods`; a T5's encoder reads the prompts.
      mesh: devices of the network.
      prompts: not empty, and not longer than `size.longest`.
      size: of the batches.
      ending: when an answer ends.
      draws: None: the most probable token.
    """
    is_t5 = hasattr(network, "encoder")
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), tuple(prompts[i])))
    start = 0
    while start < len(order):
        length = padded_length(len(prompts[order[start]]), size.longest)
        num = num_rows(size, length + ending.num_new, mesh, left=len(order) - start)
        chosen = order[start : start + num]
        start += len(chosen)
        text, reader = pad([prompts[i] for i in chosen], num, size.longest, mesh), network
        if is_t5:
            reader = dataclasses.replace(_read(network, *text), network=network)
            text = pad([[network.config.start_token]] * num, num, 1, mesh)
        stop_when = _stop_when(ending.is_over, len(chosen))
        until = generate.Ending(ending.num_new, (ending.stop_token,), stop_when)
        if draws is None:
            found = generate.greedy(reader, *text, until)
        else:
            seeds = [draws.seeds[i] for i in chosen] + [0] * (num - len(chosen))
            keys = jax.vmap(jax.random.key)(np.array(seeds, np.uint32))
            found = generate.sample(reader, *text, until, key=keys, sampling=draws.sampling)
        tokens, lengths = np.asarray(found.tokens), np.asarray(found.lengths)
        for row, index in enumerate(chosen):
            yield index, tokens[row, : lengths[row]].tolist()


def _stop_when(is_over: Callable[[list[int]], bool], num_prompts: int) -> generate.StopWhen:
    """Ask `is_over` of each row; those after the prompts are padding, and always over."""

    def stop_when(tokens, lengths):
        over = np.ones(len(tokens), bool)
        for row in range(num_prompts):
            over[row] = is_over(tokens[row, : lengths[row]].tolist())
        return over

    return stop_when


@jax.jit
@jax.default_matmul_precision("highest")
def _read(network, tokens, mask) -> seq2seq.Decoder:
    """Read texts; without the network, which a program would return as a copy."""
    return dataclasses.replace(seq2seq.read(network, tokens, mask), network=None)
