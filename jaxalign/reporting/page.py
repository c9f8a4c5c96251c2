"""A page with its tables and charts -> the files of a folder, the same way for every stage."""

import json
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.reporting import charts, html
from jaxalign.reporting.charts import Chart
from jaxalign.reporting.html import Section

VERSION = 2  # of what all pages have: changed, pages are made again, and no scores
SUMMARY = "summary.txt"
PAGE = "index.html"
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

    def write(self, folder: pathlib.Path, *, parquet: bool = False) -> list[str]:
        """Write each table as CSV and LaTeX, each chart as SVG and PDF, the page and the summary.

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
                files[f"{name}.csv"] = table.to_csv(index=False).encode()
            if name not in self.unprinted and len(table):
                files[f"{name}.tex"] = latex(table, name).encode()
        for name, chart in self.charts.items():
            drawn = charts.svg(chart)
            files[f"{file_name(name)}.svg"] = drawn
            files[f"{file_name(name)}.pdf"] = charts.pdf(drawn)
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
    """Return a name that a file can have; models may be named with a slash."""
    return re.sub(r"[^\w.+-]", "_", name)


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
        formatters={name: html.cell for name in named if named[name].dtype == object},
        na_rep="--",
        longtable=len(table) > _LONG_TABLE,
        label=f"tab:{label}",
    ).replace("–", "--")
