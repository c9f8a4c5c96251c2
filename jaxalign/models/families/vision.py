"""Vision towers: one pre-norm transformer over patches, with few switches, from ViT to SigLIP."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxalign.models.families import attention, base, layers

# How a table of positions is stretched -> a of the cubic kernel, and whether the kernel widens as
# the table shrinks, as PyTorch's `interpolate` has them.
STRETCHES = {"bicubic": (-0.75, False), "antialiased": (-0.5, True)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Hyperparameters. The defaults of the switches are ViT's."""

    reads: ClassVar[str] = "images"
    vocab_size: ClassVar[int] = 0

    num_layers: int
    width: int
    num_heads: int
    mlp_size: int
    norm_eps: float
    image_size: tuple[int, int]  # pixels of the images that it was made for: height, width
    patch_size: tuple[int, int]
    num_channels: int = 3
    # Embedding.
    cls: bool = True  # a token of its own before those of the patches
    num_registers: int = 0  # tokens between the two that belong to no patch
    patch_bias: bool = True
    embed_norm: bool = False
    # How the table of positions is stretched to the patches of images of any size, of `STRETCHES`;
    # "": not at all, and images must have `image_size`.
    stretch: str = ""
    # Blocks.
    qkv_bias: bool = True
    activation: str = "gelu"  # of `layers.ACTIVATIONS`
    gated: bool = False
    layer_scale: float = 0.0  # where the scale of what a sublayer adds begins; 0: there is none
    # Head.
    final_norm: bool = True
    attention_pool: bool = False  # a query of its own attends to the normed tokens
    projection: int = 0  # units of the space shared with texts that CLS is projected to; 0: none
    # Initialisation: standard deviations, and for parts that differ; 0: as all others.
    init_sd: float = 0.02
    position_sd: float = 0.0
    qkv_sd: float = 0.0
    attention_out_sd: float = 0.0
    mlp_in_sd: float = 0.0
    mlp_out_sd: float = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of an image of `image_size`, in rows and columns."""
        (height, width), (tall, wide) = self.image_size, self.patch_size
        return height // tall, width // wide

    @property
    def num_prefix(self) -> int:
        """Tokens before those of the patches."""
        return self.cls + self.num_registers

    @property
    def max_length(self) -> int:
        """Tokens of an image of `image_size`."""
        return self.num_prefix + self.grid[0] * self.grid[1]

    @property
    def embeds(self) -> bool:
        """Whether images have a place in a space that texts share; see `Network.embed`."""
        return self.attention_pool or self.projection > 0


class Block(nnx.Module):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: Config, init: layers.Init):
        """Draw the weights."""
        c, D, F = config, config.width, config.mlp_size
        drawn = lambda sd: init._replace(sd=sd or c.init_sd)
        norm = lambda: layers.LayerNorm(D, c.norm_eps, init.dtype)
        heads, _ = layers.heads(c.num_heads)
        part = lambda: layers.Linear(D, D, ("embed", heads), drawn(c.qkv_sd), bias=c.qkv_bias)
        inner = lambda: layers.Linear(D, F, ("embed", "mlp"), drawn(c.mlp_in_sd), bias=True)
        out = lambda size, name, sd: layers.Linear(size, D, (name, "embed"), drawn(sd), bias=True)
        self.attention_norm = norm()
        self.query, self.key, self.value = part(), part(), part()
        self.attention_out = out(D, heads, c.attention_out_sd)
        self.mlp_norm = norm()
        self.mlp_gate = inner() if c.gated else None
        self.mlp_in = inner()
        self.mlp_out = out(F, "mlp", c.mlp_out_sd)
        scale = lambda: nnx.Param(jnp.full(D, c.layer_scale, init.dtype), logical=("embed",))
        self.attention_scale = scale() if c.layer_scale else None
        self.mlp_scale = scale() if c.layer_scale else None
        self.config = config

    def __call__(self, x_BTD: Array, visible: Array) -> tuple[Array, Array, Array]:
        """Return the residual stream, and what attention and MLP have added to it.

        Args:
          x_BTD: the residual stream.
          visible: which tokens each token sees, [1 or B, T, T].
        """
        c = self.config
        normed = self.attention_norm(x_BTD)
        q, k, v = (
            attention.split_heads(part(normed), c.num_heads)
            for part in (self.query, self.key, self.value)
        )
        logits = attention.Logits(scale=(c.width // c.num_heads) ** -0.5)
        attended = self.attention_out(attention.attend(q, k, v, visible, logits))
        if self.attention_scale is not None:
            attended = attended * self.attention_scale[...][None, None]
        x_BTD = x_BTD + attended
        mlp = self._mlp(self.mlp_norm(x_BTD))
        if self.mlp_scale is not None:
            mlp = mlp * self.mlp_scale[...][None, None]
        return x_BTD + mlp, attended, mlp

    def _mlp(self, x_BTD):
        activate = layers.ACTIVATIONS[self.config.activation]
        inner = self.mlp_in(x_BTD)
        if self.mlp_gate is None:
            return self.mlp_out(activate(inner))
        return self.mlp_out(activate(self.mlp_gate(x_BTD)) * inner)


class AttentionPool(nnx.Module):
    """A query of its own attends to all tokens, and an MLP follows, as in SigLIP."""

    def __init__(self, config: Config, init: layers.Init):
        """Draw the weights."""
        c, D, F = config, config.width, config.mlp_size
        drawn = lambda sd: init._replace(sd=sd or c.init_sd)
        heads, _ = layers.heads(c.num_heads)
        part = lambda: layers.Linear(D, D, ("embed", heads), drawn(c.qkv_sd), bias=True)
        self.probe = nnx.Param(drawn(c.qkv_sd).draw(D), logical=("embed",))
        self.query, self.key, self.value = part(), part(), part()
        self.attention_out = layers.Linear(
            D, D, (heads, "embed"), drawn(c.attention_out_sd), bias=True
        )
        self.norm = layers.LayerNorm(D, c.norm_eps, init.dtype)
        self.mlp_in = layers.Linear(D, F, ("embed", "mlp"), drawn(c.mlp_in_sd), bias=True)
        self.mlp_out = layers.Linear(F, D, ("mlp", "embed"), drawn(c.mlp_out_sd), bias=True)
        self.config = config

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B D"]:
        """Pool the tokens of each image."""
        c = self.config
        probe = jnp.broadcast_to(self.probe[...][None, None], (x_BTD.shape[0], 1, c.width))
        heads = lambda x: attention.split_heads(x, c.num_heads)
        q, k, v = heads(self.query(probe)), heads(self.key(x_BTD)), heads(self.value(x_BTD))
        logits = attention.Logits(scale=(c.width // c.num_heads) ** -0.5)
        visible = jnp.ones((1, 1, x_BTD.shape[1]), bool)
        pooled = self.attention_out(attention.attend(q, k, v, visible, logits))
        inner = layers.ACTIVATIONS[c.activation](self.mlp_in(self.norm(pooled)))
        return (pooled + self.mlp_out(inner))[:, 0]


class Network(nnx.Module):
    """Embedding of patches, blocks, the final norm, and what images share with texts.

    Tokens are CLS, registers and patches, in this order, as far as there are any; patches go row by
    row. `base.Output.final` is what the final norm makes of all tokens after the last block; no
    entry of `base.Output.hidden` has passed it.
    """

    def __init__(self, config: Config, *, dtype, rngs: nnx.Rngs):
        """Draw weights from normal distributions; biases begin at 0."""
        c, D = config, config.width
        init = layers.Init(c.init_sd, dtype, rngs)
        tall, wide = c.patch_size
        self.patches_in = layers.Linear(
            c.num_channels * tall * wide, D, ("patch", "embed"), init, bias=c.patch_bias
        )
        self.cls = nnx.Param(init.draw(D), logical=("embed",)) if c.cls else None
        drawn = lambda count, sd: nnx.Param(
            init._replace(sd=sd or c.init_sd).draw(count, D), logical=("positions", "embed")
        )
        self.registers = drawn(c.num_registers, c.init_sd) if c.num_registers else None
        self.positions = drawn(c.cls + c.grid[0] * c.grid[1], c.position_sd)
        norm = lambda: layers.LayerNorm(D, c.norm_eps, dtype)
        self.embed_norm = norm() if c.embed_norm else None
        self.blocks = init.stack(c.num_layers, lambda init: Block(c, init))
        self.final_norm = norm() if c.final_norm else None
        self.attention_pool = AttentionPool(c, init) if c.attention_pool else None
        to_texts = lambda: layers.Linear(
            D, c.projection, ("embed", None), init._replace(sd=D**-0.5), bias=False
        )
        self.projection = to_texts() if c.projection else None
        self.config = config

    def __call__(
        self,
        pixels: Float[Array, "B C H W"],
        *,
        taps: Sequence[str] = ("residual",),
        pool: base.Pool | None = None,
    ) -> base.Output:
        """Run all layers.

        Args:
          pixels: of images, from `data.images.pixels.Recipe`; channels first.
          taps: what to return of each layer, names of `base.TAPS`.
          pool: reduces each layer's activations [B T D] inside the scan.

        Raises:
          ValueError: if a tap is unknown, or images are of another size than the network takes.
        """
        keep = base.Keep(taps, pool)
        x_BTD = embedded = self._embed(pixels)
        visible = _everything(x_BTD)

        def step(x, block):
            x, attended, mlp = block(x, visible)
            return x, keep.of_block(x, attended, mlp)

        x_BTD, kept = jax.lax.scan(step, x_BTD, self.blocks)
        return base.Output(keep.with_first(kept, embedded), final=self.normed(x_BTD))

    def states(self, pixels: Float[Array, "B C H W"], layer: int) -> Float[Array, "B T D"]:
        """Return the residual stream after one block; those that follow it are not computed.

        Args:
          pixels: as of a pass.
          layer: number of the block, 0 for what the first one receives; from the end if negative,
            -1 being the last.

        Raises:
          ValueError: if there is no such layer, or images are of another size.
        """
        num = self.config.num_layers
        at = layer if layer >= 0 else num + 1 + layer
        if not 0 <= at <= num:
            raise ValueError(f"layer must lie in {-num - 1}..{num}, got {layer}.")
        x_BTD = self._embed(pixels)
        visible = _everything(x_BTD)
        blocks = jax.tree.map(lambda x: x[:at], self.blocks)
        return jax.lax.scan(lambda x, block: (block(x, visible)[0], None), x_BTD, blocks)[0]

    def normed(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Apply the final norm, if there is one, to all tokens (CLIP itself: to CLS alone)."""
        return x_BTD if self.final_norm is None else self.final_norm(x_BTD)

    def patches(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B P D"]:
        """Return the tokens of patches, without CLS and registers."""
        return x_BTD[:, self.config.num_prefix :]

    def embed(self, final_BTD: Float[Array, "B T D"]) -> Float[Array, "B E"]:
        """Return the place of each image in the space that it shares with texts.

        It is what the authors call the image's embedding, before it is scaled to length 1.

        Args:
          final_BTD: `base.Output.final`.

        Raises:
          ValueError: if there is no such space.
        """
        if self.attention_pool is not None:
            return self.attention_pool(final_BTD)
        if self.projection is None:
            raise ValueError("a network without a projection has no space shared with texts.")
        return self.projection(final_BTD[:, 0])

    def _embed(self, pixels):
        c = self.config
        batch, channels, height, width = pixels.shape
        tall, wide = c.patch_size
        grid = height // tall, width // wide
        whole = bool(c.stretch) and min(grid) > 0
        if channels != c.num_channels or not (whole or (height, width) == c.image_size):
            size = "images of any size" if c.stretch else "x".join(map(str, c.image_size))
            raise ValueError(
                f"pixels must be {c.num_channels} x {size}, got {channels} x {height}x{width}."
            )
        x = pixels[:, :, : grid[0] * tall, : grid[1] * wide]
        x = x.reshape(batch, channels, grid[0], tall, grid[1], wide).transpose(0, 2, 4, 1, 3, 5)
        dtype = self.patches_in.kernel[...].dtype
        x = self.patches_in(x.reshape(batch, grid[0] * grid[1], -1).astype(dtype))
        lone, positions = self._positions(grid)
        x = x + positions[None].astype(dtype)
        front = []
        if self.cls is not None:
            front.append((self.cls[...] + lone[0])[None])
        if self.registers is not None:
            front.append(self.registers[...])
        if front:
            front = jnp.concatenate(front)[None]
            x = jnp.concatenate([jnp.broadcast_to(front, (batch, *front.shape[1:])), x], axis=1)
        return x if self.embed_norm is None else self.embed_norm(x)

    def _positions(self, grid: tuple[int, int]) -> tuple[Array, Array]:
        """Return the position of CLS, if there is one, and those of a grid of patches."""
        c = self.config
        table = self.positions[...]
        lone, table = table[: int(c.cls)], table[int(c.cls) :]
        if grid == c.grid:
            return lone, table
        sizes = zip(c.grid, grid, strict=True)
        rows, columns = (_stretched(*pair, *STRETCHES[c.stretch]) for pair in sizes)
        stretched = jnp.einsum(
            "yh,xw,hwD->yxD",
            rows,
            columns,
            table.astype(jnp.float32).reshape(*c.grid, c.width),
            precision=jax.lax.Precision.HIGHEST,
        )
        return lone, stretched.reshape(-1, c.width)


def _everything(x_BTD: Array) -> Array:
    """Let every token see all tokens."""
    return jnp.ones((1, x_BTD.shape[1], x_BTD.shape[1]), bool)


def _stretched(size: int, wanted: int, a: float, widens: bool) -> np.ndarray:
    """Return the matrix [wanted, size] that stretches an axis by cubic interpolation.

    A kernel that reaches over an end meets the last entry again, or where it `widens` is cut off
    and made to sum to 1.

    Source: Keys (1981), IEEE Trans ASSP 29, 1153-1160, eq. 4; PyTorch's `interpolate` with
    `align_corners=False`, without and with `antialias`.
    """
    scale = size / wanted
    width = max(scale, 1.0) if widens else 1.0
    centre = (np.arange(wanted) + 0.5) * scale - 0.5
    # Beyond either end too.
    reach = int(np.ceil(2 * width)) + 1
    places = np.arange(-reach, size + reach)
    distance = np.abs(places[None] - centre[:, None]) / width
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    if widens:
        inside = weights[:, reach:-reach]
        matrix = inside / inside.sum(axis=1, keepdims=True)
    else:
        matrix = np.zeros((wanted, size))
        np.add.at(matrix.T, np.clip(places, 0, size - 1), weights.T)
    return matrix.astype(np.float32)
