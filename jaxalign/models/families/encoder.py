"""The bidirectional encoder: learned positions, norms after the residual sums."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from jaxalign.models.families import attention, base, layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Hyperparameters."""

    later: ClassVar[tuple[str, ...]] = (
        *("embed_width", "num_groups", "embed_init_sd", "sinusoids"),
    )

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    mlp_size: int
    max_length: int
    first_position: int  # row of the first token's position
    num_segments: int  # 0: texts have no segments
    padding_token: int  # its row of the embedding begins at zero; -1: none
    norm_eps: float
    init_sd: float
    activation: str = "gelu"  # of `layers.ACTIVATIONS`
    embed_width: int = 0  # of the tables, if they are projected to `width`; 0: they are not
    num_groups: int = 0  # neighbouring blocks that share their parameters; 0: none do
    embed_init_sd: float = 0.0  # of the tables; 0: init_sd
    sinusoids: bool = False  # untrained positions are sines and cosines

    @property
    def times(self) -> int:
        """How often in a row each block that is stored is applied."""
        return self.num_layers // self.num_groups if self.num_groups else 1


class Block(nnx.Module):
    """Attention and MLP, each followed by a residual sum and a norm."""

    def __init__(self, config: Config, init: layers.Init):
        """Draw the weights."""
        D, F = config.width, config.mlp_size
        norm = lambda: layers.LayerNorm(D, config.norm_eps, init.dtype)
        heads, kv_heads = layers.heads(config.num_heads)
        self.query = layers.Linear(D, D, ("embed", heads), init, bias=True)
        self.key = layers.Linear(D, D, ("embed", kv_heads), init, bias=True)
        self.value = layers.Linear(D, D, ("embed", kv_heads), init, bias=True)
        self.attention_out = layers.Linear(D, D, (heads, "embed"), init, bias=True)
        self.attention_norm = norm()
        self.mlp_in = layers.Linear(D, F, ("embed", "mlp"), init, bias=True)
        self.mlp_out = layers.Linear(F, D, ("mlp", "embed"), init, bias=True)
        self.mlp_norm = norm()
        self.num_heads, self.activation = config.num_heads, config.activation

    def __call__(self, x_BTD: Array, mask: Bool[Array, "B T"]) -> tuple[Array, Array, Array]:
        """Apply; return the residual stream, and what attention and MLP have added to it."""
        q, k, v = (
            attention.split_heads(part(x_BTD), self.num_heads)
            for part in (self.query, self.key, self.value)
        )
        attended = jax.nn.dot_product_attention(
            q, k, v, mask=mask[:, None, None, :], implementation="xla"
        )
        attended = self.attention_out(attended.reshape(x_BTD.shape))
        x_BTD = self.attention_norm(x_BTD + attended)
        mlp = self.mlp_out(layers.ACTIVATIONS[self.activation](self.mlp_in(x_BTD)))
        return self.mlp_norm(x_BTD + mlp), attended, mlp


class Network(nnx.Module):
    """Embeddings and blocks."""

    def __init__(self, config: Config, *, dtype, rngs: nnx.Rngs):
        """Draw weights as Hugging Face does: normal, and zero for the padding token."""
        init = layers.Init(config.init_sd, dtype, rngs)
        D, E = config.width, config.embed_width or config.width
        tables = init._replace(sd=config.embed_init_sd or config.init_sd)
        self.words = layers.Embedding(config.vocab_size, E, "vocab", tables)
        num_positions = config.first_position + config.max_length
        self.positions = layers.Embedding(num_positions, E, "positions", tables)
        if config.sinusoids:
            pairs = layers.sinusoids(jnp.arange(num_positions)[None], E).reshape(-1, 2, E // 2)
            interleaved = pairs.swapaxes(1, 2).reshape(num_positions, E)
            self.positions.table[...] = interleaved.astype(dtype)
        if config.padding_token >= 0:
            padded = [self.words] + ([self.positions] if config.first_position else [])
            for embedding in padded:
                table = embedding.table[...]
                embedding.table[...] = table.at[config.padding_token].set(0)
        segments = lambda: layers.Embedding(config.num_segments, E, "segments", init)
        self.segments = segments() if config.num_segments else None
        self.norm = layers.LayerNorm(E, config.norm_eps, dtype)
        project = lambda: layers.Linear(E, D, (None, None), init, bias=True)
        self.project_in = project() if config.embed_width else None
        stored = config.num_groups or config.num_layers
        self.blocks = init.stack(stored, lambda init: Block(config, init))
        self.first_position, self.times = config.first_position, config.times

    def _rows_of_positions(self, tokens: Int[Array, "B T"]) -> Int[Array, "b T"]:
        """Return the row of each token's position.

        Where rows before the first position are free, a padding token within a text has the last
        of them, and those after it are counted without it.

        Source: transformers, RobertaEmbeddings.create_position_ids_from_input_ids.
        """
        if not self.first_position:
            return jnp.arange(tokens.shape[1])[None]
        padding = self.first_position - 1
        counted = tokens != padding
        return padding + jnp.cumsum(counted, axis=1) * counted

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        *,
        taps: Sequence[str] = ("residual",),
        pool: base.Pool | None = None,
    ) -> base.Output:
        """Run all layers; see `base.Network`. An encoder predicts no tokens.

        "attention" and "mlp" are what is added to the residual stream, before the norm of the sum.

        Raises:
          ValueError: if a tap is unknown.
        """
        keep = base.Keep(taps, pool)
        x_BTE = self.words(tokens) + self.positions(self._rows_of_positions(tokens))
        if self.segments is not None:
            x_BTE = x_BTE + self.segments(jnp.zeros_like(tokens))
        x_BTD = self.norm(x_BTE)
        if self.project_in is not None:
            x_BTD = self.project_in(x_BTD)

        def step(x, block):
            x, attended, mlp = block(x, mask)
            return x, keep.of_block(x, attended, mlp)

        def steps(x, block):
            return jax.lax.scan(lambda x, _: step(x, block), x, None, length=self.times)

        if self.times == 1:
            _, kept = jax.lax.scan(step, x_BTD, self.blocks)
        else:
            _, kept = jax.lax.scan(steps, x_BTD, self.blocks)
            kept = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept)
        return base.Output(keep.with_first(kept, x_BTD))
