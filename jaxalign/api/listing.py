"""What there is to score, by name."""


def list_models() -> tuple[str, ...]:
    """Return the names of all models in the table.

    Any directory with `config.json`, weights and a tokenizer is a model too.

    Example:
      >>> import jaxalign
      >>> "all-MiniLM-L6-v2" in jaxalign.list_models()
      True
    """
    from jaxalign.models.table import MODELS

    return tuple(MODELS)


def list_benchmarks() -> tuple[str, ...]:
    """Return the names of all benchmarks: data sets under a protocol.

    Any data set under any protocol that fits it can be scored too, see `score`.

    Example:
      >>> import jaxalign
      >>> [name for name in jaxalign.list_benchmarks() if name.startswith("alice")]
      ['alice-jaxalign', 'alice-linear-2026', 'alice-wehbe2014', 'alice-himalaya']
    """
    from jaxalign.literature.benchmarks import BENCHMARKS

    return tuple(BENCHMARKS)


def list_protocols() -> tuple[str, ...]:
    """Return the names of all protocols; docs/protocols.md says what each of them fixes.

    Example:
      >>> import jaxalign
      >>> jaxalign.list_protocols()[:3]
      ('jaxalign', 'brainscore-linear-2023', 'brainscore-linear-2026')
    """
    from jaxalign.literature.protocols import PROTOCOLS

    return tuple(PROTOCOLS)
