"""Golden checkpoints of causal decoders, by folder."""

NAMES = (
    "gpt2",
    "opt",
    "opt_post",
    "neox",
    "neox_serial",
    "gptj",
    "bloom",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3_long",
)
