"""What a model of images and text answers to instructions, and the states of its layers meanwhile.

Images x instructions pass as one batch, each image's instructions side by side. The vision tower
sees each image once. What all prompts have in common up to the image's last token, and often a
little more, passes the language model once for each image, where its states are the same in all
(`multimodal.Config.shares_prefix`); its keys and values are kept once for all of them.

Poolings, each of every layer:

- "generated": mean of the tokens of the answer that were fed back, the paper's;
- "last_fed": the last of these;
- "prompt_last": the prompt's last token, which predicts the answer's first;
- "prompt_mean": mean of all tokens of the prompt, those of the image included;
- "image_tokens": mean of the image's tokens in the language model;
- "all": mean of all tokens of the prompt and of those that were fed back;
- "vision": mean of all tokens of the vision tower, CLS included;
- "qformer": mean of a Q-Former's queries and of the instruction that it reads with them.

The states of an answer are those at the positions where the network reads its tokens: the last one,
such as the stop token, is never read and has none. Where a T5 answers, the prompt's states are the
encoder's, the answer's the decoder's, and nothing is the mean of "all".

Source: Oota et al. (2025); their code (subbareddy248/mllm_instruction_brain, d7b576e) averages the
steps of generation after the first one, which are these tokens.
"""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models import generate, seq2seq
from jaxalign.models.families import base, multimodal

OF_ANSWERS = ("generated", "last_fed", "all")
OF_PROMPTS = ("prompt_last", "prompt_mean", "image_tokens")
POOLINGS = (*OF_ANSWERS, *OF_PROMPTS, "vision", "qformer")


class Prompts(NamedTuple):
    """What is asked about each image, in tokens.

    Attributes:
      tokens: of each prompt, with the image's token at each of the image's positions; padded on the
        right.
      mask: False for padding.
      instructions: what a Q-Former reads, in tokens of its own tokenizer; None where none does.
      instruction_mask: False for their padding.
    """

    tokens: Int[np.ndarray, "Q T"]
    mask: Bool[np.ndarray, "Q T"]
    instructions: Int[np.ndarray, "Q t"] | None = None
    instruction_mask: Bool[np.ndarray, "Q t"] | None = None


@dataclasses.dataclass(frozen=True)
class Answers:
    """What was answered about images, and the layers' states.

    Attributes:
      features: pooling -> [L B Q D] in float32, or [L B D] of "vision". NaN where nothing is to be
        pooled: of an answer that is empty.
      tokens: of each answer; see `generate.Continuation`. None where only the prompts were read.
      lengths: tokens of each answer, the stop token included.
      stopped: whether a stop token ended it; else it was cut at the most tokens it may have.
    """

    features: dict[str, np.ndarray]
    tokens: Int[np.ndarray, "B Q n"] | None = None
    lengths: Int[np.ndarray, "B Q"] | None = None
    stopped: Bool[np.ndarray, "B Q"] | None = None

    @property
    def reasons(self) -> np.ndarray:
        """Why each answer ended, [B Q]: "stop token" or "length"."""
        return np.where(self.stopped, "stop token", "length")

    @property
    def empty(self) -> Bool[np.ndarray, "B Q"]:
        """Whether an answer ended before its first token."""
        return self.stopped & (self.lengths == 1)


