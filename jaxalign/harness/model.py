"""The model class of lm-evaluation-harness: requests in text become ids, and ids become answers."""

import collections
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from lm_eval import utils as lm_utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models import utils as model_utils
from tqdm import tqdm

import jaxalign
from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.harness import chats, passes
from jaxalign.io import run_dir
from jaxalign.models import generate, special_tokens, zoo
from jaxalign.models.table import MODELS

# Settings of `generate_until`; others are refused.
_GENERATION = ("do_sample", "max_gen_toks", "temperature", "top_k", "top_p", "until")


@register_model("jaxalign")
class JaxalignLM(TemplateLM):
    """A causal language model or a T5 of `models.zoo`, as the harness asks it.

    Texts become tokens, contexts are cut, and answers end as in the harness's Hugging Face backend
    (`HFLM` of lm_eval 0.4.13), so that scores are those that others report. Not copied is what
    depends on which requests share a batch: there a T5 may write as many tokens more as the longest
    context of its batch has, and a special token in `until` ends whole batches. Nor are two first
    tokens: there a rolling text has two, of which the second is scored as if it were text, and so
    has a chat if `prefix_token_id` is another than the first token.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        dtype: str = "float32",
        batch_size: int | str = 1,
        batch_tokens: int = 4096,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        model_parallel: int = 1,
        seed: int = 0,
        untrained_seed: int = -1,
        data_root: str = "",
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: object,
    ):
        """Find and load the model; arguments are those of `--model_args`.

        Args:
          pretrained: name in models/table.py, directory, or repository in Hugging Face's cache.
          dtype: of parameters and activations, of `zoo.COMPUTE_DTYPES`.
          batch_size: rows that pass together; "auto": as many as fill `batch_tokens`.
          batch_tokens: of a batch, padding included, where `batch_size` is "auto".
          max_length: tokens that the model is shown at most; None: all that it takes.
          max_gen_toks: tokens of an answer at most, where a task does not say.
          add_bos_token: whether texts begin with the first token; None: as the tokenizer does it.
          prefix_token_id: what an empty context is; None: the first token, or else the end token.
          model_parallel: devices that share one copy of the weights; the others divide batches.
          seed: of answers that are drawn.
          untrained_seed: -1 for the checkpoint's weights; else random weights from this seed.
          data_root: folder of data, for models that lie there; "": JAXALIGN_DATA.
          max_batch_size: the harness gives it; "auto" is bounded by it.
          device: the harness gives it; devices are those that JAX sees.
          **unknown: refused.

        Raises:
          InputError: if an argument is unknown or out of range, or the model is not found, does
            not fit in memory, or predicts no next token.
        """
        super().__init__()
        del device
        if unknown:
            raise InputError(f"model_args must not hold {next(iter(unknown))!r}: it is not known.")
        if dtype not in zoo.COMPUTE_DTYPES:
            raise InputError(
                f"model_args dtype must be one of {', '.join(zoo.COMPUTE_DTYPES)}, got {dtype!r}."
            )
        if jax.process_count() > 1:
            raise InputError(f"the harness must run in one process: JAX has {jax.process_count()}.")
        self.batch_size = _batch_size(batch_size)
        root = data_root or os.environ.get("JAXALIGN_DATA")
        self.model = zoo.find(str(pretrained), pathlib.Path(root) if root else None)
        is_t5 = self.model.design == "t5"
        if not (self.model.causal or is_t5) or not self.model.predicts:
            raise InputError(
                f"model_args pretrained must be causal or a T5: {self.model.name} predicts no next "
                "token."
            )
        self.backend = "seq2seq" if is_t5 else "causal"
        self.tokenizer = special_tokens.load(self.model, add_bos_token=add_bos_token)
        self.end_ids = special_tokens.end_ids(self.model, self.tokenizer)
        self.add_bos_token, self._prefix_token_id = add_bos_token, prefix_token_id
        self.max_gen_toks, self.seed = _positive("max_gen_toks", max_gen_toks), int(seed)
        most = self.model.config.max_length
        self.max_length = _positive("max_length", max_length or most)
        if self.max_length > most:
            raise InputError(
                f"model_args max_length must be at most {most}, which {self.model.name} takes: "
                f"got {max_length}."
            )
        try:
            self.mesh = mesh_lib.make_mesh(-1, int(model_parallel))
        except ValueError as error:
            raise InputError(f"model_args model_parallel: {error}") from error
        self._batch_tokens = _positive("batch_tokens", batch_tokens)
        if max_batch_size is not None and self.batch_size == 0:
            self._batch_tokens = min(self._batch_tokens, int(max_batch_size) * self.max_length)
        self._dtype, self._untrained_seed = dtype, int(untrained_seed)
        self.network = self.model.load(self.mesh, dtype=dtype, untrained_seed=self._untrained_seed)

    @property
    def eot_token_id(self) -> int:
        """End token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """Return what stands for an empty context."""
        if self._prefix_token_id is not None:
            return self._prefix_token_id
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else first

    @property
    def tokenizer_name(self) -> str:
        """Name under which the harness keeps prompts in a cache."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: object
    ) -> list[int]:
        """Return the ids of a text; special tokens as asked for, or else as usual.

        A text that begins with the first token, as a chat does, or with the prefix token gets no
        special tokens: else it would begin with two.
        """
        del kwargs
        special = self.add_bos_token if add_special_tokens is None else add_special_tokens
        begins = [self.tokenizer.bos_token, self.tokenizer.decode(self.prefix_token_id)]
        if add_special_tokens is None and string.startswith(tuple(x for x in begins if x)):
            special = False
        options = {} if special is None else {"add_special_tokens": special}
        return self.tokenizer.encode(string, **options)

    def _size(self, longest: int) -> passes.Size:
        return passes.Size(self.batch_size, self._batch_tokens, longest)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, and whether it is the greedy one.

        Raises:
          InputError: if a continuation has no token, or more than the model takes.
        """
        for context, continuation in (request.args for request in requests):
            # With a context, this shows once both are tokens.
            if not context and not self.tok_encode(continuation, add_special_tokens=False):
                raise _no_token(context, continuation)
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: list[tuple], disable_tqdm: bool = False, **kwargs: object
    ) -> list[tuple[float, bool]]:
        del kwargs
        encoded = [self._request(*request) for request in requests]
        # The last token is predicted and need not pass: the model takes one more.
        cut = [len(x) + len(y) > self.max_length + 1 for strings, x, y in requests if strings]
        if any(cut) and self.backend == "causal":
            self._warn_of_cuts("contexts", sum(cut), len(requests))
        found: list[tuple[float, bool]] = [(np.nan, False)] * len(requests)
        answers = passes.log_likelihoods(
            self.network, self.mesh, encoded, self._size(self.max_length)
        )
        with tqdm(total=len(requests), disable=disable_tqdm, desc="loglikelihood") as progress:
            for index, log_likelihood, is_greedy in answers:
                if np.isnan(log_likelihood):
                    raise InputError(
                        f"model {self.model.name}: log-likelihoods must be numbers, but are NaN "
                        f"in {self._dtype}: the weights hold NaN, infinity or too large numbers."
                    )
                found[index] = log_likelihood, is_greedy
                strings = requests[index][0]
                if strings is not None:  # else a window of a text, which is kept as a whole
                    self.cache_hook.add_partial("loglikelihood", strings, found[index])
                progress.update()
        return found

    def _request(
        self, strings: tuple[str, str] | None, context: Sequence[int], continuation: Sequence[int]
    ) -> passes.Request:
        if not continuation:
            raise _no_token(*(strings or ("", "")))
        if len(continuation) > self.max_length:
            raise InputError(
                f"a continuation must have at most {self.max_length} tokens, got "
                f"{len(continuation)}: {_short((strings or ('', ''))[1])}."
            )
        if self.backend == "seq2seq":
            start = self.network.config.start_token
            inputs = (start, *continuation[:-1])
            source = tuple(context[-self.max_length :])
        else:
            source, inputs = (), (*context, *continuation)[-(self.max_length + 1) : -1]
        return passes.Request(source, inputs, continuation[-1], len(continuation))

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-probability of each text, in windows that each predict all that is new."""
        windows, owner = [], []
        for index, request in enumerate(requests):
            cut = lm_utils.get_rolling_token_windows(
                token_list=self._text(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for window in map(lm_utils.make_disjoint_window, cut):
                windows.append((None, *window))
                owner.append(index)
        num_later = len(windows) - len(set(owner))
        if num_later:
            self._warn_of_cuts("windows of texts", num_later, len(windows))
        answers = self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)
        found = [0.0] * len(requests)
        for index, (log_likelihood, _) in zip(owner, answers, strict=True):
            found[index] += log_likelihood
        for request, total in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return found

    def _text(self, text: str) -> list[int]:
        """Return the tokens of a text that are scored: what is put before it is no part of it."""
        if self.backend == "seq2seq":
            return self.tok_encode(text)
        ids = self.tok_encode(text, add_special_tokens=False)
        return ids[1:] if ids[:1] == [self.prefix_token_id] else ids

    def _warn_of_cuts(self, what: str, num_cut: int, num: int) -> None:
        """Say how many rows begin in mid-text, as the harness's Hugging Face backend has them."""
        logging.warning(
            "model %s: %d of %d %s do not begin with the beginning, which is cut off to fit %d "
            "tokens, and so lack the first token %r too",
            self.model.name,
            num_cut,
            num,
            what,
            self.max_length,
            self.tokenizer.decode(self.prefix_token_id),
        )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return what the model says after each context, up to the words of `until`.

        Raises:
          InputError: if a setting of generation is unknown or out of range.
        """
        # A request that is repeated gets a new draw each time, wherever it stands.
        repeats = collections.Counter()
        groups, seeds = collections.defaultdict(list), []
        for index, (context, settings) in enumerate(request.args for request in requests):
            key = context, repr(sorted(settings.items()))
            seeds.append(zlib.crc32(repr((self.seed, context, repeats[context])).encode()))
            repeats[context] += 1
            groups[key[1]].append(index)
        found = [""] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="generate_until") as progress:
            for members in groups.values():
                settings = requests[members[0]].args[1]
                contexts = [requests[index].args[0] for index in members]
                answers = self._answers(contexts, settings, [seeds[index] for index in members])
                for i, text in answers:
                    found[members[i]] = text
                    args = requests[members[i]].args
                    self.cache_hook.add_partial("generate_until", args, text)
                    progress.update()
        return found

    def _answers(self, contexts: Sequence[str], settings: Mapping[str, Any], seeds: Sequence[int]):
        """Yield the index of each context, and the answer."""
        settings = model_utils.normalize_gen_kwargs(dict(settings), self.max_gen_toks)
        if unknown := [name for name in settings if name not in _GENERATION]:
            raise InputError(
                f"generation_kwargs must be of {', '.join(_GENERATION)}: found {unknown[0]!r}."
            )
        num_new = _positive("max_gen_toks", settings["max_gen_toks"])
        until = [x for x in settings["until"] if x]
        longest = self.max_length
        if self.backend == "causal":
            longest -= num_new
            if longest < 1:
                raise InputError(
                    f"max_gen_toks must leave room for a context in the {self.max_length} tokens "
                    f"that {self.model.name} takes: got {num_new}; give --gen_kwargs "
                    "max_gen_toks=..., or a longer max_length."
                )
        # A special token in `until` never shows in the text.
        special = set(self.tokenizer.all_special_tokens)
        named = {self.tokenizer.convert_tokens_to_ids(x) for x in until if x in special}
        end_ids = self.end_ids | named

        def is_over(ids: list[int]) -> bool:
            return not end_ids.isdisjoint(ids) or any(x in self._decode(ids) for x in until)

        encoded = [self._encode_context(context) for context in contexts]
        num_cut = sum(len(ids) > longest for ids in encoded)
        if num_cut and self.backend == "causal":
            self._warn_of_cuts("contexts", num_cut, len(contexts))
        found = passes.continuations(
            self.network,
            self.mesh,
            [ids[-longest:] for ids in encoded],
            self._size(longest),
            passes.Ending(num_new, self.eot_token_id, is_over),
            _draws(settings, seeds),
        )
        for index, ids in found:
            end = next((i for i, token in enumerate(ids) if token in end_ids), len(ids))
            yield (
                index,
                model_utils.postprocess_generated_text(self._decode(ids[:end]), until, None),
            )

    def _encode_context(self, context: str) -> list[int]:
        if self.backend == "seq2seq":
            ids = self.tokenizer.encode(context)
        else:
            ids = self.tok_encode(context)
        return ids or [self.prefix_token_id]

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the template that chats are written with.

        Raises:
          InputError: if the model has none.
        """
        if chat_template is not False:
            chats.check_chat(self.tokenizer, model=self.model.name)
        return super().chat_template(chat_template)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Write a chat; see `chats.write_chat`."""
        return chats.write_chat(
            self.tokenizer, chat_history, ask=add_generation_prompt, model=self.model.name
        )

    def get_model_info(self) -> dict[str, object]:
        """Return what the harness writes into its results, under the names of its own backend."""
        name = self.model.name
        seed = self._untrained_seed
        content = self.model.weights_hash if seed < 0 else f"untrained {seed}"
        return {
            "model_num_parameters": self.model.num_parameters,
            "model_dtype": self._dtype,
            "model_revision": MODELS[name].revision if name in MODELS else "",
            "model_sha": run_dir.hash_text(self.model.config_hash + content),
            "model_untrained_seed": seed,
            "jaxalign_version": jaxalign.__version__,
            "jaxalign_commit": run_dir.git_commit(),
        }


def _batch_size(value: int | str) -> int:
    """Return a number of rows; 0 for "auto", which the harness also writes "auto:N"."""
    if str(value).split(":")[0] == "auto":
        return 0
    return _positive("batch_size", value)


def _positive(name: str, value: object) -> int:
    if not str(value).isdigit() or int(str(value)) < 1:
        raise InputError(f"{name} must be a whole number >= 1, got {value!r}.")
    return int(str(value))


def _draws(settings: Mapping[str, Any], seeds: Sequence[int]) -> passes.Draws | None:
    if not settings["do_sample"]:
        return None
    try:
        sampling = generate.Sampling(
            temperature=float(settings.get("temperature", 1.0)),
            top_k=int(settings.get("top_k", 0)),
            top_p=float(settings.get("top_p", 1.0)),
        )
    except ValueError as error:
        raise InputError(f"generation_kwargs with do_sample: {error}") from error
    return passes.Draws(sampling, seeds)


def _no_token(context: str, continuation: str) -> InputError:
    return InputError(
        "a continuation must add at least one token to its context: "
        f"{_short(continuation)} adds none to {_short(context)}."
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"...{text[-37:]}")
