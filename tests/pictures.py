"""Drawn cells, looked at piece by piece."""

import itertools
from xml.etree import ElementTree

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch
import numpy as np


class Picture:
  """The texts and boxes of a figure."""

  def __init__(self, figure):
    (axes,) = figure.axes
    self.texts = [text for text in axes.texts if text.get_text()]
    self.boxes = [p for p in axes.patches if isinstance(p, FancyBboxPatch)]

  def words(self, box) -> tuple[str, ...]:
    inside = [text for text in self.texts if within(text.get_position(), box)]
    return tuple(text.get_text() for text in inside)


def within(point, box) -> bool:
  x, y = point[0] - box.get_x(), point[1] - box.get_y()
  return 0 < x < box.get_width() and 0 < y < box.get_height()


def way(wire) -> np.ndarray:
  """Points along a wire, [n, 2]."""
  (curve,) = wire.to_polygons(closed_only=False)
  return np.linspace(curve[:-1], curve[1:], 20).reshape(-1, 2)


def assert_legible(figure, boxes=None, outside=()) -> None:
  """Requires that no texts overlap, and that each fits its boxes.

  Without `boxes`, each text is in one box, or in the page alone if `outside`.
  """
  renderer = FigureCanvasAgg(figure).get_renderer()
  picture = Picture(figure)
  extents = [text.get_window_extent(renderer) for text in picture.texts]
  for a, b in itertools.combinations(extents, 2):
    assert not a.overlaps(b)
  for text, extent in zip(picture.texts, extents, strict=True):
    frames = [
      box.get_window_extent(renderer)
      for box in (picture.boxes if boxes is None else boxes)
      if within(text.get_position(), box)
    ]
    if boxes is None:
      assert len(frames) == (text.get_text() not in outside)
      frames = frames or [figure.bbox]
    for frame in frames:
      assert frame.x0 < extent.x0
      assert extent.x1 < frame.x1
      assert frame.y0 < extent.y0
      assert extent.y1 < frame.y1


def words_of_svg(file) -> list[str]:
  root = ElementTree.parse(file).getroot()
  return [
    "".join(text.itertext()).strip()
    for text in root.iter("{http://www.w3.org/2000/svg}text")
  ]
