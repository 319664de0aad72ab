"""Drawings: what the picture shows is the architecture, and it is legible."""

import re

from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch
import numpy as np
import pytest

from nao_jax.drawing import canvas, convolutional
from nao_jax.spaces import cnn, published
from tests import pictures
from tests.pictures import within

NAMES = [entry.name for entry in published.CONVOLUTIONAL]
RANDOM = [
  (2, "small"),
  (3, "middle"),
  (5, "large"),
  (7, "middle"),
  (7, "large"),
]


def named(name):
  entry = published.find(name, published.CONVOLUTIONAL)
  return cnn.parse(cnn.space(ops=entry.ops), name), cnn.OP_SETS[entry.ops]


def random(nodes, ops):
  rng = np.random.default_rng(nodes)
  tokens = [rng.choice(choices) for choices in cnn.space(nodes, ops).choices]
  return np.array(tokens), cnn.OP_SETS[ops]


@pytest.fixture(scope="module", params=[*NAMES, *RANDOM], ids=str)
def drawn(request):
  """An architecture, its op names and its figure."""
  make = named if isinstance(request.param, str) else random
  which = [request.param] if make is named else request.param
  tokens, ops = make(*which)
  return tokens, ops, convolutional.figure(tokens, ops, title="An architecture")


class Picture(pictures.Picture):
  """The parts of a figure, found by their looks."""

  def __init__(self, figure):
    super().__init__(figure)
    boxes, card = self.boxes, convolutional.CARD
    self.cards = [box for box in boxes if to_hex(box.get_fc()) == card]
    self.boxes = [box for box in boxes if box not in self.cards]
    self.wires = [
      patch.get_path()
      for patch in figure.axes[0].patches
      if isinstance(patch, PathPatch)
      and to_hex(patch.get_ec()) == convolutional.WIRE
      and 3 <= patch.get_zorder() < 4
      and not patch.get_fill()
    ]

  def words(self, box):
    return "\n".join(super().words(box))

  def card(self, box):
    """The node that a box belongs to."""
    middle = (box.get_x() + box.get_width() / 2, box.get_y())
    (card,) = (card for card in self.cards if within(middle, card))
    return card

  def number(self, card):
    return int(re.search(r"^\d$", self.words(card), re.MULTILINE)[0])

  def source(self, wire):
    """The state at whose lower edge a wire starts, and its half."""
    x, y = wire.vertices[0]
    for box in [*self.cards, *self.boxes]:
      middle = box.get_x() + box.get_width() / 2
      lower = box.get_y() + box.get_height()
      if np.allclose([middle, lower], [x, y]):
        if box in self.cards:
          return self.number(box)
        return {"$c_{k-2}$": 0, "$c_{k-1}$": 1}[self.words(box)]
    raise AssertionError("a wire starts nowhere")

  def target(self, wire):
    """The box at whose upper edge a wire ends."""
    x, y = wire.vertices[-1]
    (box,) = (
      box
      for box in self.boxes
      if box.get_x() < x < box.get_x() + box.get_width()
      and np.isclose(box.get_y(), y)
    )
    return box


def test_the_graph_of_a_cell_lists_branches_and_loose_ends():
  cell = np.array([[0, 1, 0, 2], [2, 0, 0, 0]])
  assert convolutional.edges(cell, ("one", "two", "three")) == [
    convolutional.Edge(0, 2, 0, "two"),
    convolutional.Edge(0, 2, 1, "three"),
    convolutional.Edge(2, 3, 0, "one"),
    convolutional.Edge(0, 3, 1, "one"),
    convolutional.Edge(1, 4, 0, None),
    convolutional.Edge(3, 4, 0, None),
  ]


def test_the_graph_turns_back_into_the_cells(drawn):
  tokens, ops, _ = drawn
  for cell in cnn.to_cells(tokens):
    graph = convolutional.edges(cell, ops)
    again = np.zeros_like(cell)
    for source, target, branch, op in graph:
      if op is not None:
        again[target - 2, 2 * branch : 2 * branch + 2] = source, ops.index(op)
    np.testing.assert_array_equal(again, cell)
    loose = [edge.source for edge in graph if edge.op is None]
    assert loose == np.flatnonzero(cnn.unused_states(cell)).tolist()