def answer(
    network: multimodal.Network,
    images: Float[Array, "B C H W"] | multimodal.Seen,
    prompts: Prompts,
    poolings: Collection[str],
    ending: generate.Ending | None,
    draws: generate.Draws | None = None,
) -> Answers:
    """Let a network answer all instructions about all images.

    Args:
      network: the model.
      images: their pixels (`multimodal.Network.see`); or what `see` returned for them, so that more
        instructions do not pass the vision tower again.
      prompts: what is asked about each of them.
      poolings: which features to return, of `POOLINGS`.
      ending: when answers end; None: the prompts are read, and nothing is answered.
      draws: None: the most probable token. A key may be given for each answer, image by image, so
        that draws do not depend on the batch.

    Raises:
      ValueError: if a pooling is unknown or the network has no such layers, a prompt does not hold
        the image's tokens, or prompt and answer do not fit the network.
    """
    check(network.config, prompts, poolings, ending)
    poolings = tuple(name for name in POOLINGS if name in poolings)
    seen = images
    if not isinstance(seen, multimodal.Seen):
        seen = see(network, images, keep="vision" in poolings)
    given = jax.tree.map(jnp.asarray, prompts)
    B, Q = len(seen.states), len(prompts.tokens)
    features = {}
    if "vision" in poolings:
        features["vision"] = np.asarray(seen.taps["residual"])
    if ending is None and not {*OF_ANSWERS, *OF_PROMPTS} & set(poolings):  # no language is read
        if "qformer" in poolings:
            features["qformer"] = _by_image(_means_of_qformer(network, seen.states, given), B)
        return Answers(features)
    read, pooled, qformer = _read(
        network,
        seen.states,
        given,
        num_shared=num_shared(network.config, prompts),
        num_new=1 if ending is None else ending.num_new,
        poolings=poolings,
    )
    if qformer is not None:
        features["qformer"] = _by_image(qformer, B)
    found, kept = None, None
    if ending is not None:
        keep = any(name in OF_ANSWERS for name in poolings)
        reader = network.language
        if read.network is not None:
            reader = dataclasses.replace(read.network, network=reader)
        found, kept = generate.resume(read._replace(network=reader), ending, draws, keep=keep)
    counts = np.tile(_counts(network.config, prompts), (B, 1))
    for name, values in _features(poolings, pooled, counts, kept).items():
        features[name] = _by_image(values, B)
    if found is None:
        return Answers(features)
    tokens, lengths = (np.asarray(x).reshape(B, Q, *x.shape[1:]) for x in found)
    last = np.take_along_axis(tokens, lengths[..., None] - 1, axis=2)[..., 0]
    return Answers(features, tokens, lengths, np.isin(last, ending.stop_tokens))


@jax.jit(static_argnames="keep")
@jax.default_matmul_precision("highest")
def see(
    network: multimodal.Network, pixels: Float[Array, "B C H W"], *, keep: bool
) -> multimodal.Seen:
    """Let the vision tower see images.

    Args:
      network: the model.
      pixels: of the images; see `multimodal.Network.see`.
      keep: whether to keep the means of its layers, the pooling "vision".
    """
    mean = lambda x_BTD: x_BTD.astype(jnp.float32).mean(axis=1)
    return network.see(pixels, taps=("residual",) if keep else (), pool=mean)


