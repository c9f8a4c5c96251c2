"""What models of images and text are asked about each image, in their tokens."""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tokenizers

from jaxalign.data.text import image_prompts, tokenizer_files
from jaxalign.errors import InputError
from jaxalign.literature import published
from jaxalign.models import answers, formats, zoo
from jaxalign.models.families import multimodal
from jaxalign.stages.extract.config import Config

# Sets of instructions that papers have published, with their codes: tables in third_party/.
SETS = {"oota2025": "oota2025/instructions"}
_QFORMER = "qformer_tokenizer"  # folder of InstructBLIP's second tokenizer


class Instruction(NamedTuple):
    """What is asked about each image."""

    name: str  # its code in a published set; else the text
    text: str


class Asked(NamedTuple):
    """What one model is asked, and when its answers end.

    Attributes:
      instructions: one for each row of the prompts.
      frame: what stands around them.
      prompts: their tokens.
      tokenizer: of the language model; None where it is not on this machine.
      stop_tokens: end an answer.
      tokenizer_hash: of all tokenizers that were used; "" where they are not here.
    """

    instructions: tuple[Instruction, ...]
    frame: image_prompts.Frame
    prompts: answers.Prompts
    tokenizer: tokenizers.Tokenizer | None
    stop_tokens: tuple[int, ...]
    tokenizer_hash: str

    def of(self, rows: Sequence[int]) -> answers.Prompts:
        """Return some of the prompts."""
        return answers.Prompts(*(None if x is None else x[list(rows)] for x in self.prompts))


def instructions(names: Sequence[str]) -> tuple[Instruction, ...]:
    """Look up instructions of published sets; any other text is one itself.

    Args:
      names: as the setting has them.

    Raises:
      InputError: if a set has no such code, or two are the same.
    """
    found: list[Instruction] = []
    for name in names:
        which, _, code = name.partition(":")
        if which not in SETS:
            found.append(Instruction(name, name))
            continue
        table = published.table(SETS[which])
        if code and code not in set(table.code):
            raise InputError(
                f"extract.instructions: {which} has {', '.join(table.code)}, found {code!r}."
            )
        table = table[table.code == code] if code else table
        found += map(Instruction, table.code, table.instruction)
    texts = [x.text for x in found]
    if twice := [x for i, x in enumerate(texts) if x in texts[:i]]:
        raise InputError(f"extract.instructions must differ, found twice {twice[0]!r}.")
    return tuple(found)


def ask(config: Config, model: zoo.Model, network: multimodal.Config) -> Asked:
    """Put the instructions into a model's frame, and cut them into tokens.

    Args:
      config: settings.
      model: found.
      network: its configuration for the images at hand.

    Raises:
      InputError: if no frame of the model is known, its tokenizer lacks the image's token, an
        instruction holds it or is too long, or no file names the token that ends an answer.
    """
    asked = instructions(config.instructions)
    if model.model_type not in image_prompts.FRAMES:
        raise InputError(
            f"extract.instructions must be () for {model.name}: how {model.model_type} is asked "
            f"about images is known of {', '.join(image_prompts.FRAMES)}."
        )
    frame = image_prompts.FRAMES[model.model_type]
    texts = [x.text for x in asked]
    new = 0 if config.decoding == "none" else config.answer_tokens
    if model.tokenizer_path is None:  # of a plan for another machine
        image_prompts.check_instructions(texts, frame.image)
        prompts = _estimated(frame, texts, network)
        return Asked(asked, frame, prompts, None, (), "")
    folder = model.tokenizer_path
    tokenizer = tokenizer_files.load(folder)
    # IDEFICS' own words, the image's token among them, have a table apart.
    size = network.vocab_size + getattr(network.language, "num_more_words", 0)
    tokenizer = tokenizer_files.fit(tokenizer, size, model=model.name)
    image = image_prompts.Image(network.image_token, network.num_image_tokens)
    hashes = [tokenizer_files.hash_of(tokenizer)]
    try:
        rows = image_prompts.assemble(
            tokenizer,
            frame,
            texts,
            image,
            longest=network.max_length - (0 if network.has_encoder else new),
        )
        prompts = answers.Prompts(*rows)
        if network.reads_instruction:
            second = tokenizer_files.load(_second(folder))
            second = tokenizer_files.fit(second, network.connector.vocab_size, model=model.name)
            hashes.append(tokenizer_files.hash_of(second))
            longest = network.connector.max_length
            prompts = answers.Prompts(
                *rows, *image_prompts.read_alone(second, texts, longest=longest)
            )
    except InputError as error:
        raise InputError(f"model {model.name}: {error}") from error
    stops = _stop_tokens(folder, tokenizer, frame, model.name) if new else ()
    return Asked(asked, frame, prompts, tokenizer, stops, " ".join(hashes))


def _second(folder: pathlib.Path) -> pathlib.Path:
    path = folder / _QFORMER
    if not path.is_dir():
        raise InputError(
            f"{folder} must hold {_QFORMER}/, the tokenizer of the Q-Former: there is none."
        )
    return path


def _estimated(
    frame: image_prompts.Frame, texts: Sequence[str], network: multimodal.Config
) -> answers.Prompts:
    """Return prompts as long as those of a model that is not here may be."""
    tokenizer = tokenizer_files.stand_in()
    image = [network.image_token] * network.num_image_tokens
    before, after = frame.text.split(image_prompts.IMAGE)
    put = lambda part, text: part.replace(image_prompts.INSTRUCTION, text)
    cut = lambda part, text: tokenizer.encode(put(part, text)).ids
    rows = image_prompts.pad([[*cut(before, x), *image, *cut(after, x)] for x in texts])
    if not network.reads_instruction:
        return answers.Prompts(*rows)
    return answers.Prompts(*rows, *image_prompts.pad([tokenizer.encode(x).ids for x in texts]))


def _stop_tokens(
    folder: pathlib.Path, tokenizer: tokenizers.Tokenizer, frame: image_prompts.Frame, model: str
) -> tuple[int, ...]:
    """Return what ends an answer: as the files for generation say, or else the configuration."""
    found = formats.stop_tokens(folder, "generation_config.json") | _end_token(folder, tokenizer)
    found = found or formats.stop_tokens(folder, "config.json")
    if not found:
        raise InputError(
            f"model {model}: {folder} must name the token that ends an answer: eos_token_id in "
            "generation_config.json, or eos_token in tokenizer_config.json."
        )
    return tuple(sorted({*found, *(tokenizer.token_to_id(x) for x in frame.stop)} - {None}))


def _end_token(folder: pathlib.Path, tokenizer: tokenizers.Tokenizer) -> set[int]:
    """Return the tokenizer's own end of a text, where `tokenizer_config.json` names it."""
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return set()
    try:
        name = json.loads(file.read_text(encoding="utf-8")).get("eos_token")
        name = name["content"] if isinstance(name, dict) else name
    except (ValueError, AttributeError, KeyError) as error:
        raise InputError(f"{file} must hold a JSON object with eos_token: {error!r}.") from error
    known = tokenizer.token_to_id(name) if isinstance(name, str) else None
    return set() if known is None else {known}


def width(prompts: answers.Prompts) -> int:
    """Return the tokens of the longest prompt."""
    return int(np.asarray(prompts.mask).sum(axis=1).max())
