"""Record what lm-evaluation-harness finds with its own Hugging Face backend, in `harness.json`.

Needs torch, and stories260K in the data folder, which no test does:

  pip install torch 'transformers>=5,<6' lm-eval accelerate
  JAXALIGN_DATA=... PYTHONPATH=.:tests/support python tests/golden/make_harness.py

For each run below (all, or those named as arguments), and each of its tasks of
`tests/support/harness_tasks.py`: the metrics, and of each sample a hash of its prompts and the
answers, which are texts or log-likelihoods. The weights are those that the tests give to jaxalign:
stories260K, read and reordered here by itself, and the tiny T5 of this folder.
"""

import json
import os
import pathlib
import sys
import tempfile

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import harness_tasks
import lm_eval
import numpy as np
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from jaxalign.data.text import tokenizer_files

HERE = pathlib.Path(__file__).resolve().parent

# Run -> arguments of the model beside its folder, and tasks.
RUNS = {
    # HFLM scores the first token that a tokenizer adds as if it were text, after another one; so
    # its `local_text` is that without an added one.
    "stories260K": (
        {},
        [*(x for x in harness_tasks.OWN if x != "local_text"), *harness_tasks.PUBLISHED],
    ),
    "stories260K, cut": ({"max_length": 64}, ["local_choice_fewshot", "local_answer"]),
    "stories260K, no first token": (
        {"add_bos_token": False},
        ["local_choice", "local_answer", "local_text"],
    ),
    # Its configuration says no length, for which HFLM takes 2048, and jaxalign T5's usual one.
    "t5_v1_1": ({"max_length": 512}, [*harness_tasks.OWN, "local_answer_soon", "local_mmlu"]),
}


def convert_stories(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Write llama2.c's file and tokenizer as transformers has them."""
    with open(source / "stories260K.bin", "rb") as file:
        dim, hidden, layers, heads, kv_heads, vocab, length = np.fromfile(
            file, np.int32, 7
        ).tolist()
        assert vocab > 0  # the head is the embedding
        take = lambda *shape: torch.from_numpy(
            np.fromfile(file, np.float32, int(np.prod(shape))).reshape(shape)
        )
        kv = dim * kv_heads // heads
        embedding, attention_norm = take(vocab, dim), take(layers, dim)
        q, k, v = take(layers, dim, dim), take(layers, kv, dim), take(layers, kv, dim)
        out, mlp_norm = take(layers, dim, dim), take(layers, dim)
        gate, down, up = (
            take(layers, hidden, dim),
            take(layers, dim, hidden),
            take(layers, hidden, dim),
        )
        norm = take(dim)

    def halves(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
        """Order each head's rows as transformers rotates them: first the even, then the odd."""
        rows = torch.arange(dim // heads).reshape(-1, 2).T.flatten()
        return weight.reshape(num_heads, dim // heads, dim)[:, rows].reshape(weight.shape)

    config = transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config)
    state = {"model.embed_tokens.weight": embedding, "model.norm.weight": norm}
    for i in range(layers):
        state |= {
            f"model.layers.{i}.{name}.weight": weight
            for name, weight in {
                "input_layernorm": attention_norm[i],
                "self_attn.q_proj": halves(q[i], heads),
                "self_attn.k_proj": halves(k[i], kv_heads),
                "self_attn.v_proj": v[i],
                "self_attn.o_proj": out[i],
                "post_attention_layernorm": mlp_norm[i],
                "mlp.gate_proj": gate[i],
                "mlp.down_proj": down[i],
                "mlp.up_proj": up[i],
            }.items()
        }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected
    model.tie_weights()
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_files.load(source / "tok512.bin"),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    ).save_pretrained(folder)


def load_t5(folder: pathlib.Path, options: dict) -> HFLM:
    """Load the tiny T5, with a tokenizer whose special tokens have roles."""
    model = transformers.T5ForConditionalGeneration.from_pretrained(HERE / folder.name)
    # HFLM calls this, and transformers 5 then ties the head of every T5, which is not this one's.
    model.tie_weights = lambda *args, **options: None
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(HERE / folder.name / "tokenizer.json"),
        eos_token="</s>",
        pad_token="<pad>",
    )
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, **options)


def run(folder: pathlib.Path, options: dict, tasks: list[str], include: pathlib.Path) -> dict:
    """Return metrics and samples of each task."""
    if folder.name.startswith("t5"):
        model = load_t5(folder, options)
    else:
        model = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1, **options)
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=tasks,
        task_manager=TaskManager(include_path=str(include)),
        bootstrap_iters=0,
    )
    tidy = {}
    for task in tasks:
        samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
        tidy[task] = {
            "metrics": harness_tasks.metrics(found["results"][task]),
            "samples": [
                {
                    "prompt": harness_tasks.prompt_hash(sample),
                    "answers": [answers[0] for answers in sample["resps"]],
                }
                for sample in samples
            ],
        }
    return tidy


def main(names: list[str]) -> None:
    """Do all runs, or those that are named."""
    file = HERE / "harness.json"
    expected = json.loads(file.read_text()) if names else {}
    versions = {m.__name__: m.__version__ for m in (torch, transformers, np)}
    expected["versions"] = versions | {"lm_eval": lm_eval.__version__}
    data_root = pathlib.Path(os.environ["JAXALIGN_DATA"])
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        harness_tasks.write(folder / "tasks")
        os.chdir(folder / "tasks")
        convert_stories(data_root / "stories260K", folder / "stories260K")
        for name in names or RUNS:
            options, tasks = RUNS[name]
            model = folder / name.partition(",")[0]
            expected[name] = run(model, options, tasks, folder / "tasks")
    file.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
