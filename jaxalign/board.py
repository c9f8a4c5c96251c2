"""A public table of scores: rows of many runs and people, as one static page.

  python -m jaxalign.board PLACE... [--out=FOLDER] [--by=NAME] [--submit=FILE] [--check]

PLACE is the work directory of a finished run under a protocol, a CSV file that somebody has sent,
or a folder of such files. FOLDER (default: board) gets the page, which needs no network, and all
rows as board.csv. --submit writes the rows of runs to a file to be sent instead, in NAME's name;
--check reads everything and writes nothing. docs/board.md says what the columns are.
"""

import argparse
import pathlib
import sys

from jaxalign import command_line
from jaxalign.errors import InputError
from jaxalign.io import place
from jaxalign.reporting.page import PAGE
from jaxalign.reporting.pages import board as page_lib
from jaxalign.results import board_rows

LOCAL = "this board"  # who has made rows of runs that nobody submits


def main(argv: list[str]) -> None:
    """Read the command line, and write what it asks for.

    Raises:
      InputError: if a place holds no rows, a row is not as it must be, or comes twice.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jaxalign.board",
        description=(__doc__ or "").strip().partition("\n")[0],
    )
    parser.add_argument("places", nargs="+", metavar="PLACE", help="run, CSV file or folder")
    parser.add_argument("--out", default="board", help="folder of the page (default: board)")
    parser.add_argument("--by", default="", help="who submits the rows of runs")
    parser.add_argument("--submit", default="", metavar="FILE", help="CSV file to be sent")
    parser.add_argument("--check", action="store_true", help="read, check, and write nothing")
    given = parser.parse_args(argv)
    if given.submit and not given.by.strip():
        raise InputError("--by must say in whose name --submit writes rows.")
    for flag, value in (("--out", given.out), ("--submit", given.submit)):
        place.refuse_urls(flag, value)
    table = board_rows.find(given.places, given.by.strip() or LOCAL)
    if given.check:
        sys.stdout.write(f"{len(table)} rows are as they must be.\n")
        return
    if given.submit:
        path = pathlib.Path(given.submit)
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = table[table.submitted_by == given.by.strip()]
        if mine.empty:
            raise InputError("PLACE must name a run whose rows --submit is to write: found none.")
        board_rows.write(path, mine)
        sys.stdout.write(f"{len(mine)} rows in {path}\n")
        return
    folder = pathlib.Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    page = page_lib.page(table)
    page._replace(tables={}).write(place.at(folder))
    board_rows.write(folder / "board.csv", table)
    sys.stdout.write(f"{page.summary}\n{folder / PAGE}\n")


if __name__ == "__main__":
    with command_line.ends_in_one_line():
        main(sys.argv[1:])
