"""The encoder-decoder: RMS norms, relative positions, attention without scaling.

A text can reach the two stacks in three ways, and published scores differ in which was used, so it
is a setting (`Config.text`) that every result depends on:

- "both": the encoder reads the text, and the decoder reads the same text behind its start token,
  attending to the encoder's last layer. Layers: embedding, encoder, decoder, as Aw et al. (2023,
  arXiv 2312.00575) count them. They do not say how text reached the decoder; this is the way on
  which every layer of both stacks has a state for every token.
- "encoder": the encoder reads the text; the decoder is neither run nor loaded. Layers: embedding,
  encoder, those of Schrimpf et al. (2021, doi 10.1073/pnas.2105646118) and its Brain-Score entries.
- "decoder": the encoder reads nothing but its end token; the decoder reads the text behind its
  start token. The one way that is causal. Layers: embedding, decoder.

The decoder's state for a token is the one at the position where the decoder reads that token (its
logits predict the next one); the start token's state is not returned.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.errors import InputError
from jaxalign.models.families import attention, base, layers

TEXTS = ("both", "encoder", "decoder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Hyperparameters."""

    final_norm_applied: ClassVar[bool] = True

    vocab_size: int
    num_encoder_layers: int
    num_decoder_layers: int
    width: int
    num_heads: int
    head_size: int
    mlp_size: int
    activation: str  # of `layers.ACTIVATIONS`
    gated: bool
    num_buckets: int  # of relative positions
    max_distance: int  # from which on all are in one bucket
    max_length: int  # the length of training; nothing in the network ends there
    norm_eps: float
    init_factor: float
    tied_embeddings: bool
    scaled_logits: bool  # by width^-0.5, which T5 v1.0 does
    start_token: int
    end_token: int
    headless: bool = False  # no logits: the checkpoint predicts no tokens
    text: str = "both"  # of `TEXTS`; see the module

    def __post_init__(self):
        if self.text not in TEXTS:
            raise InputError(f"t5_text must be one of {', '.join(TEXTS)}, got {self.text!r}.")

    @property
    def num_layers(self) -> int:
        """Blocks that a token passes through, of both stacks."""
        return len(self.layer_names) - 1

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Return what each residual layer is; the last of either stack has passed its norm."""
        names = ["embedding"]
        if self.text != "decoder":
            names += [f"encoder.{i + 1}" for i in range(self.num_encoder_layers)]
        if self.text != "encoder":
            names += [f"decoder.{i + 1}" for i in range(self.num_decoder_layers)]
        return tuple(names)

    @property
    def causal(self) -> bool:
        """Whether a token's states depend on no later token."""
        return self.text == "decoder"

    @property
    def predicts(self) -> bool:
        """Whether the network predicts tokens."""
        return self.text != "encoder" and not self.headless


def buckets(
    distance: Int[Array, "..."], *, bidirectional: bool, num_buckets: int, max_distance: int
) -> Int[Array, "..."]:
    """Sort relative positions into buckets: one per small distance, then ever wider ones.

    Args:
      distance: position of the key minus position of the query.
      bidirectional: whether keys ahead have their own buckets, the second half; else they are
        counted as distance 0 (a causal mask hides them).
      num_buckets: of all.
      max_distance: from which on all are in the last bucket.

    Source: Raffel et al. (2020), section 2.1, and Mesh TensorFlow's
      `transformer_layers.py`, `_relative_position_bucket`.
    """
    ahead = jnp.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        ahead = (distance > 0) * num_buckets
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    # On the host and in float32, as everywhere else: where a logarithm lands on a whole number,
    # an accelerator's last bit would decide the bucket.
    num_exact = num_buckets // 2
    table = np.arange(max_distance + 1)
    ratio = np.log(table[num_exact:].astype(np.float32) / np.float32(num_exact))
    ratio /= np.float32(math.log(max_distance / num_exact))
    wide = num_exact + (ratio * np.float32(num_buckets - num_exact)).astype(np.int32)
    table[num_exact:] = np.minimum(wide, num_buckets - 1)
    return ahead + jnp.asarray(table, jnp.int32)[jnp.minimum(distance, max_distance)]


