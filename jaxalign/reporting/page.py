"""A page with its tables and charts -> the files of a folder, the same way for every stage."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.place import Place
from jaxalign.reporting import charts, html
from jaxalign.reporting.charts import Chart
from jaxalign.reporting.html import Section

VERSION = 3  # of what all pages have: changed, pages are made again, and no scores
SUMMARY = "summary.txt"
PAGE = run_dir.PAGE
_LONGEST_NAME = 200  # bytes of a file's name without its ending
_LONG_TABLE = 40  # rows, from which a table goes over several pages


class Page(NamedTuple):
    """What a run found, as it is shown and written."""

    title: str
    lead: str  # what was found, in a sentence or two
    sections: Sequence[Section]
    tables: Mapping[str, pd.DataFrame]  # by the names of their files
    summary: str  # what the run prints at its end
    provenance: str = ""
    tiles: Sequence[tuple[str, str]] = ()  # numbers at the top, each with what it counts
    unprinted: Collection[str] = ()  # names of tables of many rows, which nobody prints

    @property
    def charts(self) -> dict[str, Chart]:
        """All charts of the page, by name."""
        return {chart.name: chart for section in self.sections for chart in section.charts}

    @property
    def html(self) -> str:
        """The page as one self-contained file."""
        return html.page(self.title, self.lead, self.sections, self.provenance, self.tiles)

    def write(self, folder: Place, *, parquet: bool = False) -> list[str]:
        """Write each table as CSV and LaTeX, each drawing as SVG and PDF, the page and the summary.

        Each file is seen whole or not at all.

        Args:
          folder: which exists.
          parquet: write tables as Parquet too, for other stages to read, and "nan" in the CSV.

        Returns:
          Names of the files.
        """
        files = {SUMMARY: self.summary.encode(), PAGE: self.html.encode()}
        names = []
        for name, table in self.tables.items():
            if parquet:
                rows_lib.write_table(folder / name, table)
                names += [f"{name}.csv", f"{name}.parquet"]
            else:
                # Layers that may be undefined have no decimals here either.
                files[f"{name}.csv"] = html.whole(table).to_csv(index=False).encode()
            if name not in self.unprinted and len(table):
                files[f"{name}.tex"] = latex(table, name).encode()
        drawn = {name: charts.svg(chart) for name, chart in self.charts.items()}
        drawn |= {x.name: x.svg for section in self.sections for x in section.figures}
        for name, svg in zip(file_names(drawn), drawn.values(), strict=True):
            files[f"{name}.svg"] = svg
            files[f"{name}.pdf"] = charts.pdf(svg)
        for name, data in files.items():
            run_dir.write_atomic(folder / name, data)
        return [*names, *files]


def provenance(artefact: run_dir.Artefact, commit: str, versions: str = "") -> str:
    """Return the text at the end of a page: commit, versions of packages, and all settings.

    Args:
      artefact: of the page.
      commit: that its rows were made with; "" if it is not known.
      versions: of packages.
    """
    lines = [f"commit {commit or 'unknown'}", *([versions] if versions else [])]
    return "\n".join([*lines, json.dumps(artefact.describe(), indent=1)])


def file_name(name: str) -> str:
    """Return a name that a file can have; models may be named with a slash, or a whole sentence."""
    found = re.sub(r"[^\w.+-]", "_", name)
    if len(found.encode()) <= _LONGEST_NAME:
        return found
    kept = found.encode()[: _LONGEST_NAME - 17].decode(errors="ignore")
    return f"{kept}_{run_dir.hash_text(name)}"


def file_names(names: Iterable[str]) -> list[str]:
    """Return a name for the file of each, none twice: "a/b" and "a_b" would have the same."""
    found: list[str] = []
    for name in names:
        file, number = file_name(name), 1
        # Some systems do not tell capitals apart.
        while file.lower() in {x.lower() for x in found}:
            number += 1
            file = f"{file_name(name)}_{number}"
        found.append(file)
    return found


def latex(table: pd.DataFrame, label: str) -> str:
    """Return a table for LaTeX with booktabs, everything in it escaped.

    Args:
      table: of numbers and text; numbers have three digits.
      label: for references, after "tab:".
    """
    named = html.whole(table).rename(columns=lambda x: str(x).replace("_", " "))
    return named.to_latex(
        index=False,
        escape=True,
        float_format=html.cell,
        formatters={name: html.cell for name in named if named[name].dtype == object}
        | {new: html.p_value for old, new in zip(table, named, strict=True) if html.is_p(old)},
        na_rep="--",
        longtable=len(table) > _LONG_TABLE,
        label=f"tab:{label}",
    ).replace("–", "--")
