"""What is known of a sweep's jobs: what each makes, after which others, and where; as a file."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io.place import Place

FOLDER = "sweeps"  # in the store: the sweeps that fill it
RECORD = "sweep.json"  # in the folder of a sweep
VERSION = 2
SHARED, RUN, LAST = "shared", "run", "last"  # kinds of jobs
# Stages whose artefacts are too costly to be made by two machines at once.
_COSTLY = ("extract", "imported")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """An artefact that a job makes, as far as its state can be read from the disk."""

    stage: str
    kind: str
    name: str
    path: str
    fingerprint: str
    cost: str

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.stage} {self.name}".strip()

    @property
    def key(self) -> str:
        """What `--only` calls it."""
        return f"{self.stage}/{self.fingerprint}"

    @property
    def is_marked(self) -> bool:
        """Whether its done-marker is there; files are checked by whoever reads them."""
        return run_dir.marker(place.at(self.path)).get("fingerprint") == self.fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One process to start: a run of `jaxalign.main`.

    Attributes:
      name: unique in the sweep; the job's folder has it.
      kind: `SHARED`: makes what several others need; `RUN`: one dictionary; `LAST`: collects.
      folder: where its settings, its pages, its log and its state are.
      flags: of `jaxalign.main`.
      after: names of the jobs that must be done before it. The last one begins when all have ended.
      products: what it makes; of the last job, nothing is known before.
      planned: what it will take (`costs.of_job`); {} where the machine is not known.
    """

    name: str
    kind: str
    folder: str
    flags: tuple[str, ...]
    after: tuple[str, ...] = ()
    products: tuple[Product, ...] = ()
    planned: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def path(self) -> pathlib.Path:
        """Its folder."""
        return pathlib.Path(self.folder)

    @property
    def is_done(self) -> bool:
        """Whether all that it makes is there; of the last job, its state says so (`work.py`)."""
        return bool(self.products) and all(x.is_marked for x in self.products)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """All jobs of a sweep, in an order in which they can run.

    Attributes:
      folder: of the sweep: `<store>/sweeps/<name>`, or where a store in a bucket has it.
      jobs: shared ones, then runs, then the last one, if there is one.
      together: settings of the last job.
      remark: why there is no last job.
      assumed: what prices take for granted, in words.
      compares_models: whether the last job may compare models: none is scored on a data set under
        several protocols, of which no rule would choose one.
    """

    folder: pathlib.Path
    jobs: Sequence[Job]
    together: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    remark: str = ""
    compares_models: bool = True
    assumed: Sequence[str] = ()

    def job(self, name: str) -> Job:
        """Return the job of a name."""
        return next(x for x in self.jobs if x.name == name)

    @property
    def last(self) -> Job | None:
        """The job that collects."""
        return self.jobs[-1] if self.jobs[-1].kind == LAST else None

    def resumed(self, first: "Record") -> "Record":
        """Return the record with the prices that jobs had when they were first planned.

        What is done by now costs nothing any more, and its plan would be lost.

        Args:
          first: the record that was kept then.
        """
        known = {x.name: x for x in first.jobs}
        keys = lambda job: [x.key for x in job.products]
        jobs = [
            dataclasses.replace(x, planned=known[x.name].planned)
            if x.name in known and known[x.name].planned and keys(known[x.name]) == keys(x)
            else x
            for x in self.jobs
        ]
        return dataclasses.replace(self, jobs=jobs)

    def write(self) -> None:
        """Keep the record, for `read`."""
        content = {
            "version": VERSION,
            "together": dict(self.together),
            "remark": self.remark,
            "compares_models": self.compares_models,
            "jobs": [dataclasses.asdict(x) for x in self.jobs],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        run_dir.write_json(self.folder / RECORD, content)

    def share(self, index: int, count: int) -> "Record":
        """Return the jobs that one of several machines runs, and what they need.

        Runs that read the same activations stay together, so that these are computed once. The last
        job belongs to whichever machine finds that all others are done.

        Args:
          index: of the machine, from 0.
          count: of machines.
        """
        groups: list[tuple[set[str], list[Job]]] = []
        for job in (x for x in self.jobs if x.kind == RUN):
            costly = {x.key for x in job.products if x.stage in _COSTLY}
            joined = [x for x in groups if x[0] & costly]
            for other in joined:
                groups.remove(other)
            keys = costly.union(*(x[0] for x in joined))
            groups.append((keys, [*(y for x in joined for y in x[1]), job]))
        own = [job.name for _, members in groups[index::count] for job in members]
        kept = set(own) | self._needed(own)
        jobs = [x for x in self.jobs if x.name in kept or x.kind == LAST]
        return dataclasses.replace(self, jobs=jobs)

    def _needed(self, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for name in names:
            after = self.job(name).after
            found |= set(after) | self._needed(after)
        return found


def folder(store: Place, name: str) -> pathlib.Path:
    """Return the folder of a sweep in its store, a folder itself."""
    assert isinstance(store, pathlib.Path)
    return store / FOLDER / name


def read(folder: pathlib.Path) -> Record:
    """Read the record of a sweep that was started.

    Raises:
      InputError: if there is none, or one of another version.
    """
    path = folder / RECORD
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no sweep at {folder}: start it first.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be the record of a sweep: {error}") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise InputError(f"{path} is of another version of jaxalign: give another --name.")
    jobs = [
        Job(
            **{name: x[name] for name in ("name", "kind", "folder")},
            **{name: tuple(x[name]) for name in ("flags", "after")},
            products=tuple(Product(**product) for product in x["products"]),
            planned=x["planned"],
        )
        for x in found["jobs"]
    ]
    return Record(
        folder=folder,
        jobs=jobs,
        together=found["together"],
        remark=found["remark"],
        compares_models=found["compares_models"],
    )