def test_the_picture_shows_the_architecture(drawn):
  tokens, ops, figure = drawn
  picture = Picture(figure)
  shown = ([], [])
  outputs = [box for box in picture.boxes if "c_k$" in picture.words(box)]
  reduction = max(box.get_x() for box in outputs)
  for wire in picture.wires:
    box = picture.target(wire)
    text = picture.words(box)
    target = None if box in outputs else picture.number(picture.card(box))
    edge = (picture.source(wire), target, None if target is None else text)
    shown[int(wire.vertices[0, 0] >= reduction)].append(edge)
  for cell, found in zip(cnn.to_cells(tokens), shown, strict=True):
    expected = [
      (e.source, e.target if e.op else None, e.op and convolutional.label(e.op))
      for e in convolutional.edges(cell, ops)
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_no_wire_runs_through_a_box(drawn):
  picture = Picture(drawn[2])
  for wire in picture.wires:
    way = pictures.way(wire)
    assert not any(within(p, box) for p in way for box in picture.boxes)
    end = picture.target(wire)
    own = [c for c in picture.cards if within(end.get_bbox().p0, c)]
    others = [card for card in picture.cards if card not in own]
    assert not any(within(p, card) for p in way for card in others)


def test_the_two_wires_into_a_node_do_not_cross(drawn):
  picture = Picture(drawn[2])
  ends = {}
  for wire in picture.wires:
    box = picture.target(wire)
    if any(within(box.get_bbox().p0, card) for card in picture.cards):
      start, end = wire.vertices[[-5, -2], 0]  # Of the last bend.
      ends.setdefault(picture.card(box), []).append((end, start))
  assert len(ends) == len(picture.cards)
  for (left, from_left), (right, from_right) in map(sorted, ends.values()):
    assert left < right
    assert from_left <= from_right + 1e-6


def test_texts_do_not_overlap_and_fit_their_boxes(drawn):
  pictures.assert_legible(drawn[2], Picture(drawn[2]).boxes)


def test_letters_are_large_enough_at_900_pixels(drawn):
  width = drawn[2].get_size_inches()[0] * 72
  assert convolutional.FONT * 900 / width > 8.5


@pytest.mark.parametrize("ops", cnn.OP_SETS.values(), ids=cnn.OP_SETS)
def test_every_op_has_a_label_and_a_family(ops):
  labels = [convolutional.label(op) for op in ops]
  assert len(set(labels)) == len(ops)
  for op in ops:
    assert any(op.startswith(family) for family in convolutional.FAMILIES)


def test_labels_part_the_kernel_from_the_kind():
  assert convolutional.label("sep_conv_3x3") == "sep conv\n3\xd73"
  assert convolutional.label("conv_1x7_7x1") == "conv\n1\xd77\xb77\xd71"
  assert convolutional.label("identity") == "identity"


def test_files_are_written_and_the_svg_has_every_label(tmp_path):
  tokens, ops = named("NAONet-A")
  png, svg = tmp_path / "cells.png", tmp_path / "cells.svg"
  figure = convolutional.figure(tokens, ops, title="NAONet-A")
  canvas.save(figure, [png, svg])
  assert png.read_bytes().startswith(b"\x89PNG")
  words = pictures.words_of_svg(svg)
  assert "NAONet-A" in words
  for cell in cnn.to_cells(tokens):
    for op in set(np.ravel(cell[:, 1::2])):
      for line in convolutional.label(ops[op]).split("\n"):
        assert line in words


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_architecture_gives_the_same_bytes(tmp_path, suffix):
  tokens, ops = random(2, "small")
  first, second = (tmp_path / f"{name}.{suffix}" for name in "ab")
  canvas.save(convolutional.figure(tokens, ops), first)
  canvas.save(convolutional.figure(tokens, ops), str(second))
  assert first.read_bytes() == second.read_bytes()
