"""Captions of the images of the Natural Scenes Dataset: a table of one's own, or those of COCO."""

import json
import pathlib
from typing import Any

from jaxalign.data.formats import tables
from jaxalign.data.sets.nsd_trials import Experiment
from jaxalign.errors import InputError, one_line

OWN = "captions.csv"
# As COCO's archive annotations_trainval2017.zip has them.
COCO = "annotations/captions_{split}.json"
SPLITS = ("train2017", "val2017")
NUM = 5  # captions that every image has at least; some have up to 7


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the files of captions that are there and read: one's own, or else COCO's."""
    own = folder / OWN
    coco = [folder / COCO.format(split=split) for split in SPLITS]
    return [own] if own.is_file() else [path for path in coco if path.is_file()]


def read(experiment: Experiment, shown: list[int], which: int) -> list[str]:
    """Return a caption of each image; none at all where no file of captions is there.

    Args:
      experiment: says which photographs of COCO the images are.
      shown: nsdId of each.
      which: of COCO's captions of an image: in the order of their ids in COCO, 1 the first.

    Raises:
      InputError: if a file is malformed, an image has no such caption, or `which` chooses among
        captions that are not COCO's.
    """
    found = files(experiment.folder)
    own = experiment.folder / OWN
    if own in found or not found:
        if which != 1:
            there = f"{own} has one of each image" if found else "there are none"
            raise InputError(
                f"data set nsd: caption must be 1 unless captions are those of COCO, but {there}: "
                f"found {which}."
            )
        return _own(own, shown) if found else []
    source = experiment.coco(shown)
    captions: dict[int, list[str]] = {}
    for split in sorted({source[image][0] for image in shown}):
        path = experiment.folder / COCO.format(split=split)
        if not path.is_file():
            raise InputError(f"captions of images of {split} lie in {path}: it is missing.")
        captions |= _coco(path, {source[image][1] for image in shown if source[image][0] == split})
    chosen = []
    for image in shown:
        split, number = source[image]
        own_captions = captions.get(number, [])
        if len(own_captions) < which:
            raise InputError(
                f"{experiment.folder / COCO.format(split=split)} must have {which} captions of "
                f"image {number} (nsdId {image}), found {len(own_captions)}."
            )
        chosen.append(own_captions[which - 1])
    return chosen


def _own(path: pathlib.Path, shown: list[int]) -> list[str]:
    table = tables.read(path, ("nsdId", "caption"))
    if repeated := tables.first_repeated(table["nsdId"].tolist()):
        raise InputError(f"{path} must have one caption per nsdId, found two of {repeated!r}.")
    caption = dict(zip(table["nsdId"].tolist(), table["caption"].tolist(), strict=True))
    if lost := [i for i in shown if str(i) not in caption]:
        raise InputError(
            f"{path} must have a caption of every image: {len(lost)} of {len(shown)} lack one, the "
            f"first is nsdId {lost[0]}."
        )
    return [caption[str(i)] for i in shown]


def _coco(path: pathlib.Path, wanted: set[int]) -> dict[int, list[str]]:
    """Return the captions of some photographs, in the order of their ids, in single spaces."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            (int(x["image_id"]), int(x["id"]), str(x["caption"])) for x in content["annotations"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} must be COCO's captions, annotations with image_id, id and caption: "
            f"{one_line(error)}."
        ) from error
    found: dict[int, list[str]] = {}
    for photograph, _, text in sorted(rows):
        if photograph in wanted:
            found.setdefault(photograph, []).append(" ".join(text.split()))
    return found
