"""Output streams that cannot fail.

Standard output may be closed from the start, or lose its reader (`| head`), its
terminal or the space on its disk. The work matters more than its output, so it
continues without it.
"""

from collections.abc import Callable, Sequence
import sys
from typing import Any, TextIO

import rich.console
import rich.table

from nao_jax.errors import in_a_line


class LastingStream:
  """A text stream whose writes do not fail: unwritable text is dropped.

  Characters that the stream's encoding lacks are written as escapes.

  Attributes:
    lost: the reason why nothing can be written any more; empty before.
  """

  def __init__(
    self,
    find: Callable[[], TextIO | None],
    on_loss: Callable[[str], None] = lambda reason: None,
  ):
    """Wraps a stream.

    Args:
      find: returns the stream; called for each write, as the stream may be
        replaced; None for a closed stream.
      on_loss: called once with the reason, when the first write fails.
    """
    self._find_now, self._on_loss = find, on_loss
    self.lost = ""

  def write(self, text: str) -> int:
    """Writes a text, or drops it; returns its length."""
    try:
      self._try_to_write(text)
    except (OSError, ValueError) as error:
      self._lose(error)
    return len(text)

  def flush(self) -> None:
    """Writes the buffer, or drops it."""
    stream = self._find()
    try:
      if stream is not None and not self.lost:
        stream.flush()
    except (OSError, ValueError) as error:
      self._lose(error)

  def isatty(self) -> bool:
    """Returns whether this is a terminal that can still be written."""
    stream = self._find()
    try:
      return stream is not None and not self.lost and stream.isatty()
    except (OSError, ValueError):
      return False

  @property
  def rich_proxied_file(self) -> "LastingStream":
    """The stream that rich writes to.

    While a bar is shown, `sys.stdout` is rich's own proxy.
    """
    return self

  def __getattr__(self, name: str) -> Any:
    # `fileno`, `encoding` and others.
    return getattr(self._find(), name)

  def _find(self) -> TextIO | None:
    stream = self._find_now()
    return getattr(stream, "rich_proxied_file", stream)

  def _try_to_write(self, text: str) -> None:
    stream = self._find()
    if stream is None or self.lost:
      return
    try:
      stream.write(text)
    except UnicodeEncodeError:
      encoding = stream.encoding
      stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

  def _lose(self, error: Exception) -> None:
    if not self.lost:
      self.lost = getattr(error, "strerror", None) or in_a_line(error)
      self._on_loss(self.lost)


def console(
  *, wide: int | None = None, errors: bool = False
) -> rich.console.Console:
  """Returns a console for tables, whose printing does not fail.

  Args:
    wide: characters in a line where there is no terminal; 80, rich's default,
      if None.
    errors: whether to print on standard error.
  """
  stream = LastingStream(lambda: sys.stderr if errors else sys.stdout)
  width = None if stream.isatty() else wide
  return rich.console.Console(file=stream, width=width)


def show(
  rows: Sequence[dict[str, Any]],
  title: str | None = None,
  *,
  wide: int | None = None,
) -> None:
  """Prints a table; nothing without rows."""
  if not rows:
    return
  table = rich.table.Table(title=title, title_justify="left")
  for heading in rows[0]:
    table.add_column(heading, justify="right")
  for row in rows:
    table.add_row(*map(str, row.values()))
  console(wide=wide).print(table)
