"""Instruction tuning and its ablation on a small model: which arm moves alignment along training?

    launch/local.sh -m jaxalign.main --config=configs/tune_demo.py --data_root=...
    launch/local.sh -m jaxalign.main --config=configs/tune_demo.py:alice --data_root=... \
        --store=runs/tune_demo

stories260K learns the 175 tasks of self-instruct in four arms with two seeds each, and is scored at
five steps: on the mean of the language network for 627 sentences, or on Alice in the scanner, for
which the trainings of the first command are read from its work directory. A model of 260,000
parameters that knows children's stories is no model of the paper's: the page shows how an
experiment looks, and says in words where nothing follows.

    launch/local.sh -m jaxalign.main --data_root=... \
        --config=configs/tune_demo.py:pereira2018-mean,path/to/smollm2-135m-instruct

trains adapters of another model, here SmolLM2-135M-Instruct (docs/models.md says where from), in
its chat template: two arms, one seed, eight steps of four rows.
"""

from jaxalign import config
from jaxalign.stages import encode, extract, report, tune

ENCODINGS = {
    "pereira2018-mean": encode.Config(
        num_folds=10, groups="dataset", group_seed=1234, controls=("length",)
    ),
    "alice": encode.Config(delays=(1, 2, 3, 4), gap=6, controls=("word_rate",)),
}
WHOLE = {
    "arms": ("instruction", "no_instruction", "shuffled", "frozen"),
    "seeds": (0, 1),
    "checkpoints": (0, 4, 8, 16),
    "template": "plain",  # with a vocabulary of 512, Alpaca's takes half of what fits
    "max_length": 256,
    "epochs": 2.0,
    "batch": 16,
    "learning_rate": 1e-3,
}
# Of a model that is much larger, and was made for chats.
ADAPTERS = {
    "arms": ("instruction", "no_instruction"),
    "seeds": (0,),
    "checkpoints": (0,),
    "template": "chat",
    "max_length": 160,
    "epochs": 0.2,
    "batch": 4,
    "learning_rate": 3e-4,
    "lora_rank": 8,
}


def get_config(argument="pereira2018-mean"):
    dataset, _, model = argument.partition(",")
    words = {"context": "window:10", "pooling": "mean_all"} if dataset == "alice" else {}
    return config.pack(
        config.Common(dataset=dataset),
        tune=tune.Config(
            model=model or "stories260K",
            data="self_instruct/seed_tasks.jsonl",
            micro_batches=1,
            **(ADAPTERS if model else WHOLE),
        ),
        extract=extract.Config(models=("tuned",), untrained_seed=-1, **words),
        encode=ENCODINGS[dataset],
        report=report.Config(title="Instruction tuning: data or process?"),
    )
