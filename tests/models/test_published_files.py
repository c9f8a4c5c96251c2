"""A name in the table loads what was published under it: names of tensors, and vocabularies.

What is written here is what public records say of the published files: headers and indices of
checkpoints, model cards, and the issues of transformers that are named.
"""

import pathlib

import numpy as np
import pytest
import tokenizers
from tokenizers import models

from jaxalign.data.text import tokenizer_files
from jaxalign.models import readers, table, weights, zoo

GAMMA = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
BERT_HEADS = (
    "bert.pooler.dense.weight",
    "cls.predictions.bias",
    "cls.predictions.transform.dense.weight",
    "cls.predictions.transform.LayerNorm.{}",
    "cls.seq_relationship.weight",
)
MASKS = ("h.0.attn.bias", "h.0.attn.masked_bias")
ROTARY = "model.layers.0.self_attn.rotary_emb.inv_freq"

# Row: prefix of its tensors, what else is in the file, and ends that have other names.
TENSORS = {
    "gpt2-small": ("", MASKS[:1], {}),
    "gpt2-small-alpaca": (
        "transformer.",
        (*(f"transformer.{x}" for x in MASKS), "lm_head.weight"),
        {},
    ),
    "opt-125m": ("model.", ("lm_head.weight", "model.decoder.version"), {}),  # metaseq#164
    "opt-350m": ("model.", ("lm_head.weight",), {}),
    "pythia-70m": (
        "gpt_neox.",
        tuple(
            f"gpt_neox.layers.0.attention.{x}"
            for x in ("bias", "masked_bias", "rotary_emb.inv_freq")
        ),
        {},
    ),
    "gpt-j-6b": ("transformer.", tuple(f"transformer.{x}" for x in MASKS), {}),
    "bloom-560m": ("", (), {}),
    "vicuna-7b": ("model.", (ROTARY,), {}),
    "llama-3.2-1b": ("model.", (), {}),
    "mistral-7b": ("model.", (), {}),
    "qwen2-0.5b": ("model.", (), {}),
    "qwen3-0.6b": ("model.", ("lm_head.weight",), {}),
    "gemma-2b": ("model.", (), {}),
    "gemma-2-2b": ("model.", (), {}),
    "gemma-3-270m": ("model.", (), {}),
    "phi-3-mini": ("model.", (), {}),
    "t5-small": ("", ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), {}),
    "t5-v1.0-small": (
        "",
        ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
        {},
    ),
    # candle#1887, transformers#11809
    "bert-base-uncased": ("bert.", tuple(x.format("gamma") for x in BERT_HEADS), GAMMA),
    "bert-large-cased": ("bert.", tuple(x.format("gamma") for x in BERT_HEADS), GAMMA),
    "MiniLM-L12-H384-uncased": ("bert.", tuple(x.format("weight") for x in BERT_HEADS), {}),
    "all-MiniLM-L12-v2": ("", ("embeddings.position_ids", "pooler.dense.weight"), {}),
    # transformers#6193, NewsMTSC#33
    "roberta-base": (
        "roberta.",
        (
            "roberta.embeddings.position_ids",
            "roberta.pooler.dense.bias",
            "lm_head.bias",
            "lm_head.dense.weight",
            "lm_head.decoder.weight",
            "lm_head.layer_norm.weight",
        ),
        {},
    ),
}
ROBERTA_HEADS = (
    "roberta.embeddings.position_ids",
    "roberta.pooler.dense.weight",
    "lm_head.bias",
    "lm_head.dense.weight",
    "lm_head.decoder.weight",
    "lm_head.layer_norm.weight",
)
# Later families, with the buffers that transformers wrote when they were published, and heads.
TENSORS |= {
    "gpt-neo-125m": (
        "transformer.",
        (*(f"transformer.h.1.attn.attention.{x}" for x in ("bias", "masked_bias")),)
        + ("lm_head.weight",),
        {},
    ),
    "falcon-7b": ("transformer.", ("lm_head.weight",), {}),
    "falcon-40b": ("transformer.", ("lm_head.weight",), {}),
    "falcon-rw-1b": ("transformer.", ("lm_head.weight",), {}),
    "mpt-7b": ("transformer.", (), {}),
    "phi-2": ("model.", (), {}),
    "openai-gpt": ("", MASKS[:1], {}),
    "starcoderbase-1b": ("transformer.", ("transformer.h.0.attn.bias", "lm_head.weight"), {}),
    "ctrl": ("transformer.", ("lm_head.weight",), {}),
    "stablelm-2-1.6b": ("model.", (), {}),
    "olmo-1b": ("model.", (), {}),
    "olmo-2-7b": ("model.", (), {}),
    "granite-3.1-2b": ("model.", (), {}),
    "starcoder2-3b": ("model.", (), {}),
    "smollm3-3b": ("model.", (), {}),
    "aya-23-8b": ("model.", (), {}),
    "distilbert-base-uncased": (
        "distilbert.",
        ("vocab_transform.weight", "vocab_layer_norm.bias", "vocab_projector.weight"),
        {},
    ),
    "albert-base-v2": (
        "albert.",
        ("albert.embeddings.position_ids", "albert.pooler.weight", "albert.pooler.bias")
        + ("predictions.LayerNorm.weight", "predictions.decoder.weight", "predictions.bias"),
        {},
    ),
    "electra-small": (
        "electra.",
        ("electra.embeddings.position_ids", "discriminator_predictions.dense.weight"),
        {},
    ),
    "electra-base": ("electra.", ("discriminator_predictions.dense_prediction.bias",), GAMMA),
    "xlm-roberta-base": ("roberta.", ROBERTA_HEADS, {}),
    "camembert-base": ("roberta.", ROBERTA_HEADS, {}),
    "xlm-mlm-en-2048": (
        "transformer.",
        ("transformer.position_ids", "pred_layer.proj.weight", "pred_layer.proj.bias"),
        {},
    ),
}
HEADS = ("lm_head.", "embed_out.")


