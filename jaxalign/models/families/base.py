"""The one interface of all networks: tokens in, activations of every layer out."""

import dataclasses
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models.families import keys
from jaxalign.models.weights import Tensor

# Applied to the activations of one layer, [B T D] -> [B ... D], before they are kept.
Pool = Callable[[Array], Array]

# What can be read out of every layer.
TAPS = ("residual", "attention", "mlp")

# What is kept of each block for gradients, and not computed again: everything, what blocks receive
# alone, or the results of products with parameters in addition.
KEPT = {
    "all": jax.checkpoint_policies.everything_saveable,
    "inputs": jax.checkpoint_policies.nothing_saveable,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens so far, for incremental decoding.

    Attributes:
      keys: [L B S K H], rotated where positions are rotary.
      values: [L B S K H].
      positions: [B S] of the token in each slot.
      mask: [B S]; False for padding and for slots that are still empty.
      length: slots in use, the same for every row.
      begin: what rows begin with, of as many neighbouring rows each; it is not extended.
    """

    keys: Float[Array, "L B S K H"]
    values: Float[Array, "L B S K H"]
    positions: Int[Array, "B S"]
    mask: Bool[Array, "B S"]
    length: Int[Array, ""]
    begin: "Cache | None" = None

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int, int], dtype: Any) -> "Cache":
        """Return a cache without tokens, whose keys have this shape."""
        return cls(
            keys=jnp.zeros(shape, dtype),
            values=jnp.zeros(shape, dtype),
            positions=jnp.zeros(shape[1:3], jnp.int32),
            mask=jnp.zeros(shape[1:3], bool),
            length=jnp.zeros((), jnp.int32),
        )

    def next_position(self) -> Int[Array, "B 1"]:
        """Return the position after each row's last token."""
        positions, mask = self.slots()
        return jnp.where(mask, positions + 1, 0).max(axis=1, keepdims=True)

    def slots(self) -> tuple[Int[Array, "B S"], Bool[Array, "B S"]]:
        """Return positions and mask of all slots, those of the beginning first."""
        if self.begin is None:
            return self.positions, self.mask
        rows = len(self.mask) // len(self.begin.mask)
        pairs = zip(self.begin.slots(), (self.positions, self.mask), strict=True)
        first, second = (
            jnp.concatenate([jnp.repeat(a, rows, axis=0), b], axis=1) for a, b in pairs
        )
        return first, second

    def extend(self, positions: Int[Array, "b T"], mask: Bool[Array, "B T"]) -> "Cache":
        """Enter the tokens of a pass in the next free slots; keys and values follow in blocks."""
        at = (0, self.length)
        return dataclasses.replace(
            self,
            positions=jax.lax.dynamic_update_slice(self.positions, positions, at),
            mask=jax.lax.dynamic_update_slice(self.mask, mask, at),
            length=self.length + positions.shape[1],
        )


class Image(NamedTuple):
    """What layers that attend to an image are given; see `gated`."""

    keys: Array  # [G B S N H] of each such layer, or [B S N H] of one
    values: Array
    seen: Bool[Array, "R T"]  # whether a token attends to the image


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Merged:
    """Vectors in the place of token ids, such as those of an image among those of words.

    Attributes:
      vectors: [B T E], in the place of what the network's `embed_words` returns.
      together: [B T], the number of a group from 1 on, whose tokens see each other in both
        directions; 0: none. The group passes at once, into a cache that is empty.
      image: for networks whose own layers attend to it.
      places: [3 B T], what rotary positions with three axes are counted from; see `places`.
      added: [K B T E], to what each of the first blocks returns, before the next one receives it.
    """

    vectors: Float[Array, "B T E"]
    together: Int[Array, "B T"] | None = None
    image: Image | None = None
    places: Int[Array, "3 B T"] | None = None
    added: Float[Array, "K B T E"] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and tokens."""
        return self.vectors.shape[:2]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Output:
    """What a forward pass returns.

    Attributes:
      taps: what was asked for. "residual" is [L+1 B T D]: entry 0 is what the first block
        receives, entry i the residual stream after block i, and the last one has passed the
        network's final norm if it has one, as in Hugging Face's `hidden_states`. "attention" and
        "mlp" are [L B T D]: the sublayer's output as it is added to the residual stream. After a
        `Pool` they are [. B ... D].
      cache: the updated cache, if one was given.
      final: [B T D], what the network's `logits` are computed from, never pooled; None of encoders.
        It costs nothing where it is not used.
    """

    taps: dict[str, Array]
    cache: Cache | None = None
    final: Array | None = None

    @property
    def hidden(self) -> Array:
        """The residual stream, [L+1 B T D], or [L+1 B ... D] after a `Pool`."""
        return self.taps["residual"]


class Config:
    """What the configuration of every network offers in addition to its hyperparameters."""

    vocab_size: int  # rows of the embedding
    num_layers: int  # blocks; a pass returns one hidden state more
    width: int  # units of the residual stream
    max_length: int  # most tokens in one row
    # What each entry of the residual stream is, if there are several stacks of blocks.
    layer_names: tuple[str, ...] = ()
    # Whether a token's states depend on no later token.
    causal: bool = False
    # Whether the last entry of the residual stream has passed a final norm.
    final_norm_applied: bool = False
    # Whether the network predicts tokens.
    predicts: bool = False
    # What a pass is given: token ids of "text", pixels of "images" (`vision.Network`), or both
    # ("images and text", `multimodal.Network`).
    reads: str = "text"
    word_table: str = "words/table"  # the parameter that holds a row for each token
    # Fields that are newer than results that are kept by hash: none is hashed at its default.
    later: tuple[str, ...] = ()

    def headed(self, **changes: Any) -> Any:
        """Return the configuration with changes of what predicts tokens."""
        return dataclasses.replace(self, **changes)


def hashed(config: Any) -> dict[str, Any]:
    """Return what a hash of a configuration is made of: its fields, but see `Config.later`.

    Args:
      config: a `Config`, or a dataclass in one.
    """
    later = getattr(config, "later", ())
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in later or value != field.default:
            found[field.name] = hashed(value) if dataclasses.is_dataclass(value) else value
    return found


class Network(Protocol):
    """A network built from its configuration. One that is causal has more: see `decoder`."""

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        *,
        taps: Sequence[str] = ("residual",),
        pool: Pool | None = None,
    ) -> Output:
        """Run all layers.

        Args:
          tokens: token ids, padded on the right.
          mask: False for padding.
          taps: what to return of each layer, names of `TAPS`.
          pool: reduces each layer's activations inside the scan, so that the unpooled ones of all
            layers never exist at once.

        Raises:
          ValueError: if a tap is unknown.
        """
        ...


class Family(NamedTuple):
    """How checkpoints of one model_type are read. The module of a family lists it in `FAMILIES`."""

    network: Callable[..., nnx.Module]  # of a configuration, a dtype and rngs
    keys: keys.Keys  # what config.json may hold
    configure: Callable[..., Any]  # the configuration, of the values of all keys that are read
    tensors: Callable[[Any], Mapping[str, Tensor]]  # parameter path -> where it is stored
    # Patterns of tensors that a network of a configuration does not use: buffers, and heads.
    ignored: Callable[[Any], tuple[str, ...]]
    prefixes: tuple[str, ...] = ()  # that names may have; the first one that fits is cut off
    # Ends of names in older files -> what they are called today.
    old_ends: Mapping[str, str] = types.MappingProxyType({})
    # Beginnings of names in other files -> what they are here; the first one that fits.
    old_beginnings: Mapping[str, str] = types.MappingProxyType({})
    # Tensors that copy another one -> the other one, of which a file may hold either or both.
    copies: Callable[[Any], Mapping[str, str]] = lambda config: {}
    head: str = ""  # the tensor that predicts tokens, if the family has one
    # Completes a configuration by the tensors that a file holds, such as a projection or none.
    fit: Callable[[Any, Collection[str]], Any] = lambda config, names: config
    # Beginnings of names here -> what transformers writes in their place; the first one that fits.
    written: Callable[[Any], Mapping[str, str]] = lambda config: {}
    # What of a checkpoint is in no network of the family, so that none can be written; "": nothing.
    unread: str = ""
    # Where text_config describes all that is in the network: the model_type that it is written as.
    text_alone: str = ""
    # Whether a checkpoint holds two networks, and `configure` takes which (`tower`): "vision" or
    # "text".
    two_towers: bool = False

    def config_from_hf(
        self, hf: Mapping[str, Any], *, source: str = "config.json", **options: Any
    ) -> Any:
        """Read the content of a `config.json`.

        Args:
          hf: the content.
          source: the file, for messages.
          options: of `configure`.

        Raises:
          InputError: if a key is missing, of a wrong type or value, or not known, or asks for a
            variant that is not built.
        """
        owner = str(hf.get("model_type", "the family"))
        values = keys.read(self.keys, hf, source=source, owner=owner)
        return self.configure(values, **options)

    def name(self, stored: str) -> str:
        """Return what a tensor of a checkpoint is called here: its prefix cut, in today's words."""
        prefix = next((p for p in self.prefixes if stored.startswith(p)), "")
        short = stored.removeprefix(prefix)
        for old, new in self.old_beginnings.items():
            if short.startswith(old):
                short = new + short.removeprefix(old)
                break
        for old, new in self.old_ends.items():
            if short.endswith(old):
                return short.removesuffix(old) + new
        return short

    def stored_name(self, name: str, config: Any) -> str:
        """Return what transformers writes for a tensor: `name` turned round.

        Args:
          name: what the tensor is called here, as in `tensors`.
          config: of the network.
        """
        for here, there in self.written(config).items():
            if name.startswith(here):
                return there + name.removeprefix(here)
        return name


def rematerialised(step: Callable, kept: str) -> Callable:
    """Return the step of a scan over blocks that keeps for gradients what `KEPT` says."""
    if kept == "all":
        return step
    # Within a scan nothing undoes it, which is what barriers would prevent.
    return jax.checkpoint(step, policy=KEPT[kept], prevent_cse=False)


def keep_for_gradients(network: nnx.Module, kept: str) -> None:
    """Set what a network keeps of its blocks when gradients are computed.

    Args:
      network: any; it is changed.
      kept: key of `KEPT`.

    Raises:
      ValueError: if it is none.
    """
    if kept not in KEPT:
        raise ValueError(f"kept must be one of {', '.join(KEPT)}, got {kept!r}.")
    for _, module in nnx.iter_modules(network):
        if hasattr(module, "kept_for_gradients"):
            module.kept_for_gradients = kept


class Keep:
    """What a pass keeps of each layer."""

    def __init__(self, taps: Sequence[str], pool: Pool | None):
        """Take the arguments of a pass; see `Network`.

        Raises:
          ValueError: if a tap is unknown.
        """
        if unknown := [tap for tap in taps if tap not in TAPS]:
            raise ValueError(f"taps must be of {', '.join(TAPS)}, got {unknown[0]!r}.")
        self.taps = tuple(tap for tap in TAPS if tap in taps)
        self.pool = pool or (lambda x: x)

    def of_block(self, residual: Array, attention: Array, mlp: Array) -> dict[str, Array]:
        """Return what is kept of one block, inside a scan."""
        values = {"residual": residual, "attention": attention, "mlp": mlp}
        return {tap: self.pool(values[tap]) for tap in self.taps}

    def with_last(self, kept: dict[str, Array], last: Array) -> dict[str, Array]:
        """Replace the last entry of the residual stream by what the final norm makes of it."""
        if "residual" not in kept:
            return kept
        return kept | {"residual": kept["residual"].at[-1].set(self.pool(last))}

    def with_first(self, kept: dict[str, Array], first: Array) -> dict[str, Array]:
        """Put layer 0, what the first block receives, in front of the residual stream."""
        if "residual" not in kept:
            return kept
        residual = jnp.concatenate([self.pool(first)[None], kept["residual"]])
        return kept | {"residual": residual}
