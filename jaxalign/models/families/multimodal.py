"""Models of images and text: a vision tower, a connector, and a language model that reads both.

The language model is one that is there for text (`decoder`, `encoder_decoder`) and knows nothing of
images: it takes vectors in the place of tokens, those of the image where the prompt has the image's
token. So a text without an image passes the language model alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.errors import InputError
from jaxalign.models.families import (
    base,
    clip,
    connectors,
    encoder_decoder,
    gated,
    gpt,
    llama,
    owl_tower,
    places,
    qwen_tower,
    resamplers,
    t5,
    vit,
)
from jaxalign.models.families.base import Family
from jaxalign.models.weights import Tensor

LANGUAGES = {**llama.FAMILIES, **gpt.FAMILIES, **t5.FAMILIES}
# With those that are read as a part alone.
_LANGUAGES = {**LANGUAGES, "idefics": gated.LANGUAGE}
_TOWERS = {
    **clip.FAMILIES,
    "instructblip_vision_model": clip.FAMILIES["blip_2_vision_model"],
    "mplug_owl_vision_model": owl_tower.FAMILY,
    "qwen2_vl": qwen_tower.FAMILY,
    "qwen2_5_vl": qwen_tower.FAMILY,
    "qwen3_vl": qwen_tower.FAMILY,
}
_CONNECTORS = {
    connectors.PoolingConfig: connectors.Pooling,
    connectors.ProjectionConfig: connectors.Projection,
    connectors.QFormerConfig: connectors.QFormer,
    resamplers.AbstractorConfig: resamplers.Abstractor,
    resamplers.PerceiverConfig: resamplers.Perceiver,
    qwen_tower.MergerConfig: qwen_tower.Merger,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Hyperparameters: those of the three parts, and how they are joined.

    Attributes:
      design: the model_type, with those of the parts.
      image_token: id that stands at each of the image's positions; -1: none of the vocabulary,
        but prompts hold it all the same.
      num_image_tokens: such positions for each image.
      without_cls: whether the connector is given the patches alone.
      num_unused_layers: of the tower, after those that the connector's states pass.
      attends: whether the language model's own layers attend to the connector's vectors, and the
        image's token in the prompt is a word like others.
      has_places: whether the language model is told an image's rows and columns.
      grid: of the image's tokens, where images may have any size; see `for_images`.
      num_added: blocks of the language model, from the first on, behind which vectors of their own
        are added to an image's tokens.
      prompt_together: whether the tokens of a prompt see each other in both directions.
      image_together: whether those of an image do.
    """

    reads: ClassVar[str] = "images and text"
    word_table: ClassVar[str] = "language/words/table"

    design: tuple[str, str, str]  # of the whole, its vision tower, its language model
    vision: Any  # a `vision.Config`
    connector: Any  # of `_CONNECTORS`
    language: Any  # a `decoder.Config` or `encoder_decoder.Config`
    image_token: int
    num_image_tokens: int
    without_cls: bool = False
    num_unused_layers: int = 0
    attends: bool = False
    has_places: bool = False
    grid: tuple[int, int] = (0, 0)
    num_added: int = 0
    prompt_together: bool = False
    image_together: bool = False

    @property
    def vocab_size(self) -> int:
        """Rows of the language model's embedding."""
        return self.language.vocab_size

    @property
    def num_layers(self) -> int:
        """Blocks of the language model."""
        return self.language.num_layers

    @property
    def width(self) -> int:
        """Units of the language model's residual stream."""
        return self.language.width

    @property
    def max_length(self) -> int:
        """Most tokens of prompt and answer, the image's included."""
        return self.language.max_length

    @property
    def layer_names(self) -> tuple[str, ...]:
        """What each layer of the language model is, where it has two stacks."""
        return self.language.layer_names

    @property
    def causal(self) -> bool:
        """Whether a token's states depend on no later token."""
        return self.language.causal and not self.prompt_together

    @property
    def final_norm_applied(self) -> bool:
        """Whether the language model's last state has passed a final norm."""
        return self.language.final_norm_applied

    @property
    def predicts(self) -> bool:
        """Whether the language model predicts tokens."""
        return self.language.predicts

    @property
    def tied_embeddings(self) -> bool:
        """Whether the table of words predicts tokens too."""
        return self.language.tied_embeddings

    @property
    def head_bias(self) -> bool:
        """Whether the predictions have a bias."""
        return getattr(self.language, "head_bias", False)

    @property
    def reads_instruction(self) -> bool:
        """Whether the image's vectors depend on the instruction."""
        return getattr(self.connector, "reads_text", False)

    @property
    def has_encoder(self) -> bool:
        """Whether prompts pass an encoder, and a decoder writes the answers."""
        return isinstance(self.language, encoder_decoder.Config)

    @property
    def shares_prefix(self) -> bool:
        """Whether what prompts have in common at their beginning has the same states in all."""
        return self.causal and not self.reads_instruction

    def for_images(self, height: int, width: int) -> "Config":
        """Return the configuration for images of one size, in pixels.

        Raises:
          InputError: if the vision tower does not take them.
        """
        try:
            if self.has_places:
                rows, columns = (n // self.vision.merge for n in self.vision.grid(height, width))
                changes = {"grid": (rows, columns), "num_image_tokens": rows * columns}
                return dataclasses.replace(self, **changes)
            if (height, width) != self.vision.image_size:
                wanted = "x".join(map(str, self.vision.image_size))
                raise ValueError(f"pixels must be {wanted}, got {height}x{width}.")
        except ValueError as error:
            raise InputError(f"images do not fit the vision tower: {error}") from error
        return self

    def headed(self, **changes: Any) -> "Config":
        """Return the configuration with changes of the language model's head."""
        return dataclasses.replace(self, language=dataclasses.replace(self.language, **changes))


_NOTHING = base.Keep((), None)


class Seen(NamedTuple):
    """What the vision tower makes of images: computed once, whatever is asked about them."""

    states: Float[Array, "B S D"]  # what the connector reads
    taps: dict[str, Array]  # what was asked for of the tower's layers


class Network(nnx.Module):
    """Vision tower, connector, language model."""

    def __init__(self, config: Config, *, dtype, rngs: nnx.Rngs):
        """Draw the weights of all parts."""
        make = lambda part, parts: parts(part, dtype=dtype, rngs=rngs)
        self.vision = make(config.vision, _TOWERS[config.design[1]].network)
        self.connector = make(config.connector, _CONNECTORS[type(config.connector)])
        self.language = make(config.language, _LANGUAGES[config.design[2]].network)
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, "B T"] | base.Merged,
        mask: Bool[Array, "B T"],
        *,
        taps: Sequence[str] = ("residual",),
        pool: base.Pool | None = None,
        **options: Any,
    ) -> base.Output:
        """Run the language model over a text, or over what `merge` returns.

        Args:
          tokens: of the text, or vectors in their place.
          mask: False for padding.
          taps: what to return of each layer; see `base.Network`.
          pool: of what is returned.
          options: of the language model; see `decoder.Network`.
        """
        return self.language(tokens, mask, taps=taps, pool=pool, **options)

    def see(
        self,
        pixels: Float[Array, "B C H W"],
        *,
        taps: Sequence[str] = ("residual",),
        pool: base.Pool | None = None,
    ) -> Seen:
        """Run the vision tower.

        Args:
          pixels: of images, from `data.images.pixels`; channels first.
          taps: what to return of each of its layers; see `base.Network`.
          pool: of what is returned.
        """
        output = self.vision(pixels, taps=taps, pool=pool)
        states = output.final
        if self.config.without_cls:
            states = self.vision.patches(states)
        return Seen(states, output.taps)

    def connect(
        self,
        states: Float[Array, "B S D"],
        instructions: Int[Array, "R T"] | None = None,
        mask: Bool[Array, "R T"] | None = None,
        *,
        keep: base.Keep = _NOTHING,
    ) -> tuple[Float[Array, "R n E"], dict[str, Array]]:
        """Return the image's vectors for the language model, and what is kept of a Q-Former.

        Those that are added behind blocks (`Config.num_added`) stand behind the first ones in the
        last axis.

        Args:
          states: from `see`.
          instructions: where `Config.reads_instruction`, in tokens of the Q-Former's own
            tokenizer: as many neighbouring rows for each image.
          mask: False for padding.
          keep: of the Q-Former's layers.
        """
        if isinstance(self.connector, connectors.QFormer):
            return self.connector(states, instructions, mask, keep=keep)
        return self.connector(states), {}

    def merge(
        self, tokens: Int[Array, "R T"], vectors: Float[Array, "B n E"]
    ) -> Int[Array, "R T"] | base.Merged:
        """Return the vectors of a prompt's words, and those of its image at the image's positions.

        A prompt whose image is attended to stays as it is.

        Args:
          tokens: with the image's token at `n` positions of each row, or at none.
          vectors: from `connect`, of as many neighbouring rows each.
        """
        c = self.config
        if c.attends:
            return tokens
        is_image = tokens == c.image_token
        words = self.language.embed_words(jnp.clip(tokens, 0, c.vocab_size - 1))
        vectors = jnp.repeat(vectors, len(tokens) // len(vectors), axis=0)
        at = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, vectors.shape[1] - 1)
        image = jnp.take_along_axis(vectors, at[..., None], axis=1).astype(words.dtype)
        image, *added = jnp.split(image, 1 + c.num_added, axis=-1)
        merged = jnp.where(is_image[..., None], image, words)
        added = jnp.stack(added) * is_image[None, ..., None] if added else None
        together = jnp.ones(tokens.shape, jnp.int32) if c.prompt_together else None
        together = is_image.astype(jnp.int32) if c.image_together else together
        at = places.of_tokens(is_image, c.grid) if c.has_places else None
        return base.Merged(merged, together, places=at, added=added)

    def reader(self, vectors: Float[Array, "B n E"]) -> nnx.Module | gated.Reader | places.Reader:
        """Return what reads prompts about images: a causal network; see `decoder.Network`.

        Args:
          vectors: from `connect`, for language models that attend to them.
        """
        if self.config.has_places:
            return places.Reader(self.language, places.shift(self.config.grid))
        if not self.config.attends:
            return self.language
        return gated.Reader(self.language, *self.language.project(vectors))

    def logits(self, final: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Predict the next token; see the language model's."""
        return self.language.logits(final)

    def empty_cache(self, batch: int, length: int) -> base.Cache:
        """Return a cache of the language model's."""
        return self.language.empty_cache(batch, length)


# Reading checkpoints.

# Hyperparameters that published files leave out of `text_config`: transformers' own defaults.
_TEXT_DEFAULTS = {
    "llama": {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "opt": {
        "vocab_size": 50_272,
        "hidden_size": 768,
        "ffn_dim": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "t5": {"vocab_size": 32_128, "d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
}


def read_language(values: Mapping[str, Any], *, known: str = "") -> tuple[str, Any]:
    """Return model_type and configuration of the language model.

    Args:
      values: of the keys of config.json; `text_config` is the language model's.
      known: keys of it that are of the whole, between spaces.

    Raises:
      InputError: if it is of no family that is built here, or does not fit its own.
    """
    found = {k: x for k, x in values["text_config"].items() if k not in known.split()}
    kind = found.setdefault("model_type", "llama")
    _refuse("text_config", kind, LANGUAGES)
    found = _TEXT_DEFAULTS.get(kind, {}) | found
    return kind, LANGUAGES[kind].config_from_hf(found, source="config.json: text_config")


def read_tower(
    values: Mapping[str, Any], kind: str, *, known: str = "", layer: int = -1
) -> tuple[str, Any]:
    """Return model_type and configuration of the vision tower, without what nothing is read from.

    Args:
      values: of the keys of config.json; `vision_config` is the tower's.
      kind: its model_type, where the file says none.
      known: keys of it that are of the whole, between spaces.
      layer: of the tower, after which nothing is computed; from the end if negative.

    Raises:
      InputError: if it is of no family that is built here, or has no such layer.
    """
    found = {k: x for k, x in values["vision_config"].items() if k not in known.split()}
    kind = found.setdefault("model_type", kind)
    _refuse("vision_config", kind, _TOWERS)
    config = _TOWERS[kind].config_from_hf(found, source="config.json: vision_config")
    last = layer if layer >= 0 else config.num_layers + 1 + layer
    if not 1 <= last <= config.num_layers:
        raise InputError(
            f"config.json: vision_feature_layer must be one of the {config.num_layers} of the "
            f"vision tower, found {layer}."
        )
    # Images have no other place in a space shared with texts than their tokens.
    return kind, dataclasses.replace(config, num_layers=last, projection=0, attention_pool=False)


def _refuse(part: str, kind: Any, built: Mapping[str, Family]) -> None:
    if kind not in built:
        raise InputError(
            f"config.json: {part}.model_type must be one of {', '.join(sorted(built))}, "
            f"found {kind!r}."
        )


def part_tensors(
    config: Config, connector: Mapping[str, Tensor], *, vision: str, language: str
) -> dict[str, Tensor]:
    """Name the tensors of all parts.

    Args:
      config: of the whole.
      connector: parameter path -> tensor, of the connector.
      vision: what stands before the names of the tower's tensors.
      language: what stands before those of the language model.
    """
    parts = {
        "vision": (vision, _TOWERS[config.design[1]].tensors(config.vision)),
        "language": (language, _LANGUAGES[config.design[2]].tensors(config.language)),
    }
    named = {f"connector/{path}": tensor for path, tensor in connector.items()}
    for ours, (theirs, tensors) in parts.items():
        for path, tensor in tensors.items():
            named[f"{ours}/{path}"] = tensor._replace(name=theirs + tensor.name)
    return named


def part_ignored(config: Config, *others: str, vision: str, language: str) -> tuple[str, ...]:
    """Return patterns of tensors that the parts leave unread.

    Args:
      config: of the whole.
      others: more patterns.
      vision, language: as of `part_tensors`, as regular expressions.
    """
    tower, text = _TOWERS[config.design[1]], _LANGUAGES[config.design[2]]
    used = config.vision.num_layers
    after = "|".join(str(used + i) for i in range(config.num_unused_layers))
    if after:
        others += (rf"{vision}encoder\.layers\.({after})\..*",)
    return (
        *(vision + pattern for pattern in tower.ignored(config.vision)),
        *(language + pattern for pattern in text.ignored(config.language)),
        *others,
    )


def part_copies(config: Config, *, language: str) -> dict[str, str]:
    """Return which tensors of the language model copy others; see `base.Family.copies`."""
    found = _LANGUAGES[config.design[2]].copies(config.language)
    return {language + copy: language + original for copy, original in found.items()}


def part_written(config: Config, *, language: str) -> dict[str, str]:
    """Return how names of the language model's tensors begin; see `base.Family.written`."""
    found = _LANGUAGES[config.design[2]].written(config.language)
    return {language + here: language + there for here, there in found.items()}


def projection_tensors(names: Mapping[str, str]) -> dict[str, Tensor]:
    """Name weights and biases of linear maps and norms: our module -> theirs."""
    tensors = {}
    for ours, theirs in names.items():
        tensors |= (vit.norm if ours.endswith("norm") else vit.linear)(ours, theirs)
    return tensors