def check(
    config: multimodal.Config,
    prompts: Prompts,
    poolings: Collection[str],
    ending: generate.Ending | None,
) -> None:
    """Refuse what `answer` cannot do, before anything is computed.

    Raises:
      ValueError: as `answer` does.
    """
    if unknown := [name for name in poolings if name not in POOLINGS]:
        raise ValueError(f"poolings must be of {', '.join(POOLINGS)}, got {unknown[0]!r}.")
    missing = {"all"} if config.has_encoder else set()
    if not hasattr(config.connector, "num_queries"):
        missing.add("qformer")
    if config.num_image_tokens == 0:
        missing.add("image_tokens")
    if ending is None:
        missing |= set(OF_ANSWERS)
    if found := sorted(missing & set(poolings)):
        raise ValueError(f"poolings must be those that the network has, got {found[0]!r}.")
    if ending is not None and ending.num_new < 1:
        raise ValueError(f"num_new must be >= 1, got {ending.num_new}.")
    mask = np.asarray(prompts.mask)
    if not mask.any(axis=1).all() or (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("prompts must hold tokens, and be padded on the right.")
    held = ((prompts.tokens == config.image_token) & mask).sum(axis=1)
    if (held != config.num_image_tokens).any():
        raise ValueError(
            f"prompts must hold the image's token {config.num_image_tokens} times, got "
            f"{held.tolist()}."
        )
    longest = int(mask.sum(axis=1).max())
    if not config.has_encoder and ending is not None:
        longest += ending.num_new
    if not config.has_encoder and longest > config.max_length:
        raise ValueError(f"prompt and answer must fit {config.max_length} tokens, got {longest}.")


def num_shared(config: multimodal.Config, prompts: Prompts) -> int:
    """Return how many tokens all prompts begin with, if they pass once for each image; else 0.

    At least one token of each prompt is left, and nothing is shared before the image's last token.
    """
    tokens, mask = np.asarray(prompts.tokens), np.asarray(prompts.mask)
    if len(tokens) == 1 or not config.shares_prefix:
        return 0
    differ = ((tokens != tokens[:1]) | ~mask).any(axis=0)
    shared = int(differ.argmax()) if differ.any() else tokens.shape[1]
    shared = min(shared, int(mask.sum(axis=1).min()) - 1)
    whole = (tokens[0, :shared] == config.image_token).sum() == config.num_image_tokens
    return shared if whole else 0


def _by_image(values, num_images: int) -> np.ndarray:
    """Return [L B*Q D] as [L B Q D]."""
    values = np.asarray(values, np.float32)
    return values.reshape(len(values), num_images, -1, *values.shape[2:])


# Rows of what `_weights` returns.
_IMAGE, _PROMPT, _LAST = range(3)


def _weights(config, tokens, mask) -> Float[Array, "R 3 T"]:
    """Return with which tokens each sum over a prompt is taken."""
    place = jnp.arange(tokens.shape[1])[None]
    last = place == mask.sum(axis=1, keepdims=True) - 1
    rows = [(tokens == config.image_token) & mask, mask, last & mask]
    return jnp.stack(rows, axis=1).astype(jnp.float32)


def _counts(config, prompts: Prompts) -> np.ndarray:
    """Return [Q 3]: over how many tokens each sum is taken."""
    mask = np.asarray(prompts.mask)
    image = ((prompts.tokens == config.image_token) & mask).sum(axis=1)
    return np.stack([image, mask.sum(axis=1), np.ones(len(mask), int)], axis=1)


def _sums(weights) -> base.Pool:
    return lambda x_RTD: jnp.einsum("rkt,rtd->rkd", weights, x_RTD.astype(jnp.float32))


@jax.jit(static_argnames=("num_shared", "num_new", "poolings"))
@jax.default_matmul_precision("highest")
def _read(network, states, prompts, *, num_shared: int, num_new: int, poolings: tuple[str, ...]):
    """Pass the prompts; return what continues them, sums [L R 3 D], and a Q-Former's means.

    What continues them is without the network: a program returns a copy of all that it returns.
    """
    B, (Q, T) = len(states), prompts.tokens.shape
    rows = lambda x_Qt: jnp.tile(x_Qt, (B, 1))  # image by image
    vectors, qformer = _connect(network, states, prompts, rows, keep="qformer" in poolings)
    taps = ("residual",) if {*OF_PROMPTS, "all"} & set(poolings) else ()
    tokens, mask = rows(prompts.tokens), rows(prompts.mask)
    pool = lambda tokens, mask: _sums(_weights(network.config, tokens, mask))
    if network.config.has_encoder:
        merged = network.merge(tokens, vectors)
        pooled = pool(tokens, mask)
        reader = seq2seq.read(network.language, merged, mask, taps=taps, pool=pooled)
        start = jnp.full((B * Q, 1), network.config.language.start_token)
        output = reader(start, start >= 0, cache=reader.empty_cache(B * Q, num_new))
        prompted = generate.Prompted(_alone(reader), output.final[:, 0], output.cache)
        return prompted, reader.taps.get("residual"), qformer
    reader = network.reader(vectors)
    length = T + num_new - 1
    if num_shared:
        begin, first = prompts.tokens[:1, :num_shared], jnp.ones((B, num_shared), bool)
        begin = jnp.repeat(begin, B, axis=0)
        # The last token of the beginning is not a prompt's last one.
        weights = _weights(network.config, begin, first).at[:, _LAST].set(0)
        begun = reader(
            network.merge(begin, vectors),
            first,
            taps=taps,
            pool=_sums(weights),
            cache=reader.empty_cache(B, num_shared),
        )
        cache = reader.empty_cache(B * Q, length - num_shared)
        cache = dataclasses.replace(cache, begin=begun.cache)
        tokens, mask = tokens[:, num_shared:], mask[:, num_shared:]
        output = reader(tokens, mask, taps=taps, pool=pool(tokens, mask), cache=cache)
        add = lambda first, second: jnp.repeat(first, Q, axis=1) + second
        sums = jax.tree.map(add, begun.taps, output.taps).get("residual")
    else:
        cache = reader.empty_cache(B * Q, length)
        merged = network.merge(tokens, vectors)
        output = reader(merged, mask, taps=taps, pool=pool(tokens, mask), cache=cache)
        sums = output.taps.get("residual")
    at = mask.sum(axis=1)[:, None, None] - 1
    final = jnp.take_along_axis(output.final, at, axis=1)[:, 0]
    return generate.Prompted(_alone(reader), final, output.cache), sums, qformer


@jax.jit
@jax.default_matmul_precision("highest")
def _means_of_qformer(network, states, prompts: Prompts):
    """Return a Q-Former's means [L R D]."""
    rows = lambda x_Qt: jnp.tile(x_Qt, (len(states), 1))
    return _connect(network, states, prompts, rows, keep=True)[1]


def _alone(reader):
    """Return a reader without its network: None, if it is the network."""
    return dataclasses.replace(reader, network=None) if dataclasses.is_dataclass(reader) else None


def _connect(network, states, prompts: Prompts, rows, *, keep: bool):
    """Return the image's vectors, and the means of a Q-Former's layers if they are wanted."""
    num = network.config.num_image_tokens
    given, seen = (), jnp.ones((1, num), bool)
    if network.config.reads_instruction:
        given = rows(prompts.instructions), rows(prompts.instruction_mask)
        seen = jnp.concatenate([jnp.broadcast_to(seen, (len(given[1]), num)), given[1]], axis=1)
    weights = seen / seen.sum(axis=1, keepdims=True)
    mean = lambda x: jnp.einsum("rt,rtd->rd", jnp.broadcast_to(weights, x.shape[:2]), x)
    pool = base.Keep(("residual",) if keep else (), lambda x: mean(x.astype(jnp.float32)))
    vectors, taps = network.connect(states, *given, keep=pool)
    qformer = taps.get("residual")
    if qformer is not None and not network.config.reads_instruction:
        qformer = jnp.repeat(qformer, len(prompts.tokens), axis=1)
    return vectors, qformer


def _features(poolings, sums, counts, kept: generate.Kept | None) -> dict[str, np.ndarray]:
    """Return pooling -> [L R D], of the language model."""
    found = {}
    if sums is not None:
        sums = np.asarray(sums)
        for name, row in zip(OF_PROMPTS, (_LAST, _PROMPT, _IMAGE), strict=True):
            if name in poolings:
                found[name] = sums[:, :, row] / counts[None, :, row, None]
    if kept is None:
        return found
    total, last, count = (np.asarray(x) for x in kept)
    fed = np.where(count > 0, count, np.nan)[None, :, None].astype(np.float32)
    if "generated" in poolings:
        found["generated"] = total / fed
    if "last_fed" in poolings:
        found["last_fed"] = np.where(np.isnan(fed), np.nan, last)
    if "all" in poolings:
        whole = counts[:, _PROMPT] + count
        found["all"] = (sums[:, :, _PROMPT] + total) / whole[None, :, None]
    return found
