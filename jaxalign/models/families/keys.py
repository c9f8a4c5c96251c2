"""What a `config.json` may hold: each key is read, known to be without effect, or refused by name.

A family declares the keys that shape its network (`Key`: what a value must be, and what a missing
key means) and those that do not (`Keys.inert`, in addition to `EVERYWHERE`). `read` compares a file
with the declaration once, before anything is built. What it returns holds every declared key, so
that nothing else is ever looked up in the file.
"""

import reprlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from jaxalign.checks import Rule
from jaxalign.errors import InputError

REQUIRED = object()  # the default of a key that must be there

_LARGEST = 2**31 - 1  # of an index on an accelerator
_NAMED = 3  # unknown keys that a message names


class Key(NamedTuple):
    """A key that is read.

    Attributes:
      rule: what must hold of a value.
      default: what a missing key means, transformers' own default.
      names: other names of the same key.
    """

    rule: Rule
    default: Any = REQUIRED
    names: tuple[str, ...] = ()


class Keys(NamedTuple):
    """What a family's file may hold.

    Attributes:
      read: what shapes the network.
      inert: what has no effect on the states of a text, in addition to `EVERYWHERE`.
    """

    read: Mapping[str, Key]
    inert: Collection[str] = ()


def read(keys: Keys, found: Mapping[str, Any], *, source: str, owner: str) -> dict[str, Any]:
    """Return the value of every key that is read, those that are missing with their default.

    Args:
      keys: the declaration.
      found: content of the file, or of a dictionary in it.
      source: the file, for messages.
      owner: whose keys these are, for messages.

    Raises:
      InputError: naming the key that is missing, of a wrong type or value, there under two names
        that disagree, or not known.
    """
    values = {}
    for name, key in keys.read.items():
        given = {n: found[n] for n in (name, *key.names) if n in found}
        if key.names:  # a file may write null under one of the names
            given = {n: value for n, value in given.items() if value is not None} or given
        for n, value in given.items():
            if not key.rule.holds(value):
                raise InputError(f"{source}: {n} must {key.rule.must}, found {shown(value)}.")
        first, *others = given.values() or [key.default]
        if any(value != first for value in others):
            both = " and ".join(f"{n} {shown(value)}" for n, value in given.items())
            raise InputError(f"{source}: {' and '.join(given)} must agree, found {both}.")
        if first is REQUIRED:
            raise InputError(f"{source} must set {name!r}: it is missing.")
        if key.rule is FLAG:
            first = bool(first)
        elif isinstance(key.rule, _Number) and first is not None:
            first = float(first)
        values[name] = first
    known = {*keys.read, *(n for key in keys.read.values() for n in key.names), *keys.inert}
    # A key that is null asks for nothing.
    unknown = [n for n in found if n not in known and found[n] is not None]
    if unknown:
        every = ", ".join(f"{shown(n)}: {shown(found[n])}" for n in unknown[:_NAMED])
        more = len(unknown) - _NAMED
        raise InputError(
            f"{source} must hold only keys that are known of {owner}, found {every}"
            + (f" and {more} more" if more > 0 else "")
            + "; take a key out of the file if it changes nothing in the network."
        )
    return values


def shown(value: Any) -> str:
    """Return a value as messages show it: short, in one line, in characters that can be printed."""
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode()


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 3


# What a value must be.


class _Number(Rule):
    """A rule of what is read as a float."""

    __slots__ = ()


def integer(low: int, high: int = _LARGEST) -> Rule:
    """Require an integer of a range, both ends included."""
    must = f"be an integer from {low} to {high}"
    return Rule(must, lambda x: type(x) is int and low <= x <= high)


def number(low: int | float, high: int | float, *, above: bool = False) -> Rule:
    """Require a number of a range, whose lower end is not part of it if `above`."""
    begins, ends = ("above", "and at most") if above else ("from", "to")
    inside = lambda x: low < x <= high if above else low <= x <= high  # false of nan
    must = f"be a number {begins} {low:g} {ends} {high:g}"
    return _Number(must, lambda x: type(x) in (int, float) and inside(x))


def optional(rule: Rule) -> Rule:
    """Allow null too."""
    return type(rule)(f"{rule.must}, or null", lambda x: x is None or rule.holds(x))


def one_of(names: Collection[str]) -> Rule:
    """Require one of these names."""
    return Rule(f"be one of {', '.join(names)}", lambda x: isinstance(x, str) and x in names)


