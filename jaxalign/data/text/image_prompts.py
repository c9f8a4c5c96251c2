"""Prompts about an image: instructions in the frame of a model, in tokens.

A frame is what a model was tuned to see around an instruction, with the place of the image. The
image takes as many tokens as its model has vectors for it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Bool, Int

from jaxalign.errors import InputError

IMAGE, INSTRUCTION = "{image}", "{instruction}"


class Frame(NamedTuple):
    """What stands around an instruction.

    Attributes:
      text: with `{image}` once, and `{instruction}` once.
      joined: how the image's tokens and the text become one row. "inside": the text is cut into
        tokens with the image's among them. "before": the image comes first, before what the
        tokenizer puts at the beginning of a text. "apart": what stands before the image and after
        it is cut into tokens by itself.
      special_tokens: whether the tokenizer adds its special tokens.
      image: how the image's token is written.
      stop: tokens that end an answer, beside those that the model names.
    """

    text: str
    joined: str = "inside"
    special_tokens: bool = True
    image: str = "<image>"
    stop: tuple[str, ...] = ()


_QWEN3 = Frame(
    "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{instruction}<|im_end|>\n"
    "<|im_start|>assistant\n",
    special_tokens=False,
    image="<|image_pad|>",
)
_QWEN = _QWEN3._replace(
    text="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + _QWEN3.text
)
# model_type -> how its authors ask. Sources: the model cards; for the models of Oota et al. (2025)
# their code (subbareddy248/mllm_instruction_brain, d7b576e).
FRAMES = {
    "blip-2": Frame("{image}{instruction}", "before"),
    "instructblip": Frame("{image}{instruction}", "before"),
    "llava": Frame("USER: {image}\n{instruction}\nASSISTANT:"),
    "paligemma": Frame("{image}<bos>{instruction}\n", special_tokens=False),
    "idefics": Frame(
        "User: {instruction}<fake_token_around_image>{image}<fake_token_around_image>"
        "<end_of_utterance>\nAssistant:",
        stop=("<end_of_utterance>",),
    ),
    "mplug-owl": Frame(
        "The following is a conversation between a curious human and AI assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions.\n"
        "Human: {image}\nHuman: {instruction}\nAI:",
        "apart",
    ),
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN3,
    "gemma3": Frame(
        "<bos><start_of_turn>user\n\n\n<start_of_image>{image}<end_of_image>\n\n{instruction}"
        "<end_of_turn>\n<start_of_turn>model\n",
        special_tokens=False,
        image="<image_soft_token>",
        stop=("<end_of_turn>",),
    ),
}


class Image(NamedTuple):
    """The image's token.

    Attributes:
      token: its id; -1: it is none of the tokenizer's.
      count: how many of them an image has.
    """

    token: int
    count: int


class Rows(NamedTuple):
    """Rows of tokens, padded on the right."""

    tokens: Int[np.ndarray, "Q T"]
    mask: Bool[np.ndarray, "Q T"]  # False for padding


def check_instructions(instructions: Sequence[str], image: str) -> None:
    """Refuse instructions that cannot be told from the image.

    Args:
      instructions: as they are asked.
      image: how the image's token is written.

    Raises:
      InputError: if there are none, or one is empty or holds the image's token.
    """
    if not instructions:
        raise InputError("instructions must be at least one: there is none.")
    for text in instructions:
        if not text.strip():
            raise InputError(f"instructions must say something, found {text!r}.")
        if image in text:
            raise InputError(
                f"instructions must not hold the image's token {image}, found {text!r}."
            )


def assemble(
    tokenizer: tokenizers.Tokenizer,
    frame: Frame,
    instructions: Sequence[str],
    image: Image,
    *,
    longest: int,
) -> Rows:
    """Put instructions and image into a frame, and cut them into tokens.

    Args:
      tokenizer: the language model's.
      frame: what stands around each instruction.
      instructions: as they are asked.
      image: the image's token.
      longest: most tokens of a row: what the model takes, less what it is to answer.

    Raises:
      InputError: if an instruction holds the image's token, the tokenizer has none or another one,
        a frame has no place for the image or the instruction, or a row is too long.
    """
    check_instructions(instructions, frame.image)
    for place in (IMAGE, INSTRUCTION):
        if frame.text.count(place) != 1:
            raise InputError(f"a frame must hold {place} once, found {frame.text!r}.")
    if frame.joined == "inside":
        known = tokenizer.token_to_id(frame.image)
        if known is None or known != image.token:
            raise InputError(
                f"the tokenizer must have the image's token {frame.image} as id {image.token}: "
                f"{'it has none' if known is None else f'its id is {known}'}."
            )
    rows = []
    for instruction in instructions:
        row = _row(tokenizer, frame, instruction, image)
        if len(row) > longest:
            raise InputError(
                f"an instruction and its frame must have at most {longest} tokens, found "
                f"{len(row)}: {instruction!r}."
            )
        if row.count(image.token) != image.count:
            raise InputError(
                f"a prompt must hold the image's token {image.count} times, found "
                f"{row.count(image.token)}: {instruction!r}."
            )
        rows.append(row)
    return pad(rows)


def _row(tokenizer, frame: Frame, instruction: str, image: Image) -> list[int]:
    text = frame.text.replace(INSTRUCTION, instruction)
    before, after = text.split(IMAGE)
    cut = lambda text: tokenizer.encode(text, add_special_tokens=frame.special_tokens).ids
    tokens = [image.token] * image.count
    if frame.joined == "inside":
        return cut(before + frame.image * image.count + after)
    if frame.joined == "before":
        return [*tokens, *cut(before + after)]
    lone = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    return [*cut(before), *tokens, *lone(after)]


def read_alone(
    tokenizer: tokenizers.Tokenizer, instructions: Sequence[str], *, longest: int
) -> Rows:
    """Cut instructions into tokens for a Q-Former, with the special tokens of its own tokenizer.

    Raises:
      InputError: if one is longer than `longest` tokens.
    """
    rows = [tokenizer.encode(text).ids for text in instructions]
    for row, text in zip(rows, instructions, strict=True):
        if len(row) > longest:
            raise InputError(
                f"an instruction must have at most {longest} tokens of the Q-Former, found "
                f"{len(row)}: {text!r}."
            )
    return pad(rows)


def texts(
    tokenizer: tokenizers.Tokenizer, tokens: Int[np.ndarray, "R n"], lengths: Int[np.ndarray, " R"]
) -> list[str]:
    """Return what answers say, without special tokens and spaces at their ends; "" of empty ones.

    Args:
      tokenizer: the language model's.
      tokens: of the answers.
      lengths: how many of them count in each.
    """
    return [
        tokenizer.decode(row[:length].tolist(), skip_special_tokens=True).strip()
        for row, length in zip(tokens, lengths, strict=True)
    ]


def pad(rows: Sequence[Sequence[int]]) -> Rows:
    """Return rows of tokens as one array; padding is token 0."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max())[None] < lengths[:, None]
    tokens = np.zeros(mask.shape, np.int32)
    tokens[mask] = [token for row in rows for token in row]
    return Rows(tokens, mask)
