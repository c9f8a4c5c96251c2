"""Runs of small data that have every stage between them, by one process or by one of several.

    python tests/support/every_stage.py ROOT FOLDER COUNT INDEX PORT

Each file that is written has a line in FOLDER/written, with the number of the process.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import pandas as pd
import small
import tensorstore as ts
from scipy import io as scipy_io

from jaxalign import command_line, config, plans, processes, runner, stopping
from jaxalign.data import localizer
from jaxalign.data.images import pixels
from jaxalign.data.sets import images92
from jaxalign.io import run_dir, store
from jaxalign.stages import (
    behavior,
    ceiling,
    collect,
    encode,
    extract,
    imported,
    localize,
    next_word,
    properties,
    rsa,
    similarity,
)

CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 22},
    "crop_size": {"height": 20, "width": 20},
}
WORDS = "the dog sat on a mat and saw red birds fly over old stone walls at dawn".split()
PASSAGES, LENGTH = 6, 10  # words of each


def write(root):
    """Write what the runs read."""
    root.mkdir()
    rng = np.random.default_rng(0)
    _write_words(root / "words", rng)
    (root / "text.txt").write_text(" ".join(rng.choice(WORDS, 150)) + "\n")
    shutil.copytree(small.GOLDEN / "vision/clip", root / "clip")
    (root / "clip" / pixels.FILE).write_text(json.dumps(CLIP))
    _write_images(root / images92.FOLDER, rng)
    ids = [f"image{i + 1:02d}" for i in range(images92.NUM)]
    np.savez(root / "sees.npz", stimulus_id=ids, layer_1=rng.normal(size=(len(ids), 4)))


def _write_words(folder, rng):
    """Write words that are a localiser's items, were read, and heard by two people."""
    folder.mkdir()
    kinds = (localizer.CONDITION, localizer.CONTROL)
    ids = [f"{kinds[p % 2]}.{p}.{i}" for p in range(PASSAGES) for i in range(LENGTH)]
    passage = [f"p{x.split('.')[1]}" for x in ids]
    pairs = [first + second for first in WORDS for second in WORDS]  # no two stimuli are the same
    text = rng.choice(pairs, len(ids), replace=False)
    table = {"stimulus_id": ids, "text": text, "passage": passage}
    pd.DataFrame(table).to_csv(folder / "stimuli.csv", index=False)
    times = {"stimulus_id": ids, "participant": "mean"}
    times["reading_time_ms"] = 300 + 50 * rng.random(len(ids))
    times["word_in_sentence"] = [1 + i % (LENGTH // 2) for i in range(len(ids))]
    pd.DataFrame(times).to_csv(folder / "behavior.csv", index=False)
    np.savez(
        folder / "responses.npz",
        values=rng.normal(size=(len(ids), 8)),
        run=["session"] * len(ids),
        subject=[f"s{i // 4}" for i in range(8)],
        roi=["A", "A", "A", "B"] * 2,
        target=["a", "b", "c", "d"] * 2,
        units="z",
        stimulus_id=ids,
    )


def _write_images(folder, rng):
    folder.mkdir()
    num, side = images92.NUM, images92.SIDE
    pictures = rng.integers(0, 256, (num, 8, 8, 3), dtype=np.uint8)

    def structs(shape, **fields):
        found = np.empty(shape, [(name, object) for name in fields])
        for name, values in fields.items():
            found[name] = np.array([*values, None], object)[:-1].reshape(shape)
        return found

    def rdms(count):
        for _ in range(count):
            x = rng.normal(size=(num, 5))
            yield 1 - np.corrcoef(x)

    large = [np.resize(x, (side, side, 3)) for x in pictures]
    save = lambda file, **named: scipy_io.savemat(folder / file, named, do_compression=True)
    save(images92.STIMULI, stimuli_92objs=structs((1, num), image=large))
    save(images92.BRAINS, RDMs=structs((2, 2), RDM=rdms(4)))
    save(images92.MODELS, Models=structs((1, 1), name=["V1"], RDM=rdms(1)))


def runs(root, folder):
    """Return the settings of each run, in an order in which they can run."""
    return {
        "words": config.pack(
            config.Common(dataset=str(root / "words")),
            extract=extract.Config(
                models=(str(small.LLAMA),),
                untrained_seed=-1,
                surprisal=True,
                static_embedding=True,
                shard_stimuli=16,
                batch_tokens=64,
            ),
            localize=localize.Config(percent=10.0),
            ceiling=ceiling.Config(
                num_resamples=10, num_nulls=10, num_splits=4, num_folds=3, num_curves=5
            ),
            encode=encode.Config(
                groups="passage",
                num_folds=3,
                alphas=(1.0, 100.0),
                layers=(2,),
                controls=(),
                partition=("length",),
                partition_draws=2,
                partition_rounds=0,
            ),
            similarity=similarity.Config(layers=(1, 2)),
            behavior=behavior.Config(baseline=("length",)),
        ),
        "images": config.pack(
            config.Common(dataset=images92.FOLDER),
            extract=extract.Config(
                models=(str(root / "clip"),),
                untrained_seed=-1,
                pooling="cls",
                shard_stimuli=20,
                batch_tokens=200,
            ),
            imported=imported.Config(models=(str(root / "sees.npz"),)),
            rsa=rsa.Config(),
        ),
        "text": config.pack(
            config.Common(),
            next_word=next_word.Config(
                models=(str(small.LLAMA),),
                text=str(root / "text.txt"),
                context=24,
                stride=10,
                untrained_seed=-1,
                block_tokens=32,
                batch_tokens=96,
                shard_windows=5,
            ),
        ),
        "together": config.pack(
            config.Common(),
            collect=collect.Config(runs=(str(folder / "work/words"),)),
            properties=properties.Config(sources=("zoo",)),
        ),
    }


def stored(path):
    """Return all activations of a store."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return np.asarray(ts.open(spec).result().read().result())


def _count(folder, index):
    """Note each file that is written, and by whom."""
    write_atomic, write_shard = run_dir.write_atomic, store.Store.write_shard

    def note(path):
        with open(folder / "written", "a") as file:
            file.write(f"{path} {index}\n")

    def whole(path, *args, **kwargs):
        note(path)
        return write_atomic(path, *args, **kwargs)

    def shard(self, number, values):
        note(self.path / str(number))
        return write_shard(self, number, values)

    run_dir.write_atomic, store.Store.write_shard = whole, shard


if __name__ == "__main__":
    root, folder = map(pathlib.Path, sys.argv[1:3])
    count, index, port = map(int, sys.argv[3:])
    stopping.listen()
    with command_line.ends_in_one_line():
        if count > 1:
            processes.start(f"127.0.0.1:{port}", count, index)
        _count(folder, index)
        for name, settings in runs(root, folder).items():
            plan = runner.plan(settings, workdir=folder / "work" / name, data_root=root)
            # Pages take long to draw, and the demo has some.
            stored = [x.artefact for x in plan.steps if not x.artefact.latest_only]
            runner.run(plans.only(plan, [f"{x.stage}/{x.fingerprint}" for x in stored]))
        processes.finish()
