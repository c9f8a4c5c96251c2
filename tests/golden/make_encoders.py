"""Make the tiny T5 and RoBERTa checkpoints of this folder, and what torch computes from them.

Needs the environment that `make_models.py` names, and is run as it is:

  python tests/golden/make_encoders.py

`roberta` is as the folders of `make_models.py`. The `t5` folders hold in `expected.npz`, for two
lengths T, `tokens_T` and `mask_T`, and of three ways to read a text:

- `encoder_T` [E+1 B T D]: hidden states of the encoder;
- `decoder_T` [L+1 B T+1 D] and `logits_T` [B T+1 V]: the decoder behind its start token, with the
  text in the encoder too;
- `causal_decoder_T` and `causal_logits_T`: the same with nothing but the end token in the encoder;

and `attention_T`, `mlp_T`: what those parts of every block add, the encoder's blocks first; and
`buckets_*`: buckets of relative positions -300 ... 300, with settings in the name.
"""

import functools

import make_models
import numpy as np
import torch
import transformers
from saved import HERE, Arrays, batches, make_tokenizer, save, stack
from transformers.models.t5 import modeling_t5

END, START = 2, 3
BUCKETS = ((32, 128), (8, 10), (12, 40))


class Recorder:
    """Keeps what modules return, in the order in which they were called."""

    def __init__(self, modules):
        """Hook them."""
        self.values = []
        for module in modules:
            module.register_forward_hook(self._keep)

    def _keep(self, module, inputs, output):
        self.values.append(output[0] if isinstance(output, tuple) else output)

    def take(self) -> list[np.ndarray]:
        """Return and forget."""
        values, self.values = [x.numpy() for x in self.values], []
        return values


def draw(model, low: int, generator: torch.Generator):
    """Return what draws tokens of a shape, from `low` on."""
    some = functools.partial(torch.randint, low, model.config.vocab_size, generator=generator)
    return lambda *shape: some(shape)


def without_start(values: list[np.ndarray], length: int) -> np.ndarray:
    """Return layers as one array, without the decoder's start token."""
    return np.stack([x[:, -length:] for x in values])


def expected_roberta(model, generator: torch.Generator) -> Arrays:
    """Run the encoder. No token is the padding token, at which RoBERTa's positions would halt."""
    arrays = {}
    blocks = model.roberta.encoder.layer
    attention = Recorder(block.attention.output.dense for block in blocks)
    mlp = Recorder(block.output.dense for block in blocks)
    drawn = draw(model, 2, generator)
    for length, tokens, mask, given in batches(make_models.NUM_VALID, drawn):
        output = model.roberta(
            input_ids=tokens, attention_mask=mask.long(), output_hidden_states=True
        )
        arrays |= given | {
            f"hidden_{length}": stack(output.hidden_states),
            f"attention_{length}": np.stack(attention.take()),
            f"mlp_{length}": np.stack(mlp.take()),
        }
    return arrays


def expected_t5(model, generator: torch.Generator) -> Arrays:
    """Run both stacks, in both ways."""
    arrays = {}
    blocks = [*model.encoder.block, *model.decoder.block]
    attention = Recorder(block.layer[0].SelfAttention for block in blocks)
    mlp = Recorder(block.layer[-1].DenseReluDense for block in blocks)
    drawn = draw(model, 0, generator)
    for length, tokens, mask, given in batches(make_models.NUM_VALID, drawn):
        batch = len(tokens)
        read = {
            "decoder_input_ids": torch.cat([torch.full((batch, 1), START), tokens], dim=1),
            "decoder_attention_mask": torch.cat([torch.ones(batch, 1), mask], dim=1).long(),
            "output_hidden_states": True,
        }
        output = model(input_ids=tokens, attention_mask=mask.long(), **read)
        arrays |= given | {
            f"encoder_{length}": stack(output.encoder_hidden_states),
            f"decoder_{length}": stack(output.decoder_hidden_states),
            f"logits_{length}": output.logits.numpy(),
            f"attention_{length}": without_start(attention.take(), length),
            f"mlp_{length}": without_start(mlp.take(), length),
        }
        output = model(input_ids=torch.full((batch, 1), END), **read)
        attention.take(), mlp.take()
        arrays |= {
            f"causal_decoder_{length}": stack(output.decoder_hidden_states),
            f"causal_logits_{length}": output.logits.numpy(),
        }
    distance = torch.arange(-300, 301)
    for buckets, furthest in BUCKETS:
        for both in (True, False):
            arrays[f"buckets_{buckets}_{furthest}_{int(both)}"] = (
                modeling_t5.T5Attention._relative_position_bucket(distance, both, buckets, furthest)
                .numpy()
                .astype(np.int8)
            )
    return arrays


@torch.no_grad()
def make(name, model, tokenizer, seed, expected) -> None:
    """Write one folder."""
    generator = torch.Generator().manual_seed(seed)
    model = model.float().eval()
    make_models.redraw(model, generator)
    for key, parameter in model.named_parameters():
        # T5 leaves it to its queries to keep the scores small. With large ones the attention is
        # all or nothing, and float32 itself would be a coarse measure.
        if key.endswith("Attention.q.weight"):
            parameter.mul_(0.4)
    save(HERE / name, model, tokenizer, expected(model, generator))


def make_t5(*, tied: bool, **settings) -> transformers.T5ForConditionalGeneration:
    """Build a T5; transformers 5 ties the head unless told otherwise after the configuration."""
    config = transformers.T5Config(
        vocab_size=make_models.VOCABULARY,
        d_model=24,
        d_kv=10,
        d_ff=40,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=10,
        layer_norm_epsilon=1e-3,
        initializer_factor=0.5,
        pad_token_id=0,
        eos_token_id=END,
        decoder_start_token_id=START,
        tie_word_embeddings=tied,
        attn_implementation="eager",
        **settings,
    )
    config.tie_word_embeddings = tied
    model = transformers.T5ForConditionalGeneration(config)
    # One table for both stacks, as in every published checkpoint; only the head is untied.
    model.set_input_embeddings(model.shared)
    return model


def main() -> None:
    """Make all folders. No hyperparameter that a design could forget has its usual value."""
    roberta = transformers.RobertaConfig(
        vocab_size=make_models.VOCABULARY,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=34,
        type_vocab_size=1,
        layer_norm_eps=1e-3,
        initializer_range=0.03,
        attn_implementation="eager",
    )
    size = make_models.VOCABULARY - 1
    one_ended = make_tokenizer(("<pad>", "<unk>", "</s>"), "$A </s>", size)
    two_ended = make_tokenizer(("<s>", "<pad>", "</s>", "<unk>"), "<s> $A </s>", size)
    make("roberta", transformers.RobertaForMaskedLM(roberta), two_ended, 4, expected_roberta)
    first = make_t5(tied=True, num_layers=2, num_decoder_layers=3, feed_forward_proj="relu")
    make("t5_v1_0", first, one_ended, 5, expected_t5)
    second = make_t5(tied=False, num_layers=3, num_decoder_layers=2, feed_forward_proj="gated-gelu")
    make("t5_v1_1", second, one_ended, 6, expected_t5)


if __name__ == "__main__":
    main()
