"""Make the tiny Hugging Face checkpoints of this folder, and what torch computes from them.

Needs an environment of its own, which no test does:

  pip install torch==2.13.0 'transformers>=5,<6' safetensors numpy
  python tests/golden/make_models.py

Each folder holds `config.json` and `model.safetensors` as `save_pretrained` writes them, a small
`tokenizer.json`, and `expected.npz`: for two lengths T the arrays `tokens_T`, `mask_T`,
`hidden_T` [L+1 B T D] and, of causal models, `logits_T` [B T V]; and `versions`, a JSON text.
"""

import json
import pathlib
import platform

import numpy as np
import safetensors
import tokenizers
import torch
import transformers
from tokenizers import normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
# Tokens that count in each row of a batch, by the batch's length: the longest fills its row.
NUM_VALID = {7: (7, 1, 4, 7), 13: (9, 13, 2, 12)}
VOCABULARY = 128
TEXT = """
Once upon a time there was a little girl who had a red ball. She loved to play with it in the
park, and every morning she asked her mother for the key to the garden. One day the ball rolled
under the old wooden gate, and nobody could find it again until the following spring.
"""


def make_tokenizer(
    special: tuple[str, ...], template: str, size: int = VOCABULARY - 1
) -> tokenizers.Tokenizer:
    """Train a small BPE; its characters are those of printable ASCII in lower case."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=special[1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=size,  # by default the smallest vocabulary of a model below
        special_tokens=list(special),
        initial_alphabet=[chr(c) for c in range(33, 127) if not chr(c).isupper()],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, i) for i, name in enumerate(special)]
    )
    return tokenizer


def redraw(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Give every parameter a value that a forward pass cannot overlook.

    Initialisation hides bugs: a zero bias may be dropped, a unit scale forgotten, and weights of
    size 0.02 leave the attention uniform.
    """
    draw = lambda p: torch.randn(p.shape, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "LayerNorm.weight", "layernorm.weight")):
                parameter.copy_(1 + 0.3 * draw(parameter))
            elif parameter.ndim == 1:
                parameter.copy_(0.3 * draw(parameter))
            elif "embed" in name:
                parameter.copy_(draw(parameter))
            else:
                parameter.copy_(1.2 * draw(parameter) / parameter.shape[1] ** 0.5)


def expected(model: torch.nn.Module, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Run the network on padded and unpadded rows; what stands in the padding is random too."""
    arrays = {}
    base = getattr(model, "bert", model)
    for length, num_valid in NUM_VALID.items():
        tokens = torch.randint(
            1, model.config.vocab_size, (len(num_valid), length), generator=generator
        )
        mask = torch.arange(length)[None] < torch.tensor(num_valid)[:, None]
        with torch.no_grad():
            output = base(
                input_ids=tokens, attention_mask=mask.to(torch.int64), output_hidden_states=True
            )
        arrays |= {
            f"tokens_{length}": tokens.numpy().astype(np.int32),
            f"mask_{length}": mask.numpy(),
            f"hidden_{length}": np.stack([layer.numpy() for layer in output.hidden_states]),
        }
        if "logits" in output:
            arrays[f"logits_{length}"] = output.logits.numpy()
    return arrays


def save(name: str, model: torch.nn.Module, tokenizer: tokenizers.Tokenizer, seed: int) -> None:
    """Write one folder."""
    generator = torch.Generator().manual_seed(seed)
    model = model.float().eval()
    redraw(model, generator)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
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
        **expected(model, generator),
    )


def main() -> None:
    """Make all folders. No hyperparameter that a design could forget has its usual value."""
    bert = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=128,
        layer_norm_eps=1e-3,
        initializer_range=0.03,
        attn_implementation="eager",
    )
    llama = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-3,
        "initializer_range": 0.03,
        "attn_implementation": "eager",
    }
    # The odd vocabulary does not divide by two devices.
    untied = transformers.LlamaConfig(
        vocab_size=VOCABULARY - 1,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        tie_word_embeddings=False,
        **llama,
    )
    tied = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        head_dim=12,
        **llama,
    )
    two_ended = make_tokenizer(("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "[CLS] $A [SEP]")
    one_ended = make_tokenizer(("<pad>", "<unk>", "<s>", "</s>"), "<s> $A")
    # With heads on top: the checkpoint has the prefix `bert.`, a pooler and `cls.` tensors.
    save("bert", transformers.BertForPreTraining(bert), two_ended, seed=1)
    save("llama", transformers.LlamaForCausalLM(untied), one_ended, seed=2)
    save("llama_tied", transformers.LlamaForCausalLM(tied), one_ended, seed=3)


if __name__ == "__main__":
    main()
