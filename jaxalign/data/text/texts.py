"""Long texts for measuring a language model's loss, and which token stands for which bytes."""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
from jaxtyping import Int

from jaxalign.errors import InputError
from jaxalign.io import run_dir

# Name -> file below the folder of data. As Hugging Face has it (Salesforce/wikitext).
TEXTS = {"wikitext2-test": "wikitext-2-raw-v1/test-00000-of-00001.parquet"}
COLUMN = "text"  # of a Parquet file
# Between rows of a Parquet file, as the documentation of transformers joins those of WikiText-2.
JOINT = "\n\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """A text that was read.

    Attributes:
      name: its name in the table, or that of its file.
      path: the file.
      content: of the file, nothing changed.
    """

    name: str
    path: pathlib.Path
    content: str

    @property
    def hash(self) -> str:
        """Hash of the content; 16 hexadecimal digits."""
        return run_dir.hash_text(self.content)


class Tokens(NamedTuple):
    """A text as a model reads it.

    Attributes:
      ids: of all tokens, with those that the tokenizer puts before a text.
      num_bytes: of the text, in UTF-8, that each token stands for; those of all sum to the text's.
      num_given: tokens at the beginning that are not predicted: those put before the text, or the
        text's own first one.
    """

    ids: Int[np.ndarray, " n"]
    num_bytes: Int[np.ndarray, " n"]
    num_given: int


def find(name: str, data_root: pathlib.Path | None) -> Text:
    """Read a text by its name in the table, or by the path of a file.

    A file is plain text in UTF-8, taken as it is, or ends in `.parquet` and has a column `text`,
    whose rows are joined with an empty line between them.

    Args:
      name: key of `TEXTS`, or a path.
      data_root: folder of published data, for names.

    Raises:
      InputError: if there is no such file, or it holds no text.
    """
    path = pathlib.Path(name)
    if name in TEXTS:
        if data_root is None:
            raise InputError(
                f"text {name} lies in the data folder ({TEXTS[name]}): give --data_root or set "
                "JAXALIGN_DATA."
            )
        path = data_root / TEXTS[name]
    if not path.is_file():
        where = f"lie at {path}" if name in TEXTS else f"be one of {', '.join(TEXTS)}, or a file"
        raise InputError(f"text must {where}: there is no file {str(path)!r}.")
    content = _rows(path) if path.suffix == ".parquet" else _plain(path)
    if not content.strip():
        raise InputError(f"text {path} must not be empty: it holds {len(content)} characters.")
    return Text(name=name if name in TEXTS else path.name, path=path, content=content)


def _plain(path: pathlib.Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"text {path} must be UTF-8: byte {error.start} is not ({error.reason})."
        ) from error


def _rows(path: pathlib.Path) -> str:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"text {path} must be a Parquet file: {reason}.") from error
    if COLUMN not in table.column_names:
        raise InputError(
            f"text {path} must have a column {COLUMN!r}, found {', '.join(table.column_names)}."
        )
    column = table.column(COLUMN)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InputError(f"text {path}: column {COLUMN!r} must hold text, found {column.type}.")
    if column.null_count:
        raise InputError(
            f"text {path}: column {COLUMN!r} must have text in every row, but "
            f"{column.null_count} have none."
        )
    return JOINT.join(column.to_pylist())


def tokenize(tokenizer: tokenizers.Tokenizer, content: str) -> Tokens:
    """Cut a text into tokens, all at once, with the special tokens that belong before it.

    Special tokens after a text are left out: they are no part of it. A token stands for the bytes
    between the end of the token before it and its own, so that what a tokenizer drops (spaces of
    some) is counted, and a letter of several tokens belongs to the first. The last token stands
    for what follows it, too.

    Raises:
      InputError: if nothing of the text becomes a token.
    """
    encoding = tokenizer.encode(content)
    own = np.flatnonzero(~np.asarray(encoding.special_tokens_mask, bool))
    if not len(own):
        raise InputError("a text must hold something that becomes a token.")
    num = int(own[-1]) + 1
    letters = np.frombuffer(content.encode("utf-32-le"), np.uint32)
    size = 1 + sum((letters >= least).astype(int) for least in (0x80, 0x800, 0x10000))
    byte = np.r_[0, np.cumsum(size)]
    ends = np.maximum.accumulate(np.array(encoding.offsets[:num])[:, 1])
    ends[-1] = len(content)
    return Tokens(
        ids=np.array(encoding.ids[:num]),
        num_bytes=np.diff(byte[ends], prepend=0),
        num_given=max(int(own[0]), 1),
    )