class Header:
    """Names and shapes of a published checkpoint; of its values, copies of the table alone."""

    path = pathlib.Path("published")

    def __init__(self, name):
        prefix, others, ends = TENSORS[name]
        design, config = zoo.describe(name)
        tensors = readers.family(design).tensors(config)
        self._shapes = dict.fromkeys(others, (1,))
        for path, param in weights.parameters(zoo.abstract(design, config)).items():
            stacked = "{layer}" in tensors[path].name
            shape = tensors[path].stored_shape(param.shape[stacked:])
            for layer in range(param.shape[0] if stacked else 1):
                stored = tensors[path].name.format(layer=layer)
                end = next((x for x in ends if stored.endswith(x)), "")
                stored = stored.removesuffix(end) + ends.get(end, "")
                self._shapes["" if stored.startswith(HEADS) else prefix, stored] = shape
        self._shapes = {"".join(name): shape for name, shape in self._shapes.items()}
        rename = readers.family(design).name
        self.copies = readers.family(design).copies(config)
        # Tables and their copies are compared.
        self._read = {x for x in self._shapes if rename(x) in {*self.copies, *self.copies.values()}}
        table_shape = zoo.abstract(design, config).words.table.shape
        copied = [name for name in self._shapes if rename(name) in self.copies]
        self._shapes |= dict.fromkeys(copied, table_shape)

    def shapes(self):
        return self._shapes

    def dtypes(self):
        return dict.fromkeys(self._shapes, np.dtype(np.float32))

    def read(self, name, index):
        assert name in self._read, f"{name} {index} was read"
        return np.zeros(1)

    def hash(self):
        pytest.fail("the files were hashed")


@pytest.mark.slow
@pytest.mark.parametrize("name", TENSORS)
def test_published_names_of_tensors_fit(name):
    header = Header(name)
    model = zoo.check(name, *zoo.describe(name), header, header.path)
    short = readers.family(model.design).name
    copies = {short(name) for name in header.shapes()} & set(header.copies)
    assert len(model.names) == len(header.shapes()) - len(copies)


# Families that read images: compared with the names that transformers writes (make_vision.py and
# make_multimodal.py in tests/golden), or that the authors' code has (mPLUG-Owl). No public record
# of the tensors in their published files is here yet.
UNRECORDED = frozenset(
    """
    blip-2 clip dinov2 dinov2_with_registers gemma3 idefics instructblip llava mplug-owl paligemma
    qwen2_5_vl qwen2_vl qwen3_vl siglip vit
    """.split()
)