class Attention(nnx.Module):
    """Attention whose logits are not divided by the root of the head size."""

    def __init__(self, config: Config, init: layers.Init):
        """Draw the weights; the queries' deviation makes up for the missing division."""
        D, inner = config.width, config.num_heads * config.head_size
        linear = lambda i, o, logical, sd: layers.Linear(
            i, o, logical, init._replace(sd=init.sd * sd), bias=False
        )
        heads, kv_heads = layers.heads(config.num_heads)
        self.query = linear(D, inner, ("embed", heads), (D * config.head_size) ** -0.5)
        self.key = linear(D, inner, ("embed", kv_heads), D**-0.5)
        self.value = linear(D, inner, ("embed", kv_heads), D**-0.5)
        self.out = linear(inner, D, (heads, "embed"), inner**-0.5)
        self.num_heads = config.num_heads

    def __call__(self, x_BTD: Array, memory_BSD: Array, mask: Bool[Array, "B S"], **how) -> Array:
        """Attend to states that have not been projected; see `attend`."""
        return self.attend(x_BTD, *self.project(memory_BSD), mask[:, None], **how)

    def project(self, memory_BSD: Array) -> tuple[Array, Array]:
        """Return keys and values, [B S N H]."""
        return tuple(
            attention.split_heads(part(memory_BSD), self.num_heads)
            for part in (self.key, self.value)
        )

    def attend(
        self,
        x_BTD: Array,
        k: Array,
        v: Array,
        visible: Bool[Array, "B t S"],
        *,
        bias: Float[Array, "b N T S"] | None = None,
        causal: bool = False,
    ) -> Array:
        """Attend to visible keys and values of `project`; t is T, or 1 where no query differs."""
        attended = jax.nn.dot_product_attention(
            attention.split_heads(self.query(x_BTD), self.num_heads),
            k,
            v,
            bias=bias,
            mask=visible[:, None],
            scale=1.0,
            is_causal=causal,
            implementation="xla",
        )
        return self.out(attended.reshape(*x_BTD.shape[:2], -1))


class Block(nnx.Module):
    """Self-attention, in a decoder attention to the encoder, and an MLP, each behind a norm."""

    def __init__(self, config: Config, init: layers.Init, *, decoder: bool):
        """Draw the weights."""
        D, F = config.width, config.mlp_size
        norm = lambda: _norm(config, init)
        linear = lambda i, o, logical: layers.Linear(
            i, o, logical, init._replace(sd=init.sd * i**-0.5), bias=False
        )
        self.attention_norm = norm()
        self.attention = Attention(config, init)
        self.cross_norm = norm() if decoder else None
        self.cross = Attention(config, init) if decoder else None
        self.mlp_norm = norm()
        if config.gated:
            self.mlp_gate = linear(D, F, ("embed", "mlp"))
            self.mlp_linear = linear(D, F, ("embed", "mlp"))
        else:
            self.mlp_in = linear(D, F, ("embed", "mlp"))
        self.mlp_out = linear(F, D, ("mlp", "embed"))
        self.activation, self.gated, self.decoder = config.activation, config.gated, decoder

    def __call__(self, x_BTD: Array, mask: Array, bias: Array, memory: tuple) -> tuple:
        """Apply; return the residual stream, and what attention and MLP have added to it."""
        normed = self.attention_norm(x_BTD)
        attended = self.attention(normed, normed, mask, bias=bias, causal=self.decoder)
        x_BTD = x_BTD + attended
        if self.decoder:
            x_BTD = x_BTD + self.cross(self.cross_norm(x_BTD), *memory)
        mlp = self.mlp(x_BTD)
        return x_BTD + mlp, attended, mlp

    def mlp(self, x_BTD: Array) -> Array:
        """Return what the MLP, behind its norm, adds."""
        normed = self.mlp_norm(x_BTD)
        activation = layers.ACTIVATIONS[self.activation]
        if self.gated:
            middle = activation(self.mlp_gate(normed)) * self.mlp_linear(normed)
        else:
            middle = activation(self.mlp_in(normed))
        return self.mlp_out(middle)


