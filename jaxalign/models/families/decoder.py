"""The causal decoder: one block with few switches, from GPT-2 to Gemma 3."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models.families import attention, base, layers

_FAR = jnp.iinfo(jnp.int32).max


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Hyperparameters. The defaults of the switches are LLaMA's."""

    causal: ClassVar[bool] = True
    later: ClassVar[tuple[str, ...]] = (
        *("sinusoids", "norm_bias", "residual_scale", "unrotated", "alibi_scale", "alibi_rounded"),
        *("qk_norm_whole", "qkv_clip", "logit_scale"),
    )

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    mlp_size: int
    max_length: int
    norm_eps: float
    tied_embeddings: bool = False
    # Embedding.
    embed_width: int = 0  # of the table, if it differs from `width`: projected to it and back
    embed_scale: float = 1.0
    embed_norm: bool = False
    learned_positions: bool = False
    position_offset: int = 0  # rows of the table of positions before position 0
    sinusoids: bool = False  # positions are sines and cosines that are added
    # Norms: of root mean square ("rms"), the same with its scale kept as difference from 1
    # ("centred_rms"), or with mean and bias ("layer"). They stand before each sublayer, after each
    # residual sum, before and after each sublayer, or after each sublayer alone.
    norm: str = "rms"
    norm_place: str = "before"  # or "after", "both", "outputs"
    norm_affine: bool = True  # whether "layer" norms have a scale and a bias
    norm_bias: bool = True  # whether those that have a scale have a bias
    final_norm: bool = True
    residual_from_norm: bool = False  # whether sublayers add to their normed input
    residual_scale: float = 1.0  # of what sublayers add
    # Attention.
    rope: layers.Rope | None = None
    local_rope: layers.Rope | None = None  # of layers with a window, if it differs from `rope`
    unrotated: tuple[int, ...] = ()  # blocks that do without `rope`
    alibi: bool = False
    alibi_scale: float = 1.0  # of the bias
    alibi_rounded: bool = False  # whether slopes, positions and products are rounded to bfloat16
    windows: tuple[int, ...] = ()  # by layer: tokens seen, the query's included; 0, or (): all
    attention_scale: float = 0.0  # of queries times keys; 0: head_size ** -0.5
    scale_by_layer: bool = False  # divides it by the number of the block, from 1 on
    attention_cap: float = 0.0  # 0: none
    qk_norm: bool = False
    qk_norm_whole: bool = False  # whether it takes all heads together
    qkv_bias: bool = False
    qkv_clip: float = 0.0  # largest absolute value of queries, keys and values; 0: any
    attention_out_bias: bool = False
    # MLP.
    activation: str = "silu"  # of `layers.ACTIVATIONS`
    gated: bool = True
    mlp_bias: bool = False
    parallel: bool = False  # attention and MLP read the same residual stream
    shared_norm: bool = False  # and through the same norm
    # Head.
    headless: bool = False  # no logits: the checkpoint predicts no tokens
    head_bias: bool = False
    logit_scale: float = 1.0
    logit_cap: float = 0.0  # 0: none
    # Initialisation.
    init_sd: float = 0.02
    residual_init_sd: float = 0.0  # of what is added to the residual stream; 0: init_sd
    padding_token: int = -1  # its row of the embedding begins at zero; -1: none

    def __post_init__(self):
        assert len(self.windows) in (0, self.num_layers)

    @property
    def final_norm_applied(self) -> bool:
        """Whether the last entry of the residual stream has passed a final norm."""
        return self.final_norm

    @property
    def predicts(self) -> bool:
        """Whether the network predicts tokens."""
        return not self.headless


def _norm(config: Config, size: int, init: layers.Init) -> nnx.Module:
    if config.norm == "layer":
        c = config
        parts = {"affine": c.norm_affine, "bias": c.norm_bias}
        return layers.LayerNorm(size, c.norm_eps, init.dtype, **parts)
    centred = config.norm == "centred_rms"
    return layers.RMSNorm(size, config.norm_eps, init.dtype, centred=centred)


