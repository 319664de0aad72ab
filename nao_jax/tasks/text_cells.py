"""The recurrent cells of a search, for reports.

Shapes: A architectures, L tokens, B nodes.
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nao_jax.metrics import PERPLEXITY, Measure
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.settings import unflatten
from nao_jax.spaces import rnn

if TYPE_CHECKING:
  from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class TextCells:
  """A recurrent cell of a language model; implements `task.Cells`.

  Attributes:
    settings: the settings of the search, flat.
  """

  settings: dict[str, Any]

  measure: ClassVar[Measure] = PERPLEXITY
  description: ClassVar[str] = "recurrent cells"
  parts: ClassVar[str] = "nodes"
  example: ClassVar[str] = "word"
  op_names: ClassVar[tuple[str, ...]] = rnn.ACTIVATIONS

  @property
  def network(self) -> LanguageModelConfig:
    """The language model."""
    return unflatten(LanguageModelConfig, self.settings, "network.")

  @property
  def data(self) -> str:
    """Name of the text."""
    return str(self.settings["text"])

  @property
  def space(self) -> rnn.RecurrentSpace:
    """The search space."""
    return rnn.space(self.network.nodes)

  def ops(self, tokens: np.ndarray) -> np.ndarray:
    """Implements `Cells.ops`: the activations."""
    return rnn.to_cells(tokens)[..., 1]

  def figures(self, tokens: np.ndarray) -> dict[str, "Figure"]:
    """Implements `Cells.figures`."""
    from nao_jax.drawing import recurrent

    name = "The cell, from the input of a step to its output."
    return {name: recurrent.figure(tokens)}

  def draw(self, tokens: np.ndarray, files: Sequence[os.PathLike]) -> None:
    """Implements `Cells.draw`."""
    from nao_jax.drawing import canvas, recurrent

    canvas.save(recurrent.figure(tokens, title="best cell"), files)

  def costs(self, tokens: np.ndarray, best: dict) -> list[tuple[str, str, str]]:
    """Implements `Cells.costs`; every cell of the space costs the same."""
    del tokens, best
    network = self.network
    # Every weight but the output biases is used in one multiply-add a word.
    parameters, words = network.parameters, network.vocabulary
    return [("language model", f"{parameters:,}", f"{parameters - words:,}")]
