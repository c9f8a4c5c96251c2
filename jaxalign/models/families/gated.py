"""The decoder of IDEFICS: LLaMA's, with gated layers between its blocks that attend to images.

A gated layer stands before every n-th block. It attends to vectors of the image, which have no
positions, and adds what it finds times tanh of a parameter, and then an MLP times tanh of another.
What is attended is zero for tokens before the image; the MLP has no such mask.

Layer 0 is what the first block receives, behind the first gated layer, as in transformers.

Source: Alayrac et al. (2022), arXiv 2204.14198, section 2.2; Laurençon et al. (2023), arXiv
2306.16527; transformers 5.24, `modeling_idefics.py`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models.families import attention, base, decoder, layers, llama
from jaxalign.models.weights import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(decoder.Config):
    """Hyperparameters.

    Attributes:
      num_more_words: tokens after those of the vocabulary, whose rows are stored apart.
      gate_every: blocks from one gated layer to the next.
      image_width: units of the vectors of an image.
      image_token: from which on tokens attend to the image.
      gate_per_unit: whether each unit has a gate, or all have one.
      gate_start: where the gates' parameters begin.
      gate_sd: standard deviation around it.
      gated_qk_norm: whether queries and keys of gated layers are normed.
    """

    num_more_words: int
    gate_every: int
    image_width: int
    image_token: int
    gate_per_unit: bool
    gate_start: float = 0.0
    gate_sd: float = 0.0
    gated_qk_norm: bool = False


class _GatedLayer(nnx.Module):
    """Attention to the image and an MLP, each times its gate."""

    def __init__(self, config: Config, init: layers.Init):
        c, D, F = config, config.width, config.mlp_size
        linear = lambda i, o, logical: layers.Linear(i, o, logical, init, bias=False)
        norm = lambda size: layers.RMSNorm(size, c.norm_eps, init.dtype)
        inner = c.num_heads * c.head_size
        self.attention_norm, self.mlp_norm = norm(D), norm(D)
        self.query = linear(D, inner, ("embed", "heads"))
        self.key = linear(c.image_width, inner, (None, "heads"))
        self.value = linear(c.image_width, inner, (None, "heads"))
        self.out = linear(inner, D, ("heads", "embed"))
        self.query_norm = norm(c.head_size) if c.gated_qk_norm else None
        self.key_norm = norm(c.head_size) if c.gated_qk_norm else None
        self.mlp_gate = linear(D, F, ("embed", "mlp"))
        self.mlp_in = linear(D, F, ("embed", "mlp"))
        self.mlp_out = linear(F, D, ("mlp", "embed"))
        shape = (1, 1, D) if c.gate_per_unit else (1,)
        start = init._replace(sd=c.gate_sd)
        gate = lambda: nnx.Param(start.draw(*shape) + c.gate_start, logical=(None,) * len(shape))
        self.attended_by, self.mlp_by = gate(), gate()
        self.config = config

    def project(self, image_BSM: Array) -> tuple[Array, Array]:
        """Return keys and values of an image, [B S N H]."""
        split = lambda x: attention.split_heads(x, self.config.num_heads)
        keys, values = split(self.key(image_BSM)), split(self.value(image_BSM))
        return (keys if self.key_norm is None else self.key_norm(keys)), values

    def __call__(self, x_BTD: Array, image: base.Image) -> Array:
        c = self.config
        q = attention.split_heads(self.query(self.attention_norm(x_BTD)), c.num_heads)
        if self.query_norm is not None:
            q = self.query_norm(q)
        # Rows of several instructions share an image.
        k, v = (jnp.repeat(x, len(q) // len(x), axis=0) for x in (image.keys, image.values))
        visible = jnp.ones((1, 1, k.shape[1]), bool)
        attended = attention.attend(q, k, v, visible, attention.Logits(scale=c.head_size**-0.5))
        attended = jnp.where(image.seen[..., None], self.out(attended), 0)
        x_BTD = x_BTD + self._gate(self.attended_by) * attended
        normed = self.mlp_norm(x_BTD)
        inner = layers.ACTIVATIONS[c.activation](self.mlp_gate(normed)) * self.mlp_in(normed)
        return x_BTD + self._gate(self.mlp_by) * self.mlp_out(inner)

    def _gate(self, parameter: nnx.Param) -> Array:
        return jnp.tanh(parameter[...]).reshape(1, 1, -1)


class Network(decoder.Network):
    """The decoder and its gated layers; a text without an image passes with all gates shut."""

    def __init__(self, config: Config, *, dtype, rngs: nnx.Rngs):
        """Draw the weights."""
        super().__init__(config, dtype=dtype, rngs=rngs)
        c, init = config, layers.Init(config.init_sd, dtype, rngs)
        more = c.num_more_words
        self.more_words = layers.Embedding(more, c.width, "more_words", init) if more else None
        make = lambda: layers.Linear(c.width, more, ("embed", None), init, bias=False)
        self.more_head = make() if more and self.head is not None else None
        gated = c.num_layers // c.gate_every
        self.gated = init.stack(gated, lambda init: _GatedLayer(c, init))

    def embed_words(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Return the vector of each token; see `decoder.Network.embed_words`."""
        size = self.config.vocab_size
        words = self.words(jnp.clip(tokens, 0, size - 1))
        if self.more_words is None:
            return words
        more = self.more_words(jnp.clip(tokens - size, 0, self.config.num_more_words - 1))
        return jnp.where((tokens >= size)[..., None], more, words)

    def logits(self, final: Float[Array, "... D"]) -> Float[Array, "... W"]:
        """Predict the next token, of the vocabulary and of the tokens after it, in float32."""
        logits = super().logits(final)
        if self.more_words is None:
            return logits
        kernel = self.more_words.table[...].T
        if self.more_head is not None:
            kernel = self.more_head.kernel[...]
        more = jnp.einsum("...D,DW->...W", final, kernel, preferred_element_type=jnp.float32)
        return jnp.concatenate([logits, more], axis=-1)

    def project(self, image_BSM: Float[Array, "B S M"]) -> tuple[Array, Array]:
        """Return keys and values of images for all gated layers, [G B S N H]."""
        step = lambda _, layer: (None, layer.project(image_BSM))
        return jax.lax.scan(step, None, self.gated)[1]

    def _received(self, embedded, context):
        """Pass the first gated layer, once more than the blocks do: a small part of a pass."""
        image = self._image(embedded, context)
        gated, keys, values = jax.tree.map(lambda x: x[0], (self.gated, image.keys, image.values))
        return gated(embedded, image._replace(keys=keys, values=values))

    def _image(self, x_BTD, context) -> base.Image:
        """Return what gated layers attend to: nothing, where a text has no image."""
        if context.image is not None:
            return context.image
        c, (B, T) = self.config, x_BTD.shape[:2]
        shape = (c.num_layers // c.gate_every, B, 1, c.num_heads, c.head_size)
        nothing = jnp.zeros(shape, x_BTD.dtype)
        return base.Image(nothing, nothing, jnp.zeros((B, T), bool))

    def _through(self, carry, context, keep: base.Keep):
        every, image = self.config.gate_every, self._image(carry[0], context)

        def group(carry, parts):
            gated, keys, values, blocks, numbers = parts
            x = gated(carry[0], image._replace(keys=keys, values=values))
            return self._scan((x, carry[1]), (blocks, numbers), context, keep)

        grouped = lambda x: x.reshape(-1, every, *x.shape[1:])
        blocks, numbers = jax.tree.map(grouped, (self.blocks, self._layers()))
        parts = (self.gated, image.keys, image.values, blocks, numbers)
        carry, kept = jax.lax.scan(group, carry, parts)
        return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reader:
    """A network that reads texts about images: a causal network; see `decoder.Network`.

    Attributes:
      network: the decoder; see `seq2seq.Decoder`.
      keys, values: of the images, for all gated layers; of as many neighbouring rows each.
    """

    network: Network | None
    keys: Float[Array, "G B S N H"]
    values: Float[Array, "G B S N H"]

    @property
    def config(self) -> Config:
        """The network's configuration."""
        return self.network.config

    def __call__(
        self, tokens: Int[Array, "R T"], mask: Bool[Array, "R T"], **options: Any
    ) -> base.Output:
        """Run the decoder; tokens from the image's on attend to it, and all that continue a cache.

        Args:
          tokens: with the image's token, or after it.
          mask: False for padding.
          options: of `decoder.Network`.
        """
        seen = jnp.cumsum(tokens == self.config.image_token, axis=1) > 0
        if options.get("cache") is not None:
            _, known = options["cache"].slots()
            seen = seen | known.any(axis=1, keepdims=True)
        image = base.Image(self.keys, self.values, seen)
        merged = base.Merged(self.network.embed_words(tokens), image=image)
        return self.network(merged, mask, **options)

    def logits(self, final: Float[Array, "... D"]) -> Float[Array, "... W"]:
        """Predict the next token."""
        return self.network.logits(final)

    def empty_cache(self, batch: int, length: int) -> base.Cache:
        """Return a cache of the decoder's."""
        return self.network.empty_cache(batch, length)


def _tensors(config: Config) -> dict[str, Tensor]:
    """Name the tensors: those of LLaMA, and of what stands between its blocks."""
    of_llama = dict(llama.FAMILIES["llama"].tensors(config))
    layer = "gated_cross_attn_layers.{layer}."
    maps = {
        "query": "cross_attn.q_proj",
        "key": "cross_attn.k_proj",
        "value": "cross_attn.v_proj",
        "out": "cross_attn.o_proj",
        "mlp_gate": "mlp.gate_proj",
        "mlp_in": "mlp.up_proj",
        "mlp_out": "mlp.down_proj",
    }
    norms = {
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "query_norm": "cross_attn.q_layer_norm",
        "key_norm": "cross_attn.k_layer_norm",
    }
    gates = {"attended_by": "alpha_cross_attn", "mlp_by": "alpha_dense"}
    return (
        of_llama
        | {
            "more_words/table": Tensor("embed_tokens.additional_embedding.weight"),
            "more_head/kernel": Tensor("lm_head.additional_fc.weight", True),
        }
        | {f"gated/{x}/kernel": Tensor(f"{layer}{y}.weight", True) for x, y in maps.items()}
        | {f"gated/{x}/scale": Tensor(f"{layer}{y}.weight") for x, y in norms.items()}
        | {f"gated/{x}": Tensor(layer + y) for x, y in gates.items()}
    )


# As a part of IDEFICS alone: `idefics` reads the configuration.
LANGUAGE = llama.FAMILIES["llama"]._replace(network=Network, tensors=_tensors)
