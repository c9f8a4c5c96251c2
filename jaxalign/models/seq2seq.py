"""T5 as it was trained: the encoder reads one text, and the decoder writes another.

`read` returns the decoder together with what the encoder has read. It is a causal network like any
other (`models.log_probs` and `models.generate` take it), whose texts begin with the start token.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models.families import base, encoder_decoder

# There is no last relative position: answers may be longer than the texts of training.
_ENDLESS = 2**31 - 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoder:
    """The decoder of a network whose encoder has read a text; see `base.Network`.

    Attributes:
      network: both stacks; None while programs hand on what was read, who would copy its weights.
      keys, values: of the text that was read, for the attention of each block of the decoder.
      mask: False for padding of that text.
      taps: what was asked for of the encoder's layers.
    """

    network: nnx.Module | None
    keys: Float[Array, "L B S N H"]
    values: Float[Array, "L B S N H"]
    mask: Bool[Array, "B S"]
    taps: dict[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> encoder_decoder.Config:
        """The network's configuration, without a longest row."""
        return dataclasses.replace(self.network.config, max_length=_ENDLESS)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        *,
        taps: tuple[str, ...] = (),
        pool: base.Pool | None = None,
        cache: base.Cache | None = None,
    ) -> base.Output:
        """Run the decoder over tokens that begin, or whose cache begins, with the start token.

        Its layers are the decoder's alone: the embedding first, the normed state last. "attention"
        is that of the decoder to itself, as in `encoder_decoder.Network`.

        Raises:
          ValueError: if a tap is unknown.
        """
        keep = base.Keep(taps, pool)
        cached = cache is not None
        cache = cache if cached else self.empty_cache(*tokens.shape)
        positions = cache.next_position() + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        slot = cache.length
        cache = cache.extend(positions, mask)
        distance = cache.positions[:, None, :] - positions[:, :, None]  # [B T S]
        visible = (distance <= 0) & cache.mask[:, None]
        decoder = self.network.decoder
        bias = decoder.bias(distance)

        def step(x_BTD, layer):
            block, stored, read = layer
            normed = block.attention_norm(x_BTD)
            stored = tuple(
                jax.lax.dynamic_update_slice(old, new.astype(old.dtype), (0, slot, 0, 0))
                for old, new in zip(stored, block.attention.project(normed), strict=True)
            )
            attended = block.attention.attend(normed, *stored, visible, bias=bias)
            x_BTD = x_BTD + attended
            x_BTD = x_BTD + block.cross.attend(block.cross_norm(x_BTD), *read, self.mask[:, None])
            mlp = block.mlp(x_BTD)
            return x_BTD + mlp, (stored, keep.of_block(x_BTD + mlp, attended, mlp))

        stored, read = (cache.keys, cache.values), (self.keys, self.values)
        layers = decoder.blocks, stored, read
        embedded = self.network.words(tokens)
        x_BTD, ((keys, values), kept) = jax.lax.scan(step, embedded, layers)
        cache = dataclasses.replace(cache, keys=keys, values=values) if cached else None
        x_BTD = decoder.final_norm(x_BTD)
        kept = keep.with_first(keep.with_last(kept, x_BTD), embedded)
        return base.Output(kept, cache, final=x_BTD)

    def logits(self, final: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Predict the next token from `base.Output.final`."""
        return self.network.logits(final)

    def empty_cache(self, batch: int, length: int) -> base.Cache:
        """Return a cache of `length` slots for `batch` rows."""
        c = self.network.config
        shape = (c.num_decoder_layers, batch, length, c.num_heads, c.head_size)
        return base.Cache.empty(shape, self.keys.dtype)


def read(
    network: nnx.Module,
    tokens: Int[Array, "B S"] | base.Merged,
    mask: Bool[Array, "B S"],
    *,
    taps: tuple[str, ...] = (),
    pool: base.Pool | None = None,
) -> Decoder:
    """Let the encoder read texts, and return the decoder that answers them.

    Call it inside the `jit` of what is done with the decoder.

    Args:
      network: a T5 with both stacks.
      tokens: of each text, with the end token that it was trained with; or vectors in their place.
      mask: False for padding.
      taps: what to return of each layer of the encoder; see `base.Network`.
      pool: of what is returned.

    Raises:
      ValueError: if there is no decoder, or a tap is unknown.
    """
    if network.config.text == "encoder":
        raise ValueError("network must have a decoder: t5_text must not be 'encoder'.")
    keep = base.Keep(taps, pool)
    embedded = tokens.vectors if isinstance(tokens, base.Merged) else network.words(tokens)
    memory_BSD, kept = network.encoder(embedded, mask, (), keep)
    project = lambda _, block: (None, block.cross.project(memory_BSD))
    _, (keys, values) = jax.lax.scan(project, None, network.decoder.blocks)
    return Decoder(network, keys, values, mask, keep.with_first(kept, embedded))


class Read(NamedTuple):
    """Texts for the encoder."""

    tokens: Int[Array, "B S"]
    mask: Bool[Array, "B S"]


def over_answers(
    network: nnx.Module, read: Read, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Return what the decoder predicts from, at each token of answers that are known as a whole.

    It is `base.Output.final` of `read(...)` and of a pass over the same tokens, without a cache.

    Args:
      network: as of `read`.
      read: what the encoder reads.
      tokens: of the answers, behind the start token.
      mask: False for padding.

    Raises:
      ValueError: if there is no decoder.
    """
    if network.config.text == "encoder":
        raise ValueError("network must have a decoder: t5_text must not be 'encoder'.")
    nothing = base.Keep((), None)
    memory_BSD, _ = network.encoder(network.words(read.tokens), read.mask, (), nothing)
    final, _ = network.decoder(network.words(tokens), mask, (memory_BSD, read.mask), nothing)
    return final
