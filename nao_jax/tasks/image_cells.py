"""The convolutional cells of a search, for reports.

Shapes: A architectures, L tokens, P ops in the set, B branches.
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any, ClassVar

from matplotlib.figure import Figure
import numpy as np

from nao_jax.drawing import convolutional, edges
from nao_jax.metrics import ACCURACY, Measure
from nao_jax.networks.build import Network
from nao_jax.networks.cost import cost
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.settings import unflatten
from nao_jax.spaces import cnn
from nao_jax.spaces.space import Space
from nao_jax.tasks import image_spaces
from nao_jax.tasks.image_finals import ImageFinalConfig


@dataclasses.dataclass(frozen=True)
class ImageCells:
  """A normal and a reduction cell; implements `task.Cells`.

  Attributes:
    settings: the settings of the search, flat.
    own: with `space=own`, the user-defined cells.
  """

  settings: dict[str, Any]
  own: EdgeNetworkConfig | None = None

  measure: ClassVar[Measure] = ACCURACY
  description: ClassVar[str] = "convolutional cells"
  example: ClassVar[str] = "image"

  @property
  def sizes(self) -> NetworkConfig:
    """Sizes of the network that scores the cells."""
    return unflatten(NetworkConfig, self.settings, "network.")

  @property
  def network(self) -> Network:
    """The network that scores the cells."""
    return self._layout.resized(self.sizes)

  @property
  def _layout(self) -> Network:
    return image_spaces.layout(self._space, self.own)

  @property
  def _space(self) -> str:
    # Settings of before had one space.
    return self.settings.get("space", "nao")

  @property
  def parts(self) -> str:
    """Name of the parts of a cell that have an op."""
    return "branches" if self._space == "nao" else "edges"

  @property
  def data(self) -> str:
    """Name of the data set."""
    return str(self.settings["dataset"])

  @property
  def space(self) -> Space:
    """The search space."""
    if self._space != "nao":
      return self.network.space
    sizes = self.sizes
    return cnn.space(sizes.nodes, sizes.ops, self.settings["encoding"])

  @property
  def op_names(self) -> tuple[str, ...]:
    """Names of the P ops."""
    if self._space == "nao":
      return cnn.OP_SETS[self.sizes.ops]
    return tuple(operation.name for operation in self.network.operations)

  def ops(self, tokens: np.ndarray) -> np.ndarray:
    """Implements `Cells.ops`."""
    cells = self.network.to_cells(tokens)
    if self._space == "nao":
      cells = cells[..., 1::2]
    return cells.reshape(len(tokens), -1)

  def figures(self, tokens: np.ndarray) -> dict[str, Figure]:
    """Implements `Cells.figures`."""
    if self._space != "nao":
      return {"The cell.": edges.figure(*self._edges(tokens))}
    return {
      f"The {part.lower()} cell.": convolutional.figure(
        tokens, self.op_names, parts=[part]
      )
      for part in convolutional.PARTS
    }

  def draw(self, tokens: np.ndarray, files: Sequence[os.PathLike]) -> None:
    """Implements `Cells.draw`."""
    if self._space == "nao":
      convolutional.draw_cells(tokens, self.op_names, files, title="best cells")
    else:
      edges.draw_cell(*self._edges(tokens), files, title="best cell")

  def _edges(self, tokens: np.ndarray) -> tuple:
    """Returns edges, name of each edge's operation, and all names."""
    chosen = self.ops(np.asarray(tokens)[None])[0]
    names = self.op_names
    return self.network.edges, [names[number] for number in chosen], names

  def costs(self, tokens: np.ndarray, best: dict) -> list[tuple[str, str, str]]:
    """Implements `Cells.costs`; they depend on the size of the images."""
    image = best.get("image")
    if not _is_shape(image):
      return []
    final = unflatten(ImageFinalConfig, self.settings, "final.")
    networks = {"as the search scored it": self.network}
    if final.cells:
      name = "as it was trained from scratch"
      networks[name] = self._layout.resized(final.network(self.sizes))
    costs = {
      name: cost(network, tokens, image[0], image[2])
      for name, network in networks.items()
    }
    known = self._space != "own"  # A kernel may act on part of the maps.
    return [
      (
        name,
        f"{total.parameters:,}",
        f"{total.multiply_adds:,}" if known else "not known",
      )
      for name, total in costs.items()
    ]


def _is_shape(image: Any) -> bool:
  """Returns whether a value is height, width and channels of an image."""
  return (
    isinstance(image, list)
    and len(image) == 3
    and all(isinstance(number, int) and number > 0 for number in image)
  )
