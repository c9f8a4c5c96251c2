"""The study of Oota et al. (2025): what models answer about natural scenes, and visual cortex.

    launch/local.sh -m jaxalign.main --config=configs/oota2025.py:MODEL[,MODEL...],SUBJECT \
        --data_root=path/to/data

MODELs are of images and text (llava-1.5-7b), of images (vit-huge, clip-vit-l14) or of text, which
read captions; names or directories. SUBJECT is one of the Natural Scenes Dataset, subj01 to subj08,
or `shared`: subjects 1, 2, 5 and 7 on the images that all of them saw. Behind it may stand a
protocol: `oota2025`, the authors' (their test set, scales, penalties and mean over layers, pictures
of 227 pixels), or `jaxalign`, this project's (folds over all images, the layer chosen inside the
training data); of `shared` images, which are all of their test set, `jaxalign` alone.

Each of the ten instructions is asked about every image. The page has normalised alignment by
region, instruction by region maps of winners with the margin and its p, what captioning and each
other instruction share, groups of instructions, and controls: the same networks with random
weights, shuffled images, pixels, colours, luminance, Gabor filters, the instruction alone, and
length and words of the answers (docs/multimodal.md). At full size it needs an accelerator:
`--dry_run` says what it takes.
"""

from jaxalign import config
from jaxalign.errors import InputError
from jaxalign.stages import encode, extract, report
from jaxalign.stages.extract import asked

PROTOCOLS = AUTHORS, OURS = ("oota2025", "jaxalign")
SUBJECTS = ("shared", *(f"subj0{i}" for i in range(1, 9)))
ROIS = ("pRF-Visual", "FLOC-BODIES", "FLOC-FACES", "FLOC-PLACES", "FLOC-WORDS")
CONTROLS = (
    *("untrained", "shuffled", "pixels", "color", "luminance", "gabor"),
    *("instruction_alone", "answer_length", "answer_words"),
)


def get_config(argument=""):
    *models, subject = argument.split(",")
    protocol = ""
    if models and subject in PROTOCOLS:
        *models, protocol = argument.split(",")
        models, subject = models[:-1], models[-1]
    if not models or not all(models) or subject not in SUBJECTS:
        raise InputError(
            "--config=configs/oota2025.py:MODEL[,MODEL...],SUBJECT[,PROTOCOL] must name models, "
            f"one of {', '.join(SUBJECTS)}, and maybe one of {', '.join(PROTOCOLS)}, got "
            f"{argument!r}."
        )
    protocol = protocol or (OURS if subject == "shared" else AUTHORS)
    if (subject, protocol) == ("shared", AUTHORS):
        raise InputError(
            "--config=configs/oota2025.py: protocol must be jaxalign for shared images, which are "
            "the whole test set of oota2025, got 'oota2025'."
        )
    [captioning] = asked.instructions(["oota2025:IC"])
    authors = {"test_runs": ("test",)} if protocol == AUTHORS else {}
    return config.pack(
        config.Common(
            dataset=f"nsd-{subject}",
            options=(f"rois={','.join(ROIS)}", *(["size=227"] if protocol == AUTHORS else [])),
        ),
        extract=extract.Config(
            models=tuple(models),
            instructions=("oota2025",),
            store_dtype="float16",
            batch_tokens=16_384,
        ),
        encode=encode.Config(
            protocol=protocol,
            ceilings="published",
            controls=CONTROLS,
            beside=captioning.text,
            swaps=9999,
            **authors,
        ),
        report=report.Config(
            title=f"What models answer about natural scenes, and {subject}",
            instruction=captioning.text,
        ),
    )
