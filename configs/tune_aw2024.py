"""Fig. 1D of Aw et al. (2024): LLaMA-7B along instruction tuning, with and without instructions.

    launch/local.sh -m jaxalign.main --config=configs/tune_aw2024.py:lora --data_root=... \
        --dry_run --chip=h200

52,002 instructions of Alpaca, three epochs in batches of 128 rows, three seeds an arm; scored on
the 384 sentences of Pereira et al. after 0, 1, 2, 4 ... 1218 steps. --download fetches
alpaca_data.json of github.com/tatsu-lab/stanford_alpaca (CC BY-NC 4.0) to alpaca/ below the data
root; its authors publish no checksum, so that the one of what arrives first is kept beside it. With
`:lora` adapters of rank 16 are trained in the place of all parameters, at a learning rate of 3e-4.
By the plan training all parameters takes more memory than one H200 has (docs/tuning.md).
--config.tune.arms and --config.tune.seeds name a part of it, such as one for each machine.
"""

from jaxalign import config, recipes
from jaxalign.literature import benchmarks
from jaxalign.stages import tune

CHECKPOINTS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 406, 812)
ADAPTERS = {"lora_rank": 16, "lora_alpha": 16.0, "learning_rate": 3e-4}


def get_config(trained="all"):
    packed = recipes.on_benchmark(
        "tuned",
        benchmarks.find("Pereira2018.384sentences-linear-2023"),
        title="LLaMA-7B along instruction tuning",
        beside=("word_length", "position"),
    )
    common, stages = config.unpack(config.override(packed, {"extract.compute_dtype": "bfloat16"}))
    tuning = tune.Config(
        model="llama-7b",
        data="alpaca/alpaca_data.json",
        no_response="keep",  # as the authors do with empty outputs
        checkpoints=CHECKPOINTS,
        micro_batches=16,
        compute_dtype="bfloat16",
        checkpoint_dtype="bfloat16",
        keep_for_gradients="inputs",
        **(ADAPTERS if trained == "lora" else {}),
    )
    return config.pack(common, tune=tuning, **stages)