def test_every_family_has_its_published_names():
    described = {zoo.describe(name)[0] for name in TENSORS}
    in_the_table = {row.config["model_type"] for row in table.MODELS.values() if row.config}
    assert described == in_the_table - UNRECORDED
    assert in_the_table >= UNRECORDED


# Pieces of a published tokenizer, tokens that are added to them, and the rows that have it.
VOCABULARIES = [
    (50_257, 0, "gpt2-small gpt2-medium gpt2-large gpt2-xl"),
    (50_265, 0, "opt-125m opt-350m opt-66b roberta-base roberta-large"),  # transformers#18268
    (50_254, 23, "pythia-14m pythia-70m pythia-6.9b pythia-12b"),  # EleutherAI/pythia#68
    (50_257, 143, "gpt-j-6b"),  # transformers#13696
    (250_680, 0, "bloom-560m bloom"),  # bigscience-workshop/model_card#23
    (32_000, 0, "llama-7b llama-65b vicuna-7b vicuna-33b llama-2-7b llama-2-70b mistral-7b"),
    (32_000, 1, "alpaca-7b stable-vicuna-13b"),  # FastChat#153
    (128_000, 256, "llama-3-8b llama-3.2-1b"),  # tgi-gaudi#199
    (32_768, 0, "mistral-7b-v0.3"),
    (151_643, 3, "qwen2-0.5b qwen2-7b"),
    (151_643, 22, "qwen2.5-0.5b qwen2.5-72b"),  # Kimina-Prover-Preview#6
    (151_643, 26, "qwen3-0.6b qwen3-32b"),
    (256_000, 0, "gemma-2b gemma-2-27b"),
    (262_144, 1, "gemma-3-270m gemma-3-1b"),  # transformers#37011
    (32_000, 11, "phi-3-mini"),
    (32_000, 100, "t5-small flan-t5-xxl flan-alpaca-xl t5-v1.0-11b"),  # transformers#4875
    (30_522, 0, "bert-base-uncased bert-large-uncased MiniLM-L12-H384-uncased"),
    (28_996, 0, "bert-base-cased bert-large-cased distilbert-base-cased"),
    (50_257, 0, "gpt-neo-125m gpt-neo-2.7b distilgpt2 phi-2"),
    (50_257, 38, "phi-1 phi-1.5 phi-2"),
    (65_024, 0, "falcon-7b falcon-40b"),
    (50_254, 23, "mpt-7b mpt-30b stablelm-3b olmo-1b olmo-7b"),
    (40_478, 0, "openai-gpt"),
    (246_534, 0, "ctrl"),
    (49_152, 0, "starcoderbase-1b starcoder2-3b starcoder2-7b granite-3.1-2b"),
    (100_277, 1, "olmo-2-7b stablelm-2-1.6b"),
    (128_000, 256, "smollm3-3b"),
    (30_000, 0, "albert-base-v1 albert-xxlarge-v2"),
    (30_522, 0, "distilbert-base-uncased electra-small electra-large"),
    (250_002, 0, "xlm-roberta-base xlm-roberta-large"),
    (32_005, 0, "camembert-base"),
    (30_145, 0, "xlm-mlm-en-2048"),
]


@pytest.mark.slow
@pytest.mark.parametrize("pieces,added,names", VOCABULARIES)
def test_published_vocabularies_fit(pieces, added, names):
    tokenizer = tokenizers.Tokenizer(models.WordLevel({str(i): i for i in range(pieces)}, "0"))
    tokenizer.add_special_tokens([f"<{i}>" for i in range(added)])
    for name in names.split():
        rows = table.MODELS[name].config["vocab_size"]
        fitted = tokenizer_files.fit(tokenizer, rows, model=name)
        assert fitted.get_vocab_size() == min(pieces + added, rows)


def test_code_llama_34b_fits():
    """It is in no row; its tokenizer has four tokens for filling in (transformers#26714)."""
    tokenizer = tokenizers.Tokenizer(models.WordLevel({str(i): i for i in range(32_000)}, "0"))
    tokenizer.add_special_tokens(["▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"])
    assert tokenizer_files.fit(tokenizer, 32_000, model="m").get_vocab_size() == 32_000
