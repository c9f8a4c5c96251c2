"""Entry point: run the stages of a configuration.

python -m jaxalign.main --config=configs/demo.py --workdir=runs/demo
"""

import contextlib
import dataclasses
import hashlib
import logging as stdlib_logging
import os
import pathlib
import re
import sys
from collections.abc import Callable

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from jaxalign import allocators, command_line, price_flags, processes, stopping
from jaxalign.errors import InputError, one_line

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration file, such as configs/demo.py.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Where artefacts go: a folder, s3://BUCKET/PATH or gs://BUCKET/PATH. Default: "
    "runs/<configuration>, and behind it the data and models that the command names.",
)
_STORE = flags.DEFINE_string(
    "store",
    None,
    "Where artefacts go that other runs may share; settings and pages stay in the work directory. "
    "Default: the work directory.",
)
_ONLY = flags.DEFINE_list(
    "only",
    [],
    "Make these artefacts alone, <stage>/<fingerprint> each as --dry_run shows their folders: what "
    "the runs of a sweep share.",
)
_DATA_ROOT = flags.DEFINE_string(
    "data_root", None, "Folder of published data. Default: environment variable JAXALIGN_DATA."
)
_DOWNLOAD = flags.DEFINE_bool(
    "download",
    False,
    "Fetch the files of the data set that are missing, where they lie at a stable address with a "
    "known checksum, to the folder of published data; and Alpaca's instructions, where tune.data "
    "names them.",
)
_CACHE = flags.DEFINE_string(
    "compilation_cache",
    os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/jaxalign/compiled"),
    "Where compiled programs are kept for later runs, a folder that nobody else can write to; "
    "empty: nowhere.",
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the resolved configuration and what each stage would do, and stop."
)
# Of several processes that make one run; on TPUs and under Slurm none is needed.
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT where process 0 runs, for several processes in one run."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes make this run.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is: 0, 1, ...", lower_bound=0
)
_LOCAL_DEVICES = flags.DEFINE_list(
    "local_devices", [], "Numbers of the devices of this process on its host. Default: all."
)
flags.adopt_module_key_flags(price_flags)  # --help lists them
_PROFILE = flags.DEFINE_string(
    "profile", "", "Folder for a JAX trace of the run, which TensorBoard and Perfetto show."
)


_LONG_NAME = 80  # characters of a work directory's name, from which it is cut


def main(argv: list[str]) -> None:
    """Plan all stages, then run them in order; what is finished is not made again."""
    if len(argv) > 1:
        raise InputError(f"only flags are understood, got argument {argv[1]!r}.")
    settings = _settings()
    # Imported here: --help and a bad flag need not wait for JAX.
    import jax

    from jaxalign import plans, runner
    from jaxalign.pricing import chips, prices

    _keep_compiled(_CACHE.value)
    _join_processes()
    machine = _machine()
    plan = runner.plan(
        settings,
        workdir=_WORKDIR.value or f"runs/{_run_name()}",
        data_root=_DATA_ROOT.value,
        places=runner.Places(store=_STORE.value),
        fetch=_DOWNLOAD.value,
        machine=machine,
    )
    if plan.machine:
        plan = dataclasses.replace(
            plan, machine=chips.calibrated(plan.machine, price_flags.calibration())
        )
    if _ONLY.value:
        plan = plans.only(plan, _ONLY.value)
    if _DRY_RUN.value:
        _show(lambda: plans.describe(plan, price_flags.rate()))
        if plan.machine and (
            reason := prices.refusal(plans.items(plan), plan.machine, plan.layout)
        ):
            raise InputError(reason)
        return
    with jax.profiler.trace(_PROFILE.value) if _PROFILE.value else contextlib.nullcontext():
        made = runner.run(plan)
    if made:
        logging.info("%s", plans.compared(plan))
    logging.flush()
    _show(lambda: plans.results(plan))


def _join_processes() -> None:
    """Join the other processes of this run, if there are any."""
    if bad := [x for x in _LOCAL_DEVICES.value if not x.isdigit()]:
        raise InputError(f"--local_devices must be numbers, got {bad[0]!r}.")
    processes.start(
        _COORDINATOR.value,
        _NUM_PROCESSES.value or 0,
        -1 if _PROCESS_ID.value is None else _PROCESS_ID.value,
        [int(x) for x in _LOCAL_DEVICES.value],
    )