def only(value: Any) -> Key:
    """Return a key of which one value is built; null asks for nothing else."""
    same = lambda x: x is None or (type(x) is type(value) and x == value)
    return Key(Rule(f"be {value!r}", same), value)


COUNT = integer(1)
LAYERS = integer(1, 10_000)
TOKEN = integer(-1)  # -1: there is none
# Older files write null for false.
FLAG = Rule("be true or false", lambda x: x is None or type(x) is bool)
SMALL = number(0, 1)  # what is added under a root
DEVIATION = number(0, 1000)
MAPPING = Rule("be an object", lambda x: isinstance(x, dict))
NAME = Rule("be a name", lambda x: isinstance(x, str))
NUMBERS = Rule(
    "be a list of positive numbers",
    lambda x: isinstance(x, list) and all(type(y) in (int, float) and 0 < y < 1e30 for y in x),
)
FLAGS = Rule(
    "be a list of 0 and 1",
    lambda x: isinstance(x, list) and all(type(y) in (int, bool) and y in (0, 1) for y in x),
)
NAMES = Rule(
    "be a list of names", lambda x: isinstance(x, list) and all(isinstance(y, str) for y in x)
)


# What all configurations may hold: transformers' `PreTrainedConfig` of versions 2 to 5, its
# settings of generation, and what trainers and converters leave there.
_ABOUT = """
_attn_implementation _attn_implementation_autoset _commit_hash _experts_implementation
_flash_attn_2_enabled _name_or_path _num_labels architectures attn_implementation auto_map
custom_pipelines dtype experts_implementation finetuning_task gguf_quantization id2label
is_composition is_encoder_decoder label2id language license loss_type model_max_length model_type
name_or_path num_labels output_attentions output_hidden_states output_past problem_type
quantization_config return_dict sbert_ce_default_activation_function sentence_transformers
task_specific_params tf_legacy_loss tokenizer_class torch_dtype torchscript transformers.js_config
transformers_version unsloth_fixed unsloth_version use_bfloat16 use_cache use_flash_attention
use_flash_attn use_return_dict xla_device
"""
_TRAINING = """
attention_dropout attention_probs_dropout_prob chunk_size_feed_forward classifier_dropout dropout
gradient_checkpointing hidden_dropout hidden_dropout_prob layerdrop
neftune_noise_alpha attn_pdrop embd_pdrop resid_pdrop initializer_factor
use_gradient_checkpointing
"""
_TOKENS = """
bos_token_id cls_token_id decoder_start_token_id eos_token_id eos_token_ids mask_token_id
pad_token_id sep_token_id unk_token_id suffix_token_id prefix_token_id
"""
_GENERATION = """
assistant_confidence_threshold assistant_early_exit assistant_ensemble_weight assistant_lookbehind
bad_words_ids
begin_suppress_tokens cache_config cache_implementation constraints continuous_batching_config
compile_config disable_compile diversity_penalty do_sample dola_layers early_stopping
encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
exponential_decay_length_penalty force_words_ids forced_bos_token_id forced_decoder_ids
forced_eos_token_id guidance_scale is_assistant length_penalty low_memory
max_cache_len max_length max_matching_ngram_size max_new_tokens max_time min_length min_new_tokens
min_p no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups
num_beams num_return_sequences output_logits output_scores penalty_alpha prefill_chunk_size prefix
prompt_lookup_num_tokens remove_invalid_values renormalize_logits repetition_penalty
return_dict_in_generate return_legacy_cache sampling_steps sequence_bias speculation_type
stop_strings suppress_tokens target_lookbehind temperature token_healing top_h top_k top_p
trim_encoder_outputs typical_p use_mtp watermarking_config
"""
EVERYWHERE = frozenset(f"{_ABOUT} {_TRAINING} {_TOKENS} {_GENERATION}".split())

# What every configuration may hold, and what would make another network of all families.
_ANY_FAMILY = {
    "add_cross_attention": only(False),
    "cross_attention_hidden_size": only(None),
    "is_causal": only(True),
    "per_layer_config": only({}),
    "pruned_heads": only({}),
    "tie_encoder_decoder": only(False),
    "tie_last_hidden_states": only(True),
}


def family(read: Mapping[str, Key], inert: str = "") -> Keys:
    """Declare a family's keys; `inert` are names between spaces, in addition to `EVERYWHERE`."""
    every = _ANY_FAMILY | dict(read)
    return Keys(every, (EVERYWHERE | set(inert.split())) - every.keys())
