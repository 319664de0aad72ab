"""The convolutional cells of a search, for reports.

Shapes: A architectures, L tokens, P ops in the set, B branches.
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nao_jax.metrics import ACCURACY, Measure
from nao_jax.networks.build import Network
from nao_jax.networks.cost import cost
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.mobile_config import MobileConfig
from nao_jax.settings import unflatten
from nao_jax.spaces import cnn
from nao_jax.spaces.space import Space
from nao_jax.tasks import image_spaces
from nao_jax.tasks.image_finals import ImageFinalConfig

if TYPE_CHECKING:
  from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class ImageCells:
  """Cells, or chains of blocks, of images; implements `task.Cells`.

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
    mobile = MobileConfig()
    # Settings leave the sizes out where they are the defaults.
    if any(name.startswith("mobile.") for name in self.settings):
      mobile = unflatten(MobileConfig, self.settings, "mobile.")
    return image_spaces.layout(self._space, self.own, mobile)

  @property
  def _space(self) -> str:
    # Settings of before had one space.
    return self.settings.get("space", "nao")

  @property
  def parts(self) -> str:
    """Name of what has an op."""
    return self.network.parts

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
    return self.network.op_names

  def ops(self, tokens: np.ndarray) -> np.ndarray:
    """Implements `Cells.ops`."""
    return self.network.chosen_ops(tokens)

  def figures(self, tokens: np.ndarray) -> dict[str, "Figure"]:
    """Implements `Cells.figures`."""
    from nao_jax.tasks import image_drawing

    return image_drawing.figures(self.network, tokens)

  def draw(self, tokens: np.ndarray, files: Sequence[os.PathLike]) -> None:
    """Implements `Cells.draw`."""
    from nao_jax.drawing import canvas
    from nao_jax.tasks import image_drawing

    titles = {"nao": "best cells", "mobile": "best chain"}
    title = titles.get(self._space, "best cell")
    canvas.save(image_drawing.figure(self.network, tokens, title), files)

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
