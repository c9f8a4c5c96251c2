"""Record what lm-evaluation-harness finds with its own Hugging Face backend, in `harness.json`.

Needs torch, and stories260K in the data folder, which no test does:

  pip install torch 'transformers>=5,<6' lm-eval accelerate
  JAXALIGN_DATA=... PYTHONPATH=. python tests/golden/make_harness.py

For each model and task of `tests/harness_tasks.py`: the metrics, and of each sample what the model
was given (a hash), its answers, and each answer's score. The weights are those that the tests give
to jaxalign: stories260K, read and reordered here by itself, and the tiny T5 of this folder.
"""

import hashlib
import json
import os
import pathlib
import sys
import tempfile

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import lm_eval
import numpy as np
import torch
import transformers
from lm_eval.tasks import TaskManager

from jaxalign.data import tokenizer_files

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import harness_tasks

# The generation task of a random T5 ends at what it says soon: HFLM lets a T5 write as many tokens
# more as the longest context of the batch has.
TASKS = {
    "stories260K": [*harness_tasks.OWN, "local_mmlu", "local_bbh_fewshot", "local_bbh_cot_fewshot"],
    "t5_v1_1": [*harness_tasks.OWN, "local_mmlu"],
}


def convert_stories(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Write llama2.c's file and tokenizer as transformers has them."""
    with open(source / "stories260K.bin", "rb") as file:
        dim, hidden, layers, heads, kv_heads, vocab, length = np.fromfile(file, np.int32, 7).tolist()
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


def convert_t5(folder: pathlib.Path) -> None:
    """Copy the tiny T5, with a tokenizer whose special tokens have roles."""
    transformers.T5ForConditionalGeneration.from_pretrained(HERE / "t5_v1_1").save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(HERE / "t5_v1_1" / "tokenizer.json"), eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)


def run(folder: pathlib.Path, tasks: list[str], include: pathlib.Path) -> dict:
    """Return metrics and samples of each task."""
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder), "dtype": "float32"},
        tasks=tasks,
        device="cpu",
        batch_size=1,
        task_manager=TaskManager(include_path=str(include)),
        bootstrap_iters=0,
    )
    tidy = {}
    for task in tasks:
        metrics = {k: v for k, v in found["results"][task].items() if k.endswith((",none", ",get-answer"))}
        samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
        tidy[task] = {
            "metrics": {k: v for k, v in metrics.items() if "stderr" not in k},
            "samples": [
                {
                    "prompt": hashlib.sha256(repr(sample["arguments"]).encode()).hexdigest()[:16],
                    "answers": [answers[0] for answers in sample["resps"]],
                }
                for sample in samples
            ],
        }
    return tidy


def main() -> None:
    """Run both models."""
    versions = {m.__name__: m.__version__ for m in (torch, transformers, np)}
    expected = {"versions": versions | {"lm_eval": lm_eval.__version__}}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        harness_tasks.write(folder / "tasks")
        os.chdir(folder / "tasks")
        convert_stories(pathlib.Path(os.environ["JAXALIGN_DATA"]) / "stories260K", folder / "stories260K")
        convert_t5(folder / "t5_v1_1")
        for name, tasks in TASKS.items():
            expected[name] = run(folder / name, tasks, folder / "tasks")
    (HERE / "harness.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
