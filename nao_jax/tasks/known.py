"""The kinds of cells that ship, by the settings of a search."""

from typing import Any

from nao_jax.tasks.image_cells import ImageCells
from nao_jax.tasks.task import Cells
from nao_jax.tasks.text_cells import TextCells

# {the setting that names the data: kind of cells}.
_BY_DATA = {"dataset": ImageCells, "text": TextCells}


def of(settings: dict[str, Any]) -> Cells:
  """Returns the kind of cells that a search with these settings was for.

  Raises:
    KeyError: they are not the settings of one; it holds a missing setting.
  """
  for name, kind in _BY_DATA.items():
    if name in settings:
      return kind(settings)
  raise KeyError("dataset")
