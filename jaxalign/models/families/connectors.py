"""Connectors: from the states of an image's patches to vectors that a language model reads."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models.families import attention, base, layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """Hyperparameters of `Projection`."""

    inputs: int  # of a token: of all patches of a group
    outputs: int
    depth: int = 1  # linear maps; between two there is the activation
    activation: str = "gelu"  # of `layers.ACTIVATIONS`
    bias: bool = True
    group: int = 1  # patches along each side of a square that becomes one token
    columns: int = 0  # of patches in an image, where there are such groups
    init_sd: float = 0.02


class Projection(nnx.Module):
    """Each patch or square of patches by itself: one linear map, or two with an activation."""

    def __init__(self, config: ProjectionConfig, *, dtype, rngs: nnx.Rngs):
        """Draw the weights."""
        c, init = config, layers.Init(config.init_sd, dtype, rngs)
        linear = lambda i, logical: layers.Linear(i, c.outputs, logical, init, bias=c.bias)
        self.first = linear(c.inputs, (None, "embed"))
        self.second = linear(c.outputs, ("embed", None)) if c.depth == 2 else None
        self.config = config

    def __call__(self, x_BSD: Float[Array, "B S D"]) -> Float[Array, "B n E"]:
        """Apply."""
        x_BSD = self.first(self._grouped(x_BSD))
        if self.second is None:
            return x_BSD
        return self.second(layers.ACTIVATIONS[self.config.activation](x_BSD))

    def _grouped(self, x_BSD):
        """Put the states of a square's patches one after the other, row by row."""
        c = self.config
        if c.group == 1:
            return x_BSD
        (B, S, D), m = x_BSD.shape, c.group
        x = x_BSD.reshape(B, S // c.columns // m, m, c.columns // m, m, D)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, S // m**2, m * m * D)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolingConfig:
    """Hyperparameters of `Pooling`."""

    inputs: int  # of a patch
    outputs: int
    group: int  # patches along each side of a square that becomes one token
    columns: int  # of patches in an image
    norm_eps: float
    init_sd: float = 0.02


class Pooling(nnx.Module):
    """The mean of each square of patches, normed, through one linear map.

    Source: Gemma Team (2025), arXiv 2503.19786, section 2.1.
    """

    def __init__(self, config: PoolingConfig, *, dtype, rngs: nnx.Rngs):
        """Draw the weights; those of the map, which transformers begins at zero, too."""
        c, init = config, layers.Init(config.init_sd, dtype, rngs)
        self.norm = layers.RMSNorm(c.inputs, c.norm_eps, dtype, centred=True)
        self.project = layers.Linear(c.inputs, c.outputs, (None, "embed"), init, bias=False)
        self.config = config

    def __call__(self, x_BSD: Float[Array, "B S D"]) -> Float[Array, "B n E"]:
        """Apply."""
        (B, S, D), m, columns = x_BSD.shape, self.config.group, self.config.columns
        x = x_BSD.reshape(B, S // columns // m, m, columns // m, m, D)
        pooled = x.astype(jnp.float32).mean(axis=(2, 4)).astype(x_BSD.dtype)
        return self.project(self.norm(pooled.reshape(B, S // m**2, D)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class QFormerConfig:
    """Hyperparameters of `QFormer`."""

    num_queries: int
    num_layers: int
    width: int
    num_heads: int
    mlp_size: int
    memory_width: int  # of the states of patches
    cross_every: int  # layers from one that attends to the image to the next; the first one does
    outputs: int  # width of the language model
    norm_eps: float
    activation: str = "gelu"  # of `layers.ACTIVATIONS`
    # Of the instruction that the queries read beside the image; 0: they read none.
    vocab_size: int = 0
    max_length: int = 0
    padding_token: int = -1  # its row of the embedding begins at zero; -1: none
    init_sd: float = 0.02

    @property
    def reads_text(self) -> bool:
        """Whether the queries read an instruction."""
        return self.vocab_size > 0


class _Attention(nnx.Module):
    """Attention, the residual sum and its norm."""

    def __init__(self, config: QFormerConfig, memory_width: int, init: layers.Init):
        D = config.width
        linear = lambda i, logical: layers.Linear(i, D, logical, init, bias=True)
        self.query = linear(D, ("embed", "heads"))
        self.key = linear(memory_width, ("embed", "heads"))
        self.value = linear(memory_width, ("embed", "heads"))
        self.out = linear(D, ("heads", "embed"))
        self.norm = layers.LayerNorm(D, config.norm_eps, init.dtype)
        self.num_heads = config.num_heads

    def __call__(self, x_BTD: Array, memory_bSM: Array, visible: Bool[Array, "#B 1 S"]) -> Array:
        """Apply; each row of the memory is for as many neighbouring rows of `x_BTD`."""
        split = lambda x: attention.split_heads(x, self.num_heads)
        q, k, v = self.query(x_BTD), self.key(memory_bSM), self.value(memory_bSM)
        k, v = (jnp.repeat(part, len(q) // len(part), axis=0) for part in (k, v))
        logits = attention.Logits(scale=(q.shape[-1] // self.num_heads) ** -0.5)
        attended = attention.attend(split(q), split(k), split(v), visible, logits)
        return self.norm(x_BTD + self.out(attended))


class _MLP(nnx.Module):
    """A layer's MLP, the residual sum and its norm."""

    def __init__(self, config: QFormerConfig, init: layers.Init):
        D, F = config.width, config.mlp_size
        self.inner = layers.Linear(D, F, ("embed", "mlp"), init, bias=True)
        self.outer = layers.Linear(F, D, ("mlp", "embed"), init, bias=True)
        self.norm = layers.LayerNorm(D, config.norm_eps, init.dtype)
        self.activation = config.activation

    def __call__(self, x_BTD: Array) -> Array:
        inner = layers.ACTIVATIONS[self.activation](self.inner(x_BTD))
        return self.norm(x_BTD + self.outer(inner))


class _QFormerBlock(nnx.Module):
    """What every layer has: attention among queries and text, and an MLP for each of the two."""

    def __init__(self, config: QFormerConfig, init: layers.Init):
        self.attention = _Attention(config, config.width, init)
        self.query_mlp = _MLP(config, init)
        self.text_mlp = _MLP(config, init) if config.reads_text else None


class QFormer(nnx.Module):
    """Queries that gather from an image what a language model is to read of it.

    They attend to each other, and with them to the tokens of an instruction if there is one; in
    some layers they alone attend to the image. Norms stand after the residual sums.

    Source: Li et al. (2023), arXiv 2301.12597, section 3.1; Dai et al. (2023), arXiv 2305.06500,
    section 2.3.
    """

    def __init__(self, config: QFormerConfig, *, dtype, rngs: nnx.Rngs):
        """Draw the weights; the queries, which transformers begins at zero, too."""
        c, init = config, layers.Init(config.init_sd, dtype, rngs)
        D = c.width
        self.queries = nnx.Param(init.draw(1, c.num_queries, D), logical=(None, None, "embed"))
        table = lambda rows, name: layers.Embedding(rows, D, name, init) if c.reads_text else None
        self.words = table(c.vocab_size, "vocab")
        if c.reads_text and c.padding_token >= 0:
            self.words.table[...] = self.words.table[...].at[c.padding_token].set(0)
        self.positions = table(c.max_length, "positions")
        self.norm = layers.LayerNorm(D, c.norm_eps, dtype)
        self.blocks = init.stack(c.num_layers, lambda init: _QFormerBlock(c, init))
        self.crosses = init.stack(
            c.num_layers // c.cross_every, lambda init: _Attention(c, c.memory_width, init)
        )
        self.project = layers.Linear(D, c.outputs, ("embed", None), init, bias=True)
        self.config = config

    def __call__(
        self,
        memory_BSM: Float[Array, "B S M"],
        tokens: Int[Array, "R T"] | None = None,
        mask: Bool[Array, "R T"] | None = None,
        *,
        keep: base.Keep,
    ) -> tuple[Float[Array, "R n E"], dict[str, Array]]:
        """Return vectors for the language model, and what is kept of each layer.

        Args:
          memory_BSM: states of the patches of each image.
          tokens: of the instructions, where they are read: as many neighbouring rows for each
            image, padded on the right.
          mask: False for padding.
          keep: of the layers' states, [R n+T D], queries first.

        Raises:
          ValueError: if an instruction is missing, or given where none is read, or too long.
        """
        c = self.config
        if (tokens is None) == c.reads_text:
            raise ValueError("instructions must be given where the queries read them, and only so.")
        x = jnp.broadcast_to(self.queries[...], (len(memory_BSM), c.num_queries, c.width))
        seen = jnp.ones(x.shape[:2], bool)
        if c.reads_text:
            rows, length = tokens.shape
            if length > c.max_length:
                raise ValueError(f"instructions must have at most {c.max_length} tokens: {length}.")
            text = self.words(tokens) + self.positions(jnp.arange(length))[None]
            repeat = lambda part: jnp.repeat(part, rows // len(memory_BSM), axis=0)
            x = jnp.concatenate([repeat(x), text], axis=1)
            seen = jnp.concatenate([repeat(seen), mask], axis=1)
        x = first = self.norm(x)
        visible, all_patches = seen[:, None], jnp.ones((1, 1, memory_BSM.shape[1]), bool)

        def group(x, blocks_and_cross):
            blocks, cross = blocks_and_cross
            some = lambda i: jax.tree.map(lambda p: p[i], blocks)
            kept = []
            for i in range(c.cross_every):
                x = self._layer(
                    x, some(i), cross if i == 0 else None, visible, (memory_BSM, all_patches)
                )
                kept.append(keep.of_block(x, x, x))
            return x, jax.tree.map(lambda *parts: jnp.stack(parts), *kept)

        grouped = lambda p: p.reshape(-1, c.cross_every, *p.shape[1:])
        blocks = jax.tree.map(grouped, self.blocks)
        x, kept = jax.lax.scan(group, x, (blocks, self.crosses))
        kept = jax.tree.map(lambda p: p.reshape(-1, *p.shape[2:]), kept)
        return self.project(x[:, : c.num_queries]), keep.with_first(kept, first)

    def _layer(self, x, block: _QFormerBlock, cross: _Attention | None, visible, image):
        x = block.attention(x, x, visible)
        queries, text = x[:, : self.config.num_queries], x[:, self.config.num_queries :]
        if cross is not None:
            queries = cross(queries, *image)
        parts = [block.query_mlp(queries)]
        if block.text_mlp is not None:
            parts.append(block.text_mlp(text))
        return jnp.concatenate(parts, axis=1)
