import io
import sys

import pytest

from nao_jax.runs import streams
from nao_jax.runs.progress import Progress


def _ascii():
  return io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)


def _text(stream):
  return stream.buffer.getvalue().decode("ascii")


def test_characters_that_a_stream_lacks_are_escaped():
  stream = _ascii()
  assert streams.LastingStream(lambda: stream).write("Δ x") == 3
  assert _text(stream) == "\\u0394 x"


@pytest.mark.parametrize("shown", ["┃ bar ━", "名前", "\udcff"])
def test_a_table_is_printed_whatever_the_encoding(monkeypatch, shown):
  stream = _ascii()
  monkeypatch.setattr(sys, "stdout", stream)
  streams.console().print(shown, markup=False)
  assert _text(stream).endswith("\n")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_closed_stream_takes_everything(monkeypatch, name):
  monkeypatch.setattr(sys, name, None)
  console = streams.console(errors=name == "stderr")
  console.print("gone")
  assert not console.is_terminal


def test_progress_needs_no_stream(monkeypatch):
  monkeypatch.setattr(sys, "stderr", None)
  shown = Progress()
  shown("train", 1, 2)
  shown.close()


class _Terminal(io.StringIO):
  """One that is gone."""

  def isatty(self):
    return True

  def write(self, text):
    raise OSError(5, "Input/output error")


def test_a_loss_is_told_once_with_its_reason():
  told, terminal = [], _Terminal()
  lasting = streams.LastingStream(lambda: terminal, told.append)
  assert lasting.isatty()
  for _ in range(3):
    assert lasting.write("line\n") == 5
  lasting.flush()
  assert told == [lasting.lost] == ["Input/output error"]
  assert not lasting.isatty()


def test_bars_outlive_their_terminal():
  shown = Progress(_Terminal())
  for done in range(3):
    shown("train", done, 2)
  shown.close()