class _Context(NamedTuple):
    """What all blocks of a pass share."""

    visible: Bool[Array, "b T S"]
    distance: Int[Array, "b T S"] | None  # of each key before each query; if layers have windows
    together: Bool[Array, "B T S"] | None  # what is seen ahead too, within a window if there is one
    image: base.Image | None  # of `base.Merged`
    added: Float[Array, "K B T D"] | None  # of `base.Merged`
    begin: base.Cache | None  # of the cache
    turns: tuple[Array, Array] | None
    local_turns: tuple[Array, Array] | None
    logits: attention.Logits
    slot: Int[Array, ""] | None  # of the cache that the first token goes to


class _Layer(NamedTuple):
    """What differs between blocks in addition to their parameters."""

    index: Int[Array, ""]
    window: Int[Array, ""] | None
    is_rotated: Bool[Array, ""] | None  # None: as all others


class Block(nnx.Module):
    """Attention and MLP, added to the residual stream."""

    def __init__(self, config: Config, init: layers.Init):
        """Draw the weights."""
        c, D, F, H = config, config.width, config.mlp_size, config.head_size
        residual = init._replace(sd=c.residual_init_sd or c.init_sd)
        linear = lambda inputs, outputs, names, bias, init=init: layers.Linear(
            inputs, outputs, names, init, bias=bias
        )
        heads, kv_heads = layers.heads(c.num_heads, c.num_kv_heads)
        # Norms of what sublayers read or of residual sums, and those of what sublayers yield.
        sums = lambda: None if c.norm_place == "outputs" else _norm(c, D, init)
        outputs = lambda: _norm(c, D, init) if c.norm_place in ("both", "outputs") else None
        self.attention_norm = sums()
        self.query = linear(D, c.num_heads * H, ("embed", heads), c.qkv_bias)
        self.key = linear(D, c.num_kv_heads * H, ("embed", kv_heads), c.qkv_bias)
        self.value = linear(D, c.num_kv_heads * H, ("embed", kv_heads), c.qkv_bias)
        normed = lambda heads: _norm(c, heads * H if c.qk_norm_whole else H, init)
        self.query_norm = normed(c.num_heads) if c.qk_norm else None
        self.key_norm = normed(c.num_kv_heads) if c.qk_norm else None
        self.attention_out = linear(
            c.num_heads * H, D, (heads, "embed"), c.attention_out_bias, residual
        )
        self.attention_post_norm = outputs()
        self.mlp_norm = None if c.shared_norm else sums()
        self.mlp_gate = linear(D, F, ("embed", "mlp"), c.mlp_bias) if c.gated else None
        self.mlp_in = linear(D, F, ("embed", "mlp"), c.mlp_bias)
        self.mlp_out = linear(F, D, ("mlp", "embed"), c.mlp_bias, residual)
        self.mlp_post_norm = outputs()
        self.config = config

    def __call__(self, x_BTD: Array, layer: _Layer, context: _Context, stored):
        """Return the residual stream, what was added to it by each sublayer, and the cache."""
        c = self.config
        after = c.norm_place == "after"
        as_it_is = c.norm_place in ("after", "outputs")
        normed = x_BTD if as_it_is else self.attention_norm(x_BTD)
        attended, stored = self._attend(normed, layer, context, stored)
        if c.parallel:
            mlp = self._mlp(normed if c.shared_norm else self.mlp_norm(x_BTD))
            return x_BTD + attended + mlp, attended, mlp, stored
        x_BTD = (normed if c.residual_from_norm else x_BTD) + attended
        if after:
            x_BTD = self.attention_norm(x_BTD)
        normed = x_BTD if as_it_is else self.mlp_norm(x_BTD)
        mlp = self._mlp(normed)
        x_BTD = (normed if c.residual_from_norm else x_BTD) + mlp
        return self.mlp_norm(x_BTD) if after else x_BTD, attended, mlp, stored

    def _attend(self, x_BTD, layer: _Layer, context: _Context, stored):
        c = self.config
        q, k, v = self.query(x_BTD), self.key(x_BTD), self.value(x_BTD)
        if c.qkv_clip:
            q, k, v = (jnp.clip(x, -c.qkv_clip, c.qkv_clip) for x in (q, k, v))
        if c.qk_norm and c.qk_norm_whole:
            q, k = self.query_norm(q), self.key_norm(k)
        q = attention.split_heads(q, c.num_heads)
        k, v = (attention.split_heads(x, c.num_kv_heads) for x in (k, v))
        if c.qk_norm and not c.qk_norm_whole:
            q, k = self.query_norm(q), self.key_norm(k)
        if c.scale_by_layer:
            q = q / (layer.index + 1).astype(q.dtype)
        if c.rope is not None:
            turns = context.turns
            if context.local_turns is not None:
                pick = lambda local, other: jnp.where(layer.window > 0, local, other)
                turns = jax.tree.map(pick, context.local_turns, turns)
            rotated = c.rope.rotate(q, turns), c.rope.rotate(k, turns)
            if layer.is_rotated is not None:
                rotated = (
                    jnp.where(layer.is_rotated, *x) for x in zip(rotated, (q, k), strict=True)
                )
            q, k = rotated
        if stored is not None:
            at = (layer.index, 0, context.slot, 0, 0)
            stored = tuple(
                jax.lax.dynamic_update_slice(cached, new[None].astype(cached.dtype), at)
                for cached, new in zip(stored, (k, v), strict=True)
            )
            k, v = (cached[layer.index] for cached in stored)
        visible = context.visible
        if context.together is not None:
            visible = visible | context.together
        if layer.window is not None:
            reach = jnp.where(layer.window > 0, layer.window, _FAR)
            visible = visible & (context.distance < reach)
        if context.begin is not None:
            begin = tuple(x[layer.index] for x in (context.begin.keys, context.begin.values))
            out = attention.attend_behind(begin, q, (k, v), visible, context.logits)
        else:
            # With a cache there are more keys than queries.
            causal = stored is None and context.together is None
            out = attention.attend(q, k, v, visible, context.logits, causal=causal)
        return self._added(self.attention_out(out), self.attention_post_norm), stored

    def _mlp(self, x_BTD):
        activate = layers.ACTIVATIONS[self.config.activation]
        inner = self.mlp_in(x_BTD)
        if self.mlp_gate is None:
            inner = activate(inner)
        else:
            inner = activate(self.mlp_gate(x_BTD)) * inner
        return self._added(self.mlp_out(inner), self.mlp_post_norm)

    def _added(self, out, norm):
        """Return what a sublayer adds."""
        out, scale = out if norm is None else norm(out), self.config.residual_scale
        return out if scale == 1.0 else out * jnp.asarray(scale, out.dtype)