def _show(text: Callable[[], str]) -> None:
    """Print, in the first process, and leave the others."""
    if processes.is_first():
        sys.stdout.write(text())
        sys.stdout.flush()
    processes.finish()


def _machine():
    """Return the machine that a plan is to be priced for; None: the one at hand."""
    from jaxalign.pricing import chips

    if not price_flags.chip():
        return None
    if not _DRY_RUN.value:
        raise InputError(f"--chip={price_flags.chip()} prices a plan, so it goes with --dry_run.")
    return chips.find(price_flags.chip())


def _keep_compiled(folder: str) -> None:
    """Let JAX keep what it compiles; a second run begins at once."""
    import jax

    from jaxalign.io import place

    place.refuse_urls("--compilation_cache", folder)
    if folder:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(folder).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _settings() -> ml_collections.ConfigDict:
    """Return the configuration, with the overrides of the command line."""
    if _CONFIG.value is None:
        raise InputError("--config must name a configuration file, such as configs/demo.py.")
    path = _config_path()
    if not path.is_file():
        raise InputError(f"--config must name a file: there is no file {str(path)!r}.")
    return _CONFIG.value


def _config_path() -> pathlib.Path:
    return pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0])


def _run_name() -> str:
    """Name a run by its configuration, and by the data and models that the command line names.

    What a work directory shows is its last run: two commands that name other data or models have
    directories of their own. A path is named by its end and a hash, or by its label (LABEL=PATH).
    """
    from jaxalign.models import labels

    flag = flags.FLAGS["config"]
    argument = config_flags.get_config_filename(flag).partition(":")[2]
    overrides = config_flags.get_override_values(flag)
    named = [part for part in argument.split(",") if part]
    for name, value in overrides.items():
        if name == "dataset" or name.rpartition(".")[2] in ("models", "text"):
            named += [value] if isinstance(value, str) else list(value)
    is_path, whole, words = [], [], []
    for part in named:
        label, place = labels.split(part)
        is_path.append(os.sep in place or pathlib.Path(place).exists())
        if is_path[-1]:
            path = os.path.abspath(place)
            whole.append(f"{label}={path}" if label else path)
            words.append(label or os.path.basename(path))
        else:
            whole.append(part)
            words.append(part)
    name = "-".join([_config_path().stem, *(re.sub(r"[^\w.+-]", "_", word) for word in words)])
    if any(is_path) or len(name) > _LONG_NAME:
        digest = hashlib.sha256(repr(whole).encode()).hexdigest()
        name = f"{name[:_LONG_NAME]}-{digest[:6]}"
    return name


def _parse(argv: list[str]) -> list[str]:
    """Parse flags; what is wrong with them is an `InputError` in one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        # What a configuration file raises comes as the text of a traceback; its own words suffice.
        refused = str(error).rpartition("jaxalign.errors.InputError: ")
        if refused[1]:
            raise InputError(" ".join(refused[2].split())) from error
        raise InputError(f"{one_line(error)} (--help lists the flags)") from error
    except (AttributeError, KeyError) as error:
        # How ml_collections reports an override of a setting that does not exist.
        overrides = [
            x.split("=")[0].lstrip("-") for x in argv if x.lstrip("-").startswith("config.")
        ]
        named = set(re.findall(r"\w+", str(error).partition("Did you mean")[0]))
        unknown = next((x for x in overrides if named & set(x.split(".")[1:])), None)
        if unknown is None:
            raise
        guess = re.search(r'Did you mean "(\w+)"', str(error))
        hint = f"did you mean {guess[1]}?" if guess else "--dry_run lists them all."
        raise InputError(f"--{unknown}: there is no such setting; {hint}") from error


def cli() -> None:
    """Run `main`; report what the user can put right in one line, with exit code 2.

    Ctrl-C ends with 130, SIGTERM and SIGUSR2 with 143; the list is in docs/running.md.
    """
    allocators.set_up()
    logging.use_absl_handler()
    stopping.listen()
    # JAX reports accelerators that are absent and how processes meet, matplotlib its fonts.
    for name in ("jax._src.xla_bridge", "jax._src.distributed", "matplotlib"):
        stdlib_logging.getLogger(name).setLevel(stdlib_logging.WARNING)
    logging.set_verbosity(logging.INFO)
    with command_line.ends_in_one_line(
        kept="what is finished is kept; the same command goes on where it was",
        smaller="a smaller --config.extract.batch_tokens, fewer models or targets at a time",
    ):
        app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    cli()
