"""Which module of `models/families` reads the checkpoints of a model_type, and its title."""

import importlib
from typing import NamedTuple

from jaxalign.models.families import base


class Reader(NamedTuple):
    """Who reads the checkpoints of a model_type, and what tables call the family."""

    module: str  # in models/families; its `FAMILIES` holds the model_type
    title: str  # as of Aw et al. (2023) where they have one


# model_type in config.json -> how it is read. A new family is a row here, and an entry of
# `FAMILIES` in a module of models/families: there a function reads config.json into the `Config`
# of a network (`decoder`, `encoder`, `encoder_decoder`, `vision`), and another names the tensors.
FAMILIES = {
    "albert": Reader("bert_kin", "ALBERT"),
    "bert": Reader("bert", "BERT"),
    "blip-2": Reader("blip", "BLIP-2"),
    "blip_2_vision_model": Reader("clip", "EVA of BLIP-2"),
    "bloom": Reader("gpt", "BLOOM"),
    "camembert": Reader("bert", "CamemBERT"),
    "clip": Reader("clip", "CLIP"),
    "clip_text_model": Reader("clip", "CLIP"),
    "clip_vision_model": Reader("clip", "CLIP"),
    "cohere": Reader("llama_kin", "Cohere"),
    "ctrl": Reader("gpt_kin", "CTRL"),
    "dinov2": Reader("vit", "DINOv2"),
    "dinov2_with_registers": Reader("vit", "DINOv2"),
    "distilbert": Reader("bert_kin", "DistilBERT"),
    "electra": Reader("bert_kin", "ELECTRA"),
    "falcon": Reader("falcon", "Falcon"),
    "gemma": Reader("llama", "Gemma"),
    "gemma2": Reader("llama", "Gemma 2"),
    "gemma3": Reader("llama", "Gemma 3"),
    "gemma3_text": Reader("llama", "Gemma 3"),
    "gpt2": Reader("gpt", "GPT2"),
    "gpt_bigcode": Reader("gpt_kin", "GPT-BigCode"),
    "gpt_neo": Reader("gpt_kin", "GPT-Neo"),
    "gpt_neox": Reader("gpt", "GPT-NeoX"),
    "gptj": Reader("gpt", "GPT-J"),
    "granite": Reader("llama_kin", "Granite"),
    "idefics": Reader("idefics", "IDEFICS"),
    "instructblip": Reader("blip", "InstructBLIP"),
    "llama": Reader("llama", "LLaMA"),
    "llava": Reader("llava", "LLaVA"),
    "mistral": Reader("llama", "Mistral"),
    "mplug-owl": Reader("owl", "mPLUG-Owl"),
    "mpt": Reader("falcon", "MPT"),
    "olmo": Reader("llama_kin", "OLMo"),
    "olmo2": Reader("llama_kin", "OLMo 2"),
    "openai-gpt": Reader("gpt_kin", "GPT"),
    "opt": Reader("gpt", "OPT"),
    "paligemma": Reader("llava", "PaliGemma"),
    "phi": Reader("falcon", "Phi"),
    "phi3": Reader("llama", "Phi-3"),
    "qwen2": Reader("llama", "Qwen 2"),
    "qwen2_5_vl": Reader("qwen_vl", "Qwen2.5-VL"),
    "qwen2_vl": Reader("qwen_vl", "Qwen2-VL"),
    "qwen3": Reader("llama", "Qwen 3"),
    "qwen3_vl": Reader("qwen3_vl", "Qwen3-VL"),
    "roberta": Reader("bert", "RoBERTa"),
    "siglip": Reader("clip", "SigLIP"),
    "siglip_text_model": Reader("clip", "SigLIP"),
    "siglip_vision_model": Reader("clip", "SigLIP"),
    "smollm3": Reader("llama_kin", "SmolLM 3"),
    "smolvlm": Reader("smolvlm", "SmolVLM"),
    "stablelm": Reader("llama_kin", "StableLM"),
    "starcoder2": Reader("llama_kin", "StarCoder 2"),
    "t5": Reader("t5", "T5"),
    "vit": Reader("vit", "ViT"),
    "xlm": Reader("bert_kin", "XLM"),
    "xlm-roberta": Reader("bert", "XLM-RoBERTa"),
}


# Checkpoints of which `FAMILIES` reads the language model alone, as texts pass it: model_type ->
# who reads the whole, where it is asked about images. What is read so has a design of its own.
WHOLES = {"gemma3": Reader("gemma3", "Gemma 3")}
_WHOLE = " with images"


def whole(model_type: str) -> str:
    """Return the design of all of a checkpoint: its model_type, if there is no part of it alone."""
    return model_type + _WHOLE if model_type in WHOLES else model_type


def model_type(design: str) -> str:
    """Return the model_type of checkpoints of a design."""
    return design.removesuffix(_WHOLE)


def reader(design: str) -> Reader:
    """Return who reads checkpoints of a design, which is a model_type or what `whole` returns."""
    name = model_type(design)
    return (FAMILIES if name == design else WHOLES)[name]


def family(design: str) -> base.Family:
    """Return how checkpoints of a design are read; see `reader`."""
    module = f"jaxalign.models.families.{reader(design).module}"
    return importlib.import_module(module).FAMILIES[design]