class Network(nnx.Module):
    """Embedding, blocks, final norm, and the head that predicts the next token."""

    kept_for_gradients = "all"  # of each block; see `base.keep_for_gradients`

    def __init__(self, config: Config, *, dtype, rngs: nnx.Rngs):
        """Draw weights as Hugging Face does: normal, and zero for the padding token."""
        c = config
        init = layers.Init(c.init_sd, dtype, rngs)
        D, V, E = c.width, c.vocab_size, c.embed_width or c.width
        self.words = layers.Embedding(V, E, "vocab", init)
        if c.padding_token >= 0:
            self.words.table[...] = self.words.table[...].at[c.padding_token].set(0)
        project = lambda i, o: layers.Linear(i, o, (None, None), init, bias=False)
        self.project_in = project(E, D) if c.embed_width else None
        places = lambda rows: layers.Embedding(rows, D, "positions", init)
        self.positions = places(c.max_length + c.position_offset) if c.learned_positions else None
        self.embed_norm = _norm(c, D, init) if c.embed_norm else None
        self.blocks = init.stack(c.num_layers, lambda init: Block(c, init))
        self.final_norm = _norm(c, D, init) if c.final_norm else None
        self.project_out = project(D, E) if c.embed_width else None
        own_head = not (c.tied_embeddings or c.headless)
        head = lambda: layers.Linear(E, V, ("embed", "vocab"), init, bias=c.head_bias)
        self.head = head() if own_head else None
        added = c.head_bias and c.tied_embeddings and not c.headless
        self.head_bias = layers.Bias(V, "vocab", dtype) if added else None
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, "B T"] | base.Merged,
        mask: Bool[Array, "B T"],
        *,
        taps: Sequence[str] = ("residual",),
        pool: base.Pool | None = None,
        positions: Int[Array, "B T"] | None = None,
        cache: base.Cache | None = None,
    ) -> base.Output:
        """Run all layers.

        Args:
          tokens: as of `base.Network`, or vectors in their place.
          mask: as of `base.Network`.
          taps: as of `base.Network`.
          pool: as of `base.Network`.
          positions: of each token in its text; None: 0, 1, ... A row may hold several texts, one
            after the other: where positions do not increase, a new text begins, and no token sees
            those of another text.
          cache: of the tokens before these, which this pass continues; one text per row.

        Raises:
          ValueError: if a tap is unknown, or a row longer than a table of positions.
        """
        keep = base.Keep(taps, pool)
        self._check_length(tokens.shape[1])
        several_texts = positions is not None and cache is None
        if positions is None:
            start = 0 if cache is None else cache.next_position()
            positions = start + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        if cache is not None:
            cache = cache.extend(positions, mask)
        x_BTD = embedded = self._embed(tokens, positions)
        context = self._context(positions, mask, cache, several_texts=several_texts)
        if isinstance(tokens, base.Merged):
            context = context._replace(image=tokens.image, added=tokens.added)
            if tokens.places is not None:
                context = context._replace(turns=self.config.rope.turns(tokens.places))
            if tokens.together is not None:
                context = context._replace(together=_together(tokens.together, mask, context))
        stored = None if cache is None else (cache.keys, cache.values)
        if "residual" in keep.taps:
            embedded = self._received(embedded, context)
        (x_BTD, stored), kept = self._through((x_BTD, stored), context, keep)
        if self.final_norm is not None:
            x_BTD = self.final_norm(x_BTD)
            kept = keep.with_last(kept, x_BTD)
        if cache is not None:
            cache = dataclasses.replace(cache, keys=stored[0], values=stored[1])
        return base.Output(keep.with_first(kept, embedded), cache, final=x_BTD)

    def _received(self, embedded, context: _Context):
        """Return what the first block receives."""
        del context
        return embedded

    def _through(self, carry, context: _Context, keep: base.Keep):
        """Pass all blocks; `carry`: the residual stream, and keys and values of a cache."""
        return self._scan(carry, (self.blocks, self._layers()), context, keep)

    def _scan(self, carry, blocks_and_layers, context: _Context, keep: base.Keep):
        """Pass some blocks, one after the other."""

        def step(carry, block_and_layer):
            x, stored = carry
            block, layer = block_and_layer
            x, attended, mlp, stored = block(x, layer, context, stored)
            kept = keep.of_block(x, attended, mlp)
            if context.added is not None:
                num = len(context.added)
                more = context.added[jnp.minimum(layer.index, num - 1)].astype(x.dtype)
                x = x + jnp.where(layer.index < num, more, 0)
            return (x, stored), kept

        step = base.rematerialised(step, self.kept_for_gradients)
        return jax.lax.scan(step, carry, blocks_and_layers)

    def logits(self, final: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Predict the next token from `base.Output.final`, in float32.

        Raises:
          ValueError: if the network has no head.
        """
        if self.config.headless:
            raise ValueError("a network without a head has no logits.")
        if self.project_out is not None:
            final = self.project_out(final)
        kernel = self.words.table[...].T if self.head is None else self.head.kernel[...]
        logits = jnp.einsum("...D,DV->...V", final, kernel, preferred_element_type=jnp.float32)
        biased = self.head_bias if self.head is None else self.head
        if biased is not None and biased.bias is not None:
            bias = biased.bias[...].astype(jnp.float32)
            logits = logits + jnp.expand_dims(bias, tuple(range(logits.ndim - 1)))
        cap, scale = self.config.logit_cap, self.config.logit_scale
        logits = logits if scale == 1.0 else scale * logits
        return cap * jnp.tanh(logits / cap) if cap else logits

    def empty_cache(self, batch: int, length: int) -> base.Cache:
        """Return a cache of `length` slots for `batch` rows.

        Raises:
          ValueError: if the network does not take as many tokens.
        """
        c = self.config
        self._check_length(length)
        shape = (c.num_layers, batch, length, c.num_kv_heads, c.head_size)
        return base.Cache.empty(shape, self.words.table[...].dtype)

    def _check_length(self, length: int) -> None:
        c = self.config
        if (c.learned_positions or c.sinusoids) and length > c.max_length:
            raise ValueError(f"a row must have at most {c.max_length} tokens, got {length}.")

    def embed_words(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T E"]:
        """Return the vector of each token, scaled, without its position; see `base.Merged`."""
        x_BTE, scale = self.words(tokens), self.config.embed_scale
        return x_BTE if scale == 1.0 else x_BTE * jnp.asarray(scale, x_BTE.dtype)

    def _embed(self, tokens, positions):
        c = self.config
        merged = isinstance(tokens, base.Merged)
        x_BTD = tokens.vectors if merged else self.embed_words(tokens)
        if self.project_in is not None:
            x_BTD = self.project_in(x_BTD)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(positions + c.position_offset)
        if c.sinusoids:
            x_BTD = x_BTD + layers.sinusoids(positions, c.width).astype(x_BTD.dtype)
        return x_BTD if self.embed_norm is None else self.embed_norm(x_BTD)

    def _layers(self) -> _Layer:
        c = self.config
        windows = jnp.asarray(c.windows, jnp.int32) if any(c.windows) else None
        rotated = [i not in c.unrotated for i in range(c.num_layers)]
        return _Layer(
            jnp.arange(c.num_layers), windows, jnp.asarray(rotated) if c.unrotated else None
        )

    def _context(self, positions, mask, cache, *, several_texts: bool) -> _Context:
        c = self.config
        keys, known = (positions, mask) if cache is None else cache.slots()
        distance = positions[:, :, None] - keys[:, None, :]  # [b T S]
        visible = (distance >= 0) & known[:, None]
        if several_texts:
            text = jnp.cumsum(
                jnp.diff(positions, axis=1, prepend=positions[:, :1] - 1) <= 0, axis=1
            )
            visible = visible & (text[:, :, None] == text[:, None, :])
        turns = lambda rope: None if rope is None else rope.turns(positions)
        bias = None
        if c.alibi:
            # The distance to the query would only add the same to all logits of a softmax.
            slopes = attention.alibi_slopes(c.num_heads)
            bias = attention.alibi_bias(slopes, keys, rounded=c.alibi_rounded)
            bias = bias if c.alibi_scale == 1.0 else c.alibi_scale * bias
        return _Context(
            visible=visible,
            distance=distance if any(c.windows) else None,
            together=None,
            image=None,
            added=None,
            begin=None if cache is None else cache.begin,
            turns=turns(c.rope),
            local_turns=turns(c.local_rope),
            logits=attention.Logits(
                scale=c.attention_scale or c.head_size**-0.5, cap=c.attention_cap, bias=bias
            ),
            slot=None if cache is None else cache.length - positions.shape[1],
        )


def _together(group_BT, mask, context: _Context) -> Bool[Array, "B T S"]:
    """Return which tokens of one group see each other; see `base.Merged`."""
    group_BT = jnp.where(mask, group_BT, 0)
    same = (group_BT[:, :, None] == group_BT[:, None]) & (group_BT[:, :, None] > 0)
    # The slots of the cache after those of this pass, which is its first one.
    empty = context.visible.shape[2] - same.shape[2]
    return jnp.pad(same, [(0, 0), (0, 0), (0, empty)])
