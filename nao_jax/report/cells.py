"""Properties of the searched cells that a report needs.

Both classes have the same fields and methods.

Shapes: A architectures, L tokens, P ops in the set, B branches.
"""

import dataclasses
from typing import ClassVar

from matplotlib.figure import Figure
import numpy as np

from nao_jax.drawing import convolutional, recurrent
from nao_jax.errors import UserError
from nao_jax.metrics import ACCURACY, PERPLEXITY, Measure
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.runs.workdir import unflatten
from nao_jax.spaces import cnn, rnn
from nao_jax.spaces.space import Space
from nao_jax.training.final import FinalConfig


@dataclasses.dataclass(frozen=True)
class Convolutional:
  """A search for a normal and a reduction cell.

  Attributes:
    settings: the settings of the search, flat.
    network: the network that scored the cells.
    final: the network in which the best cells were trained from scratch.
  """

  settings: dict
  network: NetworkConfig
  final: NetworkConfig

  measure: ClassVar[Measure] = ACCURACY
  # Unit of differences of scores.
  unit: ClassVar[str] = "accuracy"
  what: ClassVar[str] = "convolutional cells"
  # Name of the parts of a cell that have an op.
  parts: ClassVar[str] = "branches"
  compared: ClassVar[str] = "test_accuracy"
  higher_is_better: ClassVar[bool] = True

  def tick(self, score: float) -> str:
    """Formats a score on an axis."""
    return f"{score:.3g}"

  @property
  def data(self) -> str:
    """Name of the data set."""
    return str(self.settings["dataset"])

  @property
  def space(self) -> Space:
    """Search space of the pool's tokens."""
    network = self.network
    return cnn.space(network.nodes, network.ops, self.settings["encoding"])

  @property
  def op_names(self) -> tuple[str, ...]:
    """Names of the P ops."""
    return cnn.OP_SETS[self.network.ops]

  def plain(self, tokens: np.ndarray) -> np.ndarray:
    """Converts the pool's tokens [A, L] to the encoding used elsewhere here."""
    return cnn.to_tokens(cnn.to_cells(tokens, self.settings["encoding"]))

  def ops(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the ops of plain tokens [A, L], int [A, B]."""
    return cnn.to_cells(tokens)[..., 1::2].reshape(len(tokens), -1)

  def text(self, tokens: np.ndarray) -> str:
    """Writes plain tokens [L] in the published notation."""
    return cnn.to_text(tokens)

  def figures(self, tokens: np.ndarray) -> dict[str, Figure]:
    """Draws the cells of plain tokens [L]; returns {caption: figure}."""
    return {
      f"The {part.lower()} cell.": convolutional.figure(
        tokens, self.op_names, parts=[part]
      )
      for part in convolutional.PARTS
    }

  def costs(
    self, tokens: np.ndarray, image: list[int] | None
  ) -> list[tuple[str, str, str]]:
    """Returns (network, parameters, multiply-adds) of plain tokens [L].

    Args:
      tokens: the architecture.
      image: height, width and channels; without it the result is empty.
    """
    if image is None:
      return []
    networks = [
      ("as the search scored it", self.network),
      ("as it was trained from scratch", self.final),
    ]
    if not self.settings["final.cells"]:
      del networks[1:]
    found = [
      (name, cost(network, tokens, image[0], image[2]))
      for name, network in networks
    ]
    return [
      (name, f"{own.parameters:,}", f"{own.multiply_adds:,}")
      for name, own in found
    ]


@dataclasses.dataclass(frozen=True)
class Recurrent:
  """A search for a recurrent cell.

  Attributes:
    settings: the settings of the search, flat.
    network: its language model.
  """

  settings: dict
  network: LanguageModelConfig

  measure: ClassVar[Measure] = PERPLEXITY
  unit: ClassVar[str] = "nats a word"
  what: ClassVar[str] = "recurrent cells"
  parts: ClassVar[str] = "nodes"
  compared: ClassVar[str] = "test_perplexity"
  higher_is_better: ClassVar[bool] = False

  def tick(self, score: float) -> str:
    """Formats a score on an axis."""
    return self.measure.show(score)

  @property
  def data(self) -> str:
    """Name of the text."""
    return str(self.settings["text"])

  @property
  def space(self) -> Space:
    """Search space of the pool's tokens."""
    return rnn.space(self.network.nodes)

  @property
  def op_names(self) -> tuple[str, ...]:
    """Names of the P activations."""
    return rnn.ACTIVATIONS

  def plain(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the pool's tokens [A, L]; they have no other encoding."""
    return tokens

  def ops(self, tokens: np.ndarray) -> np.ndarray:
    """Returns the activations of tokens [A, L], int [A, B]."""
    return rnn.to_cells(tokens)[..., 1]

  def text(self, tokens: np.ndarray) -> str:
    """Writes tokens [L] in the published notation."""
    return rnn.to_text(tokens)

  def figures(self, tokens: np.ndarray) -> dict[str, Figure]:
    """Draws the cell of tokens [L]; returns {caption: figure}."""
    name = "The cell, from what a step reads to what it gives."
    return {name: recurrent.figure(tokens)}

  def costs(
    self, tokens: np.ndarray, image: list[int] | None
  ) -> list[tuple[str, str, str]]:
    """Returns the same columns as `Convolutional.costs`.

    Every cell of the space costs the same.
    """
    del tokens, image
    # Every weight but the output biases is used in one multiply-add a word.
    parameters, words = self.network.parameters, self.network.vocabulary
    return [("language model", f"{parameters:,}", f"{parameters - words:,}")]


def of(settings: dict, source: str) -> Convolutional | Recurrent:
  """Returns the kind of cells that a search with these settings was for.

  Args:
    settings: the settings of a run, flat.
    source: where they come from, for the message.

  Raises:
    UserError: they are not the settings of a search.
  """
  try:
    if "text" in settings:
      network = unflatten(LanguageModelConfig, settings, "network.")
      kind = Recurrent(settings, network)
    else:
      network = unflatten(NetworkConfig, settings, "network.")
      final = unflatten(FinalConfig, settings, "final.")
      kind = Convolutional(settings, network, final.network(network))
    for name in ("search.rounds", "strategy", "evaluator", "seed"):
      settings[name]
    _ = kind.space, kind.data
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"{source}: holds no search of this version (setting {error} is not "
      "there); give the workdir of search_cnn or search_rnn"
    ) from error
  return kind
