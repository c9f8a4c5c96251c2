"""Times of the nested ridge compared with himalaya's, and how they grow with each size.

    pip install -e .[bench]
    python -m jaxalign.main --config=configs/bench_solver.py             # everything
    python -m jaxalign.main --config=configs/bench_solver.py:base,grid   # some

Each case is finished before the next begins, and a run that was stopped goes on where it was. Every
setting of a case can be overridden, as in --config.bench.cases.base.v=2000.
"""

from jaxalign import config
from jaxalign.bench import solver
from jaxalign.errors import InputError

CASES = {
    "base": solver.Case(n=1000, p=768, v=10_000),
    "dense": solver.Case(n=1000, p=768, v=4000, num_alphas=60),
    "wide": solver.Case(n=630, p=2048, v=8000, num_alphas=16),
    "tall": solver.Case(n=9000, p=768, v=1500, num_repeats=3, peer_repeats=1, peer_warmup=False),
    # A layer under one of ten instructions on natural scenes, with the penalties of Oota et al.
    # (2025).
    "scenes": solver.Case(
        n=2000,
        p=1024,
        v=4000,
        num_alphas=60,
        low=1.0,
        high=4.0,
        num_repeats=3,
        peer_repeats=1,
        peer_warmup=False,
    ),
    "grid": solver.Case(n=1000, p=768, v=10_000, search="grid"),
    # himalaya's own default: penalties from three folds of 3000 samples, and one test set beside.
    "fit": solver.Case(
        n=3300,
        p=1000,
        v=30_000,
        num_folds=3,
        held_out=300,
        num_repeats=3,
        peer_repeats=1,
        peer_warmup=False,
    ),
    # The layers of a network of the size of GPT-2 small, each as `base`.
    "layers": solver.Case(n=1000, p=768, v=10_000, peers=(), num_layers=13),
    "search": solver.Case(
        n=362, p=1536, v=4000, num_alphas=17, decay=1.4, peers=("every_penalty",)
    ),
    # Sizes at which others run out of memory, scaled: a quarter of p 148,000, v 52,000 at n 8000,
    # an eighth of p 100,000 at n 22,000, and of n 33,000 with four delays of 4096 units.
    "wide_features": solver.Case(n=2000, p=37_000, v=13_000, peers=(), num_repeats=1),
    "many_features": solver.Case(n=2750, p=12_500, v=2000, peers=(), num_repeats=1),
    "long": solver.Case(n=4125, p=2048, v=2000, peers=(), num_repeats=1),
    "disk": solver.Case(n=1000, p=768, v=100_000, on_disk=True, peers=(), num_repeats=2),
}
SWEEPS = {"scaling": solver.Sweep()}


def get_config(argument=""):
    known = [*CASES, *SWEEPS]
    names = argument.split(",") if argument else known
    if unknown := [x for x in names if x not in known]:
        raise InputError(
            f"--config=configs/bench_solver.py:NAME[,NAME...] takes {', '.join(known)}, "
            f"got {unknown[0]!r}."
        )
    return config.pack(
        config.Common(),
        bench=solver.Config(
            cases={x: case for x, case in CASES.items() if x in names},
            sweeps={x: sweep for x, sweep in SWEEPS.items() if x in names},
        ),
    )
