"""What scripts here share: batches, and folders of a checkpoint with what it computes."""

import json
import pathlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import safetensors
import tokenizers
import torch
import transformers
from tokenizers import normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
TEXT = """
Once upon a time there was a little girl who had a red ball. She loved to play with it in the
park, and every morning she asked her mother for the key to the garden. One day the ball rolled
under the old wooden gate, and nobody could find it again until the following spring.
"""
Arrays = dict[str, np.ndarray]


def make_tokenizer(special: tuple[str, ...], template: str, size: int) -> tokenizers.Tokenizer:
    """Train a small BPE; its characters are those of printable ASCII in lower case."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=special[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=[chr(c) for c in range(33, 127) if not chr(c).isupper()],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, i) for i, name in enumerate(special)]
    )
    return tokenizer


def batches(
    num_valid: Mapping[int, Sequence[int]], draw: Callable[..., torch.Tensor]
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, Arrays]]:
    """Yield length, tokens, mask, and both as arrays; what stands in the padding is random too.

    Args:
      num_valid: tokens that count in each row of a batch, by the batch's length.
      draw: of a shape, tokens.
    """
    for length, counts in num_valid.items():
        tokens = draw(len(counts), length)
        mask = torch.arange(length)[None] < torch.tensor(counts)[:, None]
        arrays = {
            f"tokens_{length}": tokens.numpy().astype(np.int32),
            f"mask_{length}": mask.numpy(),
        }
        yield length, tokens, mask, arrays


def stack(layers: Sequence[torch.Tensor]) -> np.ndarray:
    """Return layers as one array."""
    return np.stack([layer.numpy() for layer in layers])


def save(
    folder: pathlib.Path, model: torch.nn.Module, tokenizer: tokenizers.Tokenizer, expected: Arrays
) -> None:
    """Write a checkpoint as `save_pretrained` does, its tokenizer, and what torch computes."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)  # written for the owner alone
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    versions = {
        library.__name__: library.__version__
        for library in (torch, transformers, safetensors, tokenizers, np)
    } | {"python": platform.python_version()}
    np.savez_compressed(
        folder / "expected.npz",
        versions=np.array(json.dumps(versions, sort_keys=True)),
        **expected,
    )
