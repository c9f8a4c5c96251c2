"""Times of extraction compared with transformers + torch, on random networks and Natural Stories.

    pip install -e .[bench]
    python -m jaxalign.main --config=configs/bench_extract.py --data_root=DATA
    python -m jaxalign.main --config=configs/bench_extract.py:gpt2_words,loading --data_root=DATA

DATA holds naturalstories/ and tokenizers_gpt2/. Everything takes about an hour on 2 cores, and
prints a table with what each case should reach. Each case is finished before the next begins, and
a run that was stopped goes on where it was. Every setting can be overridden, as in
--config.bench_extract.stories.gpt2_words.every=20.
"""

from jaxalign import config
from jaxalign.bench import extract as bench
from jaxalign.errors import InputError

NETWORKS = {
    "gpt2": bench.Network(),  # GPT-2 small: 124 million parameters
    "llama": bench.Network(  # 102 million
        family="llama", num_layers=14, width=640, num_heads=10, mlp_size=1728
    ),
    "thin": bench.Network(width=128, num_heads=2, mlp_size=512),
    # A quarter of the width and of the layers of the Vicuna of 7 billion that answers in both.
    "vicuna": bench.Network(family="llama", num_layers=8, width=1024, num_heads=8, mlp_size=2752),
    "large": bench.Network(num_layers=36, width=1024, num_heads=16, mlp_size=4096),  # 2.0 GB
}
CASES = {"forwards": {}, "stories": {}, "depths": {}, "loadings": {}, "answers": {}}
for _name in ("gpt2", "llama"):
    CASES["forwards"] |= {
        f"{_name}_long": bench.Forward(network=_name, batch=4, length=1024),
        f"{_name}_short": bench.Forward(network=_name, batch=32, length=128),
    }
    # 780 words fit GPT-2's length; whole stories do not.
    CASES["stories"] |= {
        f"{_name}_sentences": bench.Stories(
            network=_name, unit="sentence", num_words=780, context={"accumulate": 15.0}
        ),
        f"{_name}_words": bench.Stories(
            network=_name, unit="word", num_words=780, context={"accumulate": 200.0}
        ),
        f"{_name}_whole": bench.Stories(
            network=_name,
            unit="word",
            context={"accumulate:slide": 2.0, "accumulate:restart": 100.0},
            every=20,
            num_repeats=1,
        ),
    }
CASES["depths"]["compilation"] = bench.Depths(network="thin")
CASES["loadings"]["loading"] = bench.Loading(network="large")
# Towers of a quarter of the width and of the layers: ViT-g/14 at 224 pixels, CLIP ViT-L/14 at 336.
CASES["answers"] = {
    "instructblip_answers": bench.Answering(
        network="vicuna",
        family="instructblip",
        vision_layers=10,
        vision_width=352,
        vision_heads=4,
        image_size=224,
    ),
    "llava_answers": bench.Answering(
        network="vicuna",
        family="llava",
        vision_layers=6,
        vision_width=256,
        vision_heads=4,
        image_size=336,
    ),
}


def get_config(argument=""):
    known = [name for cases in CASES.values() for name in cases]
    names = argument.split(",") if argument else known
    if unknown := [x for x in names if x not in known]:
        raise InputError(
            f"--config=configs/bench_extract.py:NAME[,NAME...] takes {', '.join(known)}, "
            f"got {unknown[0]!r}."
        )
    chosen = {
        field: {x: case for x, case in cases.items() if x in names}
        for field, cases in CASES.items()
    }
    return config.pack(config.Common(), bench_extract=bench.Config(networks=NETWORKS, **chosen))