class Stack(nnx.Module):
    """The blocks of the encoder or of the decoder, their relative positions, and a norm."""

    kept_for_gradients = "all"  # of each block; see `base.keep_for_gradients`

    def __init__(self, config: Config, init: layers.Init, *, decoder: bool):
        """Draw the weights."""
        count = config.num_decoder_layers if decoder else config.num_encoder_layers
        self.blocks = init.stack(count, lambda init: Block(config, init, decoder=decoder))
        self.distances = layers.Embedding(
            config.num_buckets,
            config.num_heads,
            "buckets",
            init._replace(sd=init.sd * config.width**-0.5),
        )
        # The embedding's second axis is that of the heads here.
        heads, _ = layers.heads(config.num_heads)
        self.distances.table.set_metadata("logical", ("buckets", heads))
        self.final_norm = _norm(config, init)
        self.config, self.decoder = config, decoder

    def __call__(
        self, x_BTD: Array, mask: Bool[Array, "B T"], memory: tuple, keep: base.Keep
    ) -> tuple[Array, dict[str, Array]]:
        """Run all blocks; return the normed last state, and what is kept of each block.

        Args:
          x_BTD: embedded tokens.
          mask: False for padding.
          memory: states of the encoder and their mask, for a decoder; else empty.
          keep: which taps, and how they are pooled.
        """
        positions = jnp.arange(x_BTD.shape[1])
        bias = self.bias(positions[None, None, :] - positions[None, :, None])

        def step(x, block):
            x, attended, mlp = block(x, mask, bias, memory)
            return x, keep.of_block(x, attended, mlp)

        step = base.rematerialised(step, self.kept_for_gradients)
        x_BTD, kept = jax.lax.scan(step, x_BTD, self.blocks)
        x_BTD = self.final_norm(x_BTD)
        return x_BTD, keep.with_last(kept, x_BTD)

    def bias(self, distance: Int[Array, "b T S"]) -> Float[Array, "b N T S"]:
        """Return what each head adds to its logits for positions of keys relative to queries."""
        bucket = buckets(
            distance,
            bidirectional=not self.decoder,
            num_buckets=self.config.num_buckets,
            max_distance=self.config.max_distance,
        )
        return self.distances(bucket).transpose(0, 3, 1, 2)


class Network(nnx.Module):
    """Embedding, encoder, decoder, and the head that predicts the next token."""

    def __init__(self, config: Config, *, dtype, rngs: nnx.Rngs):
        """Draw weights as Hugging Face does: normal, with deviations that follow from shapes."""
        init = layers.Init(config.init_factor, dtype, rngs)
        D, V = config.width, config.vocab_size
        self.words = layers.Embedding(V, D, "vocab", init)
        self.encoder = Stack(config, init, decoder=False)
        self.decoder = None if config.text == "encoder" else Stack(config, init, decoder=True)
        has_head = config.predicts and not config.tied_embeddings
        self.head = layers.Linear(D, V, ("embed", "vocab"), init, bias=False) if has_head else None
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        *,
        taps: Sequence[str] = ("residual",),
        pool: base.Pool | None = None,
    ) -> base.Output:
        """Run all layers; see `base.Network` and the module.

        "attention" is the attention of a stack to itself. What a decoder's attention to the encoder
        adds is the rest of the difference between two layers.

        Raises:
          ValueError: if a tap is unknown.
        """
        keep, nothing = base.Keep(taps, pool), base.Keep((), None)
        embedded = self.words(tokens)
        if self.config.text == "decoder":
            end = self.words(jnp.full((1, 1), self.config.end_token))
            whole = jnp.ones((1, 1), bool)
            read, _ = self.encoder(end, whole, (), nothing)
            batch = tokens.shape[0]
            memory = read.repeat(batch, axis=0), whole.repeat(batch, axis=0)
            stacks = []
        else:
            read, kept = self.encoder(embedded, mask, (), keep)
            memory, stacks = (read, mask), [kept]
        final = None
        if self.decoder is not None:
            final, kept = self._decode(embedded, mask, memory, keep)
            stacks.append(kept)
        kept = jax.tree.map(lambda *layers: jnp.concatenate(layers), *stacks)
        return base.Output(keep.with_first(kept, embedded), final=final)

    def embed_words(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Return the vector of each token; see `base.Merged`."""
        return self.words(tokens)

    def _decode(self, embedded, mask, memory: tuple, keep: base.Keep) -> tuple:
        """Run the decoder over the start token and the text; drop the start token's states."""
        batch = embedded.shape[0]
        start = self.words(jnp.full((batch, 1), self.config.start_token))
        x_BTD, kept = self.decoder(
            jnp.concatenate([start, embedded], axis=1),
            jnp.concatenate([jnp.ones((batch, 1), bool), mask], axis=1),
            memory,
            base.Keep(keep.taps, lambda x: keep.pool(x[:, 1:])),
        )
        return x_BTD[:, 1:], kept

    def logits(self, x_BTD: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Predict the next token from `base.Output.final`.

        Raises:
          ValueError: if the network has no head.
        """
        if self.config.headless:
            raise ValueError("a network without a head has no logits.")
        if self.config.scaled_logits:
            x_BTD = x_BTD * self.config.width**-0.5
        return x_BTD @ self.words.table[...].T if self.head is None else self.head(x_BTD)


def _norm(config: Config, init: layers.Init) -> layers.RMSNorm:
    norm = layers.RMSNorm(config.width, config.norm_eps, init.dtype)
    norm.scale[...] = norm.scale[...] * config.init_factor
    return norm
