"""Make what torch and transformers compute in steps of Alpaca's recipe, for networks here.

Needs the environment that `make_models.py` names; writes `tuning.npz`:

  tokens, mask, labels [B T]   of each of `BATCHES` batches; the label of a prompt's or a padding
                               token is -100; steps take the batches in turn
  full/losses, full/norms, full/rates [STEPS]   of `llama`, all parameters trained
  full/gradients/NAME          of the first step, by the checkpoint's names
  lora/...                     the same of adapters; lora/a/NAME, lora/b/NAME: A and B of each
                               map at the beginning, as torch lays them out
  rows/losses                  of the batches, where means of pairs of rows are averaged
  t5/...                       as full, of `t5_v1_0`; read, read_mask, t5_labels: its batches
  versions                     JSON
"""

import json
import pathlib
import platform

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
STEPS, BATCHES, ROWS, LENGTH, MICRO = 50, 3, 8, 14, 4
RANK, ALPHA = 2, 4.0
RATE = {"full": 1e-3, "lora": 5e-3, "t5": 1e-3}
WARMUP = 0.05


def draw(rng: np.random.Generator, vocabulary: int) -> dict[str, np.ndarray]:
    """Draw batches with prompts and padding of different lengths; one row has no target."""
    shape = (BATCHES, ROWS, LENGTH)
    tokens = rng.integers(4, vocabulary, shape)
    ends = rng.integers(5, LENGTH + 1, shape[:2])
    begins = rng.integers(1, ends - 1)
    begins[1, 2] = ends[1, 2]
    place = np.arange(LENGTH)
    learned = (place >= begins[..., None]) & (place < ends[..., None])
    return {
        "tokens": np.where(place < ends[..., None], tokens, 0).astype(np.int32),
        "mask": place < ends[..., None],
        "labels": np.where(learned, tokens, -100).astype(np.int32),
    }


class Adapted(torch.nn.Module):
    """A linear map and its adapter."""

    def __init__(self, linear: torch.nn.Linear, rng: np.random.Generator):
        """Draw A, and B too, as gradients of A vanish where B is 0."""
        super().__init__()
        draw = lambda *shape: torch.nn.Parameter(torch.tensor(rng.normal(0, 0.1, shape)).float())
        self.linear = linear
        self.a, self.b = draw(RANK, linear.in_features), draw(linear.out_features, RANK)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply both."""
        return self.linear(x) + ALPHA / RANK * (x @ self.a.T) @ self.b.T


def adapt(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Give each linear map of the blocks an adapter, and freeze the rest."""
    model.requires_grad_(False)
    maps = [x for x in model.named_modules() if isinstance(x[1], torch.nn.Linear)]
    for name, linear in maps:
        if name == "lm_head":
            continue
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, Adapted(linear, rng))


def train(name: str, model: torch.nn.Module, batches: list[dict], *, steps: int = STEPS) -> dict:
    """Take steps; the loss of a step is the mean over the targets of all its micro-batches."""
    model.eval()  # without dropout
    trained = {key: x for key, x in model.named_parameters() if x.requires_grad}
    optimizer = torch.optim.AdamW(
        trained.values(), lr=RATE[name], betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
    )
    schedule = transformers.get_cosine_schedule_with_warmup(
        optimizer, int(np.ceil(STEPS * WARMUP)), STEPS
    )
    losses, norms, rates, first = [], [], [], {}
    for step in range(steps):
        batch = batches[step % BATCHES]
        labels = batch["labels"] if model.config.is_encoder_decoder else batch["labels"][:, 1:]
        count = (labels != -100).sum()
        total = 0.0
        for i in range(0, ROWS, ROWS // MICRO):
            micro = {key: x[i : i + ROWS // MICRO] for key, x in batch.items()}
            loss = summed(model, micro) / count
            loss.backward()
            total += loss.item()
        if step == 0:
            first = {key: x.grad.clone().numpy() for key, x in trained.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(trained.values(), 1.0).item())
        losses.append(total)
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    found = {"losses": losses, "norms": norms, "rates": rates}
    return {f"{name}/{key}": np.array(x) for key, x in found.items()} | {
        f"{name}/gradients/{key}": x for key, x in first.items()
    }


def summed(model: torch.nn.Module, micro: dict) -> torch.Tensor:
    """Return the sum of the losses of all targets."""
    logits, labels = model(**micro).logits, micro["labels"]
    if not model.config.is_encoder_decoder:
        logits, labels = logits[:, :-1], labels[:, 1:]
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="sum"
    )


def main() -> None:
    """Make the file."""
    torch.set_num_threads(1)  # the networks are tiny
    rng = np.random.default_rng(7)
    load = lambda: transformers.LlamaForCausalLM.from_pretrained(HERE / "llama")
    made = draw(rng, load().config.vocab_size)
    as_tensors = lambda x: torch.tensor(x).long()
    batches = [
        {
            "input_ids": as_tensors(made["tokens"][i]),
            "attention_mask": as_tensors(made["mask"][i]),
            "labels": as_tensors(made["labels"][i]),
        }
        for i in range(BATCHES)
    ]
    arrays = {key: made[key] for key in ("tokens", "mask", "labels")}
    arrays |= train("full", load(), batches)
    with torch.no_grad():  # as the Trainer of 2023 averages, and the library's own loss
        model, of_groups = load().eval(), []
        for batch in batches:
            parts = [{k: x[i : i + 2] for k, x in batch.items()} for i in range(0, ROWS, 2)]
            of_groups.append(np.nanmean([model(**part).loss.item() for part in parts]))
    arrays["rows/losses"] = np.array(of_groups)
    adapted = load()
    adapt(adapted, rng)
    for name, module in adapted.named_modules():
        if isinstance(module, Adapted):
            arrays[f"lora/a/{name}"] = module.a.detach().numpy().copy()
            arrays[f"lora/b/{name}"] = module.b.detach().numpy().copy()
    arrays |= train("lora", adapted, batches)
    t5 = transformers.T5ForConditionalGeneration.from_pretrained(HERE / "t5_v1_0")
    read, written = (draw(rng, t5.config.vocab_size) for _ in range(2))
    # All that a decoder writes is learned, padding not.
    t5_labels = np.where(written["mask"], written["tokens"], -100).astype(np.int32)
    pairs = [
        {
            "input_ids": as_tensors(read["tokens"][i]),
            "attention_mask": as_tensors(read["mask"][i]),
            "labels": as_tensors(t5_labels[i]),
        }
        for i in range(BATCHES)
    ]
    arrays |= {"read": read["tokens"], "read_mask": read["mask"], "t5_labels": t5_labels}
    arrays |= train("t5", t5, pairs, steps=10)
    versions = {x.__name__: x.__version__ for x in (torch, transformers, np)}
    versions |= {"python": platform.python_version()}
    np.savez_compressed(
        HERE / "tuning.npz", versions=np.array(json.dumps(versions, sort_keys=True)), **arrays
    )


if __name__ == "__main__":
    main()
