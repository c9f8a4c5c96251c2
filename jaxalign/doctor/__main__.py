"""Examine a model before its numbers are believed.

  python -m jaxalign.doctor MODEL [--stimuli=DATA] [--out=FOLDER] [--data_root=PATH]

MODEL is a name or a directory, as everywhere, of a model that reads text. DATA is a data set or a
folder with stimuli; without it words of the embedded passages are read. What was found is printed,
a line for each check, and written as a page and tables to FOLDER (default: doctor/MODEL).

The exit code is 1 where a check has failed, and 2 where there is no such model.
"""

import argparse
import os
import pathlib
import sys

from jaxalign import allocators, command_line
from jaxalign.core import mesh as mesh_lib
from jaxalign.doctor import examination, patient
from jaxalign.doctor.findings import FAILED
from jaxalign.errors import InputError
from jaxalign.models import zoo
from jaxalign.reporting.page import file_name


def main(argv: list[str]) -> int:
    """Read the command line and examine; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxalign.doctor",
        description=(__doc__ or "").strip().partition("\n")[0],
    )
    parser.add_argument("model", help="name or directory")
    parser.add_argument("--stimuli", default="", help="data set or folder (default: our own words)")
    parser.add_argument(
        "--out", type=pathlib.Path, help="folder of the page (default: doctor/MODEL)"
    )
    parser.add_argument(
        "--data_root",
        type=pathlib.Path,
        default=os.environ.get("JAXALIGN_DATA"),
        help="folder of data, for models and data sets that lie there (default: JAXALIGN_DATA)",
    )
    given = parser.parse_args(argv)
    data_root = given.data_root and pathlib.Path(given.data_root)
    model = zoo.find(given.model, data_root)
    if model.reads == "images":
        raise InputError(f"doctor examines models that read text: {model.name} reads images.")
    stimuli = patient.find_stimuli(given.stimuli, data_root)
    examined = patient.Patient(model=model, stimuli=stimuli, mesh=mesh_lib.make_mesh(-1, 1))
    out = given.out or pathlib.Path("doctor") / file_name(model.name)
    out.mkdir(parents=True, exist_ok=True)
    record = examination.examine(examined, tell=lambda line: sys.stdout.write(line + "\n"))
    page = examination.page(examined, record)
    page.write(out)
    sys.stdout.write(f"{page.lead}\n{out / 'index.html'}\n")
    return 1 if any(x.status == FAILED for x in record.findings) else 0


if __name__ == "__main__":
    allocators.set_up()
    with command_line.ends_in_one_line():
        sys.exit(main(sys.argv[1:]))
