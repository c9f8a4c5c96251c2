"""Make the tiny Hugging Face checkpoints of this folder, and what torch computes from them.

Needs an environment of its own, which no test does:

  pip install torch==2.13.0 'transformers>=5,<6' safetensors numpy
  python tests/golden/make_models.py

Each folder holds `config.json` and `model.safetensors` as `save_pretrained` writes them, a small
`tokenizer.json`, and `expected.npz`: for two lengths T the arrays `tokens_T`, `mask_T`,
`hidden_T` [L+1 B T D] and, of causal models, `logits_T` [B T V]; and `versions`, a JSON text.
"""

import functools

import torch
import transformers
from saved import HERE, Arrays, batches, make_tokenizer, save, stack

# Tokens that count in each row of a batch, by the batch's length: the longest fills its row.
NUM_VALID = {7: (7, 1, 4, 7), 13: (9, 13, 2, 12)}
VOCABULARY = 128


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


def expected(model: torch.nn.Module, generator: torch.Generator) -> Arrays:
    """Run the network on padded and unpadded rows."""
    arrays = {}
    base = getattr(model, "bert", model)
    draw = functools.partial(torch.randint, 1, model.config.vocab_size, generator=generator)
    for length, tokens, mask, given in batches(NUM_VALID, lambda *shape: draw(shape)):
        with torch.no_grad():
            output = base(
                input_ids=tokens, attention_mask=mask.to(torch.int64), output_hidden_states=True
            )
        arrays |= given | {f"hidden_{length}": stack(output.hidden_states)}
        if "logits" in output:
            arrays[f"logits_{length}"] = output.logits.numpy()
    return arrays


def make(name: str, model: torch.nn.Module, tokenizer, seed: int) -> None:
    """Write one folder."""
    generator = torch.Generator().manual_seed(seed)
    model = model.float().eval()
    redraw(model, generator)
    save(HERE / name, model, tokenizer, expected(model, generator))


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
    # Of the smallest vocabulary above.
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    two_ended = make_tokenizer(special, "[CLS] $A [SEP]", VOCABULARY - 1)
    one_ended = make_tokenizer(("<pad>", "<unk>", "<s>", "</s>"), "<s> $A", VOCABULARY - 1)
    # With heads on top: the checkpoint has the prefix `bert.`, a pooler and `cls.` tensors.
    make("bert", transformers.BertForPreTraining(bert), two_ended, seed=1)
    make("llama", transformers.LlamaForCausalLM(untied), one_ended, seed=2)
    make("llama_tied", transformers.LlamaForCausalLM(tied), one_ended, seed=3)


if __name__ == "__main__":
    main()
