"""What the table of models says of each, without weights: sizes, family, where it was published."""

import collections

from jaxalign.models import zoo
from jaxalign.models.table import MODELS

# Families by model_type alone, under the names of Aw et al. (2023) where they have one. What was
# tuned, and from what, the table does not know.
FAMILIES = {
    "bert": "BERT",
    "bloom": "BLOOM",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3",
    "gemma3_text": "Gemma 3",
    "gpt2": "GPT2",
    "gpt_neox": "GPT-NeoX",
    "gptj": "GPT-J",
    "llama": "LLaMA",
    "mistral": "Mistral",
    "opt": "OPT",
    "phi3": "Phi-3",
    "qwen2": "Qwen 2",
    "qwen3": "Qwen 3",
    "roberta": "RoBERTa",
    "t5": "T5",
}


def properties() -> dict[str, dict[str, object]]:
    """Return family, num_layers (of both stacks of a T5), width and num_parameters by model.

    A model whose hyperparameters come with its weights has none of them, unless they are known.
    """
    found = {}
    for name, row in MODELS.items():
        known: dict[str, object] = {}
        if row.config:
            design, config = zoo.describe(name)
            known |= {"family": FAMILIES[design], "num_layers": config.num_layers}
            known["width"] = config.width
        if row.num_parameters:
            known["num_parameters"] = row.num_parameters
        if known:
            found[name] = known
    return found


def by_repository() -> dict[str, str]:
    """Return the name of each model by its repository, of repositories that hold one model."""
    counts = collections.Counter(row.repository for row in MODELS.values())
    return {row.repository: name for name, row in MODELS.items() if counts[row.repository] == 1}
