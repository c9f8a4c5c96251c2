"""What models of images and text answer about images, and the visual cortex of who saw them.

    launch/local.sh -m jaxalign.main --config=configs/answers.py:path/to/data,llava-1.5-7b

DATA is a data set of images with responses (docs/datasets/own.md), MODEL a name or a directory;
several have commas between them. Each of the ten instructions of Oota et al. (2025) is asked about
every image, and the layers' means over the answer's tokens are scored (docs/multimodal.md). Tables
of regions and layers show the instruction `--config.report.instruction`, which must be one of those
asked. Stores are in float16; `--dry_run` says what they and the passes take.
"""

from jaxalign import config
from jaxalign.errors import InputError
from jaxalign.stages import encode, extract, report
from jaxalign.stages.extract import asked


def get_config(argument=""):
    data, *models = argument.split(",")
    if not data or not models or not all(models):
        raise InputError(f"--config=configs/answers.py:DATA,MODEL[,MODEL...], got {argument!r}.")
    [captioning] = asked.instructions(["oota2025:IC"])
    return config.pack(
        config.Common(dataset=data),
        extract=extract.Config(
            models=tuple(models),
            instructions=("oota2025",),
            untrained_seed=-1,
            store_dtype="float16",
            batch_tokens=16_384,
        ),
        encode=encode.Config(delays=(0,), gap=0, groups="passage", controls=("shuffled",)),
        report=report.Config(instruction=captioning.text),
    )
