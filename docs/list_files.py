"""Write the list of files in docs/architecture.md from the first lines of modules' docstrings.

    launch/local.sh docs/list_files.py

What stands between the two markers is replaced; tests/test_architecture.py says when it is out of
date.
"""

import ast
import pathlib

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs/architecture.md"
BEGIN = "<!-- files: written by docs/list_files.py -->"
END = "<!-- end of files -->"


def first_line(path: pathlib.Path) -> str:
    """Return the first line of a module's docstring; "" without one."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]


def modules() -> list[pathlib.Path]:
    """Return all modules of the package but those that only mark a folder as one."""
    found = (REPOSITORY / "jaxalign").rglob("*.py")
    return sorted(path for path in found if path.stat().st_size)


def files() -> str:
    """Return a table for each folder, with a row for each module."""
    folders: dict[pathlib.Path, list[pathlib.Path]] = {}
    for path in modules():
        folders.setdefault(path.parent, []).append(path)
    parts = []
    for folder, paths in sorted(folders.items()):
        rows = [f"| `{path.name}` | {first_line(path).replace('|', '&#124;')} |" for path in paths]
        title = f"### `{folder.relative_to(REPOSITORY).as_posix()}/`"
        parts.append("\n".join([title, "", "| | |", "|---|---|", *rows, ""]))
    return "\n".join(parts)


def with_files(page: str) -> str:
    """Return the text of the page with a list that is up to date."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} must hold the markers {BEGIN!r} and {END!r}.")
    return f"{before}{begin}\n\n{files()}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_files(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
