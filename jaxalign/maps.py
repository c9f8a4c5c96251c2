"""Write scores of targets as maps in the space that responses came from.

  python -m jaxalign.maps RUN... [--out=FOLDER] [--minus=NAME]

RUN is a work directory of a finished run with the stage encode; several are compared where they
share data set, protocol and folds. FOLDER (default: maps) becomes a BIDS derivatives data set:
NIfTI, CIFTI or GIFTI as the responses were, a JSON file beside each map, and one table of all
targets. NAME is a model, or a kind of control, whose scores are taken from those of every model
(default: every pair of models). docs/maps.md says what each map is.
"""

import argparse
import pathlib
import sys

from jaxalign import command_line
from jaxalign.api import maps


def main(argv: list[str]) -> int:
    """Read the command line and write; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxalign.maps",
        description=(__doc__ or "").strip().partition("\n")[0],
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work directory of a finished run")
    parser.add_argument("--out", type=pathlib.Path, default="maps", help="folder (default: maps)")
    parser.add_argument("--minus", default="", help="model or control that is taken from each")
    given = parser.parse_args(argv)
    sys.stdout.write(f"{maps.write_maps(given.runs, path=given.out, minus=given.minus)!r}\n")
    return 0


if __name__ == "__main__":
    with command_line.ends_in_one_line():
        sys.exit(main(sys.argv[1:]))
