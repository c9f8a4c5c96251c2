"""The vision towers of Qwen2-VL to Qwen3-VL, and the merger of four neighbouring patches.

Patches go in groups of `merge` x `merge` that become one token, groups row by row, and patches of a
group row by row. Their place is told by rotating queries and keys, one half of the pairs by the row
and one half by the column; Qwen3-VL adds a table of positions, stretched to the image. Images may
have any size whose sides hold whole groups.

Source: Wang et al. (2024), arXiv 2409.12191, section 2.1; Bai et al. (2025), arXiv 2502.13923,
section 2.1.1; for the states of several layers Meng et al. (2024), arXiv 2406.04334; transformers
5.24, `modeling_qwen2_vl.py`, `modeling_qwen2_5_vl.py` and `modeling_qwen3_vl.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxalign.models.families import attention, base, hf_reading, keys, layers
from jaxalign.models.families.base import Family
from jaxalign.models.families.layers import Rope
from jaxalign.models.families.vit import linear, norm
from jaxalign.models.weights import Part, Tensor

_EPS = 1e-6  # of all norms, not in the configurations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Hyperparameters of a tower; the defaults of the switches are Qwen2-VL's."""

    reads: ClassVar[str] = "images"
    vocab_size: ClassVar[int] = 0
    max_length: ClassVar[int] = 2**31 - 1  # images may have any size
    num_prefix: ClassVar[int] = 0

    num_layers: int
    width: int
    num_heads: int
    mlp_size: int
    patch_size: int
    frames: int  # of a film that one patch spans; an image is repeated
    merge: int  # patches along each side of a group
    num_channels: int = 3
    activation: str = "quick_gelu"  # of `layers.ACTIVATIONS`
    rms: bool = False  # norms of root mean square, and a gated MLP
    # Sides of windows in pixels, outside of which patches do not see; 0: there are none. And the
    # blocks without windows.
    window: int = 0
    whole_blocks: tuple[int, ...] = ()
    patch_bias: bool = False
    positions: int = 0  # along each side of a table of positions; 0: there is none
    # Blocks whose states the connector reads beside the last ones, from 0 on.
    deep_blocks: tuple[int, ...] = ()
    init_sd: float = 0.02

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return how many patches an image has along its sides.

        Raises:
          ValueError: if they are no whole groups.
        """
        side = self.patch_size * self.merge
        if height % side or width % side or min(height, width) < side:
            raise ValueError(
                f"pixels must have sides that are multiples of {side}, got {height}x{width}."
            )
        return height // self.patch_size, width // self.patch_size


def _norm(size: int, init: layers.Init, *, rms: bool) -> nnx.Module:
    norm = layers.RMSNorm if rms else layers.LayerNorm
    return norm(size, _EPS, init.dtype)


class _Block(nnx.Module):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: Config, init: layers.Init):
        c, D, F = config, config.width, config.mlp_size
        linear = lambda i, o, logical: layers.Linear(i, o, logical, init, bias=True)
        self.attention_norm, self.mlp_norm = (_norm(D, init, rms=c.rms) for _ in range(2))
        self.query = linear(D, D, ("embed", "heads"))
        self.key = linear(D, D, ("embed", "heads"))
        self.value = linear(D, D, ("embed", "heads"))
        self.attention_out = linear(D, D, ("heads", "embed"))
        self.mlp_gate = linear(D, F, ("embed", "mlp")) if c.rms else None
        self.mlp_in = linear(D, F, ("embed", "mlp"))
        self.mlp_out = linear(F, D, ("mlp", "embed"))
        self.config = config

    def __call__(self, x_BTD: Array, turns: tuple[Array, Array], visible: Array):
        c = self.config
        normed = self.attention_norm(x_BTD)
        split = lambda x: attention.split_heads(x, c.num_heads)
        q, k, v = split(self.query(normed)), split(self.key(normed)), split(self.value(normed))
        size = c.width // c.num_heads
        rope = Rope(size=size)
        q, k = rope.rotate(q, turns), rope.rotate(k, turns)
        logits = attention.Logits(scale=size**-0.5)
        attended = self.attention_out(attention.attend(q, k, v, visible, logits))
        x_BTD = x_BTD + attended
        normed = self.mlp_norm(x_BTD)
        activate = layers.ACTIVATIONS[c.activation]
        if self.mlp_gate is None:
            mlp = self.mlp_out(activate(self.mlp_in(normed)))
        else:
            mlp = self.mlp_out(activate(self.mlp_gate(normed)) * self.mlp_in(normed))
        return x_BTD + mlp, attended, mlp


class Network(nnx.Module):
    """Embedding of patches and blocks.

    `base.Output.final` is the last state, without a norm; behind it in the last axis stand those
    after each of `Config.deep_blocks`.
    """

    def __init__(self, config: Config, *, dtype, rngs: nnx.Rngs):
        """Draw the weights."""
        c, init = config, layers.Init(config.init_sd, dtype, rngs)
        inputs = c.num_channels * c.frames * c.patch_size**2
        self.patches_in = layers.Linear(
            inputs, c.width, ("patch", "embed"), init, bias=c.patch_bias
        )
        table = lambda: layers.Embedding(c.positions**2, c.width, "positions", init)
        self.positions = table() if c.positions else None
        self.blocks = init.stack(c.num_layers, lambda init: _Block(c, init))
        self.config = config

    def __call__(
        self,
        pixels: Float[Array, "B C H W"],
        *,
        taps: Sequence[str] = ("residual",),
        pool: base.Pool | None = None,
    ) -> base.Output:
        """Run all layers; see `vision.Network`.

        Raises:
          ValueError: if a tap is unknown, or the sides of images hold no whole groups of patches.
        """
        c, keep = self.config, base.Keep(taps, pool)
        rows, columns = places = _places(c, *pixels.shape[2:])
        x_BTD = embedded = self._embed(pixels)
        half = Rope(size=c.width // c.num_heads // 2)
        angles = [half.turns(jnp.asarray(place)[None]) for place in places]
        turns = tuple(jnp.concatenate(parts, axis=-1) for parts in zip(*angles, strict=True))
        window = (rows // self._window_side(), columns // self._window_side())
        near = np.logical_and(*(part[:, None] == part[None] for part in window))
        whole = np.ones(c.num_layers, bool)
        if c.window:
            whole = np.isin(np.arange(c.num_layers), c.whole_blocks)

        deep = np.array(c.deep_blocks, np.int32)[:, None, None, None]

        def step(carry, block_and_layer):
            x, deeper = carry
            block, whole, index = block_and_layer
            x, attended, mlp = block(x, turns, jnp.asarray(near)[None] | whole)
            deeper = jnp.where(deep == index, x[None], deeper)
            return (x, deeper), keep.of_block(x, attended, mlp)

        deeper = jnp.zeros((len(deep), *x_BTD.shape), x_BTD.dtype)
        every = (self.blocks, jnp.asarray(whole), jnp.arange(c.num_layers))
        (x_BTD, deeper), kept = jax.lax.scan(step, (x_BTD, deeper), every)
        final = jnp.concatenate([x_BTD, *deeper], axis=-1)
        return base.Output(keep.with_first(kept, embedded), final=final)

    def patches(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Return the tokens of patches, which are all."""
        return x_BTD

    def _window_side(self) -> int:
        """Return how many patches a window has along each side, in whole groups."""
        c = self.config
        return max(c.window // c.patch_size // c.merge, 1) * c.merge

    def _embed(self, pixels):
        c = self.config
        tall, wide = (n // c.merge for n in c.grid(*pixels.shape[2:]))
        B, C, m, p = len(pixels), c.num_channels, c.merge, c.patch_size
        x = pixels.reshape(B, C, tall, m, p, wide, m, p).transpose(0, 2, 5, 3, 6, 1, 4, 7)
        # An image is a film whose frames are alike.
        x = jnp.repeat(x[:, :, :, :, :, :, None], c.frames, axis=6)
        x = x.reshape(B, tall * wide * m * m, -1)
        x = self.patches_in(x.astype(self.patches_in.kernel[...].dtype))
        if self.positions is None:
            return x
        return x + self._positions(*pixels.shape[2:])[None].astype(x.dtype)

    def _positions(self, height: int, width: int) -> Float[Array, "T D"]:
        """Return the position of each patch: the table, stretched so that its corners are kept."""
        c = self.config
        table = self.positions.table[...].astype(jnp.float32)
        taps = []
        for place, size in zip(_places(c, height, width), c.grid(height, width), strict=True):
            at = place * (c.positions - 1) / max(size - 1, 1)
            first = np.floor(at).astype(int)
            second = np.minimum(first + 1, c.positions - 1)
            share = (at - first).astype(np.float32)
            taps.append(((first, 1 - share), (second, share)))
        total = 0.0
        for row, tall in taps[0]:
            for column, wide in taps[1]:
                total = total + (tall * wide)[:, None] * table[row * c.positions + column]
        return total


def _places(config: Config, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of each patch, in their order."""
    tall, wide = config.grid(height, width)
    m = config.merge
    grid = np.stack(np.meshgrid(np.arange(tall), np.arange(wide), indexing="ij"))
    grid = grid.reshape(2, tall // m, m, wide // m, m).transpose(0, 1, 3, 2, 4)
    rows, columns = grid.reshape(2, -1)
    return rows, columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergerConfig:
    """Hyperparameters of `Merger`."""

    width: int  # of the tower
    merged: int  # patches of a group
    outputs: int
    rms: bool
    whole_norm: bool = False  # whether a group is normed as one vector
    num_deep: int = 0  # states of other layers beside the last ones, each merged by itself
    init_sd: float = 0.02


class Merger(nnx.Module):
    """The states of a group's patches, one after the other, through two linear maps.

    Deeper states, each by maps of their own, become vectors behind those of the last.
    """

    def __init__(self, config: MergerConfig, *, dtype, rngs: nnx.Rngs):
        """Draw the weights."""
        c, init = config, layers.Init(config.init_sd, dtype, rngs)
        size = c.width * c.merged
        self.norm = _norm(size if c.whole_norm else c.width, init, rms=c.rms)
        self.first = layers.Linear(size, size, (None, "mlp"), init, bias=True)
        self.second = layers.Linear(size, c.outputs, ("mlp", None), init, bias=True)
        part = dataclasses.replace(c, num_deep=0, whole_norm=True)
        deep = lambda init: Merger(part, dtype=dtype, rngs=init.rngs)
        self.deep = init.stack(c.num_deep, deep) if c.num_deep else None
        self.config = config

    def __call__(self, x_BSD: Float[Array, "B S D"]) -> Float[Array, "B n E"]:
        """Apply.

        Args:
          x_BSD: the last states, and in the last axis behind them the deeper ones, as `Network`
            returns them.

        Returns:
          Vectors in the same order.
        """
        last, *deeper = jnp.split(x_BSD, 1 + self.config.num_deep, axis=-1)
        found = [self._merge(last)]
        for i, x in enumerate(deeper):
            found.append(jax.tree.map(lambda p, i=i: p[i], self.deep)._merge(x))
        return jnp.concatenate(found, axis=-1)

    def _merge(self, x_BSD):
        c = self.config
        grouped = lambda x: x.reshape(len(x), x_BSD.shape[1] // c.merged, -1)
        x = self.norm(grouped(x_BSD)) if c.whole_norm else grouped(self.norm(x_BSD))
        return self.second(layers.ACTIVATIONS["gelu"](self.first(x)))


def _tensors(config: Config) -> dict[str, Tensor]:
    D, p, block = config.width, config.patch_size, "blocks.{layer}."
    plain = "linear_fc" if config.positions else "fc"
    named = {
        "attention_out": "attn.proj",
        "mlp_in": "mlp.up_proj" if config.rms else f"mlp.{plain}1",
        "mlp_out": "mlp.down_proj" if config.rms else f"mlp.{plain}2",
        "mlp_gate": "mlp.gate_proj",
    }
    inner = (config.num_channels, config.frames, p, p)
    found = {
        "patches_in/kernel": Tensor("patch_embed.proj.weight", True, divided=inner),
        "patches_in/bias": Tensor("patch_embed.proj.bias"),
        "positions/table": Tensor("pos_embed.weight"),
    }
    for ours, theirs in named.items():
        found |= linear(f"blocks/{ours}", block + theirs)
    for ours, theirs in (("attention_norm", "norm1"), ("mlp_norm", "norm2")):
        found |= norm(f"blocks/{ours}", block + theirs)
    for i, ours in enumerate(("query", "key", "value")):
        found |= linear(f"blocks/{ours}", f"{block}attn.qkv", Part(i * D, D, D, 3 * D))
    return found


# As a part of Qwen-VL alone: `qwen_vl` reads the configuration.
FAMILY = Family(
    network=Network,
    keys=keys.family({}),
    configure=lambda values: values,
    tensors=_tensors,
    ignored=hf_reading.unused(r"rotary_pos_emb\.inv_freq"),
)
