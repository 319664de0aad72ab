"""Drawn recurrent cells: the picture is the cell, and it is legible."""

from collections import Counter
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch
import numpy as np
import pytest

from nao_jax.drawing import canvas, recurrent, tree_layout
from nao_jax.spaces import published, rnn
from tests import pictures
from tests.pictures import within

few = settings(max_examples=12)

SIZES = tree_layout.Sizes(box=50.0)
NAMES = [entry.name for entry in published.RECURRENT]
CHAIN = [[node, node % 4] for node in range(20)]
STAR = [[0, node % 4] for node in range(20)]


@st.composite
def cells(draw):
  """Cells of 1 to 20 nodes, [N, 2]."""
  count = draw(st.integers(1, 20))
  return [
    [draw(st.integers(0, node)), draw(st.integers(0, 3))]
    for node in range(count)
  ]


def figure(cell, title=""):
  return recurrent.figure(rnn.to_tokens(np.array(cell)), title=title)


def arrange(cell):
  return tree_layout.arrange([parent for parent, _ in cell], SIZES)


@given(cells())
def test_a_child_is_in_the_row_below_its_parent(cell):
  row = arrange(cell).row
  assert row[0] == 0
  for node, (parent, _) in enumerate(cell, 1):
    assert row[node] == row[parent] + 1


@given(cells())
def test_neighbours_in_a_row_keep_their_distance_and_stay_inside(cell):
  plan = arrange(cell)
  nodes = range(len(plan.row))
  slack = 1e-6
  for row in range(max(plan.row) + 1):
    boxes = [(plan.box[n], SIZES.box) for n in nodes if plan.row[n] == row]
    lanes = [(plan.lane[n], SIZES.lane) for n in nodes if 0 < plan.row[n] < row]
    things = sorted(boxes + lanes)
    for (a, width), (b, other) in itertools.pairwise(things):
      assert b - a >= (width + other) / 2 + SIZES.gap - slack
    for x, width in things:
      assert width / 2 - slack <= x <= plan.width - width / 2 + slack


@given(cells())
def test_no_two_edges_cross(cell):
  plan = arrange(cell)
  for row in range(max(plan.row) + 1):
    edges = [
      (plan.box[parent], plan.box[node])
      for node, (parent, _) in enumerate(cell, 1)
      if plan.row[parent] == row
    ]
    for node in range(1, len(plan.row)):
      if plan.row[node] == row:
        edges.append((plan.box[node], plan.lane[node]))
      elif plan.row[node] < row:
        edges.append((plan.lane[node], plan.lane[node]))
    for (a, b), (c, d) in itertools.combinations(edges, 2):
      assert (a - c) * (b - d) >= -1e-6


def test_a_chain_is_a_column_with_lanes_on_both_sides_in_turns():
  plan = arrange(CHAIN)
  assert np.ptp(plan.box) < 1e-6
  sides = np.sign(np.subtract(plan.lane, plan.box)[1:-1])
  assert (sides[1:] == -sides[:-1]).all()


def test_equal_children_are_in_the_order_of_their_numbers_evenly():
  plan = arrange(STAR)
  distances = np.diff(plan.box[1:])
  np.testing.assert_allclose(distances, SIZES.box + SIZES.gap)
  assert plan.box[0] == pytest.approx(plan.width / 2)


class Picture(pictures.Picture):
  """The parts of a figure, found by their looks."""

  def __init__(self, figure):
    super().__init__(figure)
    self.page = figure.get_size_inches() * 72
    self.wires = {
      colour: [
        patch.get_path()
        for patch in figure.axes[0].patches
        if isinstance(patch, PathPatch)
        and not patch.get_fill()
        and to_hex(patch.get_ec()) == colour
      ]
      for colour in (canvas.WIRE, recurrent.LIGHT)
    }

  def ends(self, wire):
    """Returns the texts of the boxes that a wire joins."""
    (start,) = (box for box in self.boxes if touches(wire, 0, box, "lower"))
    (end,) = (box for box in self.boxes if touches(wire, -1, box, "upper"))
    return self.words(start), self.words(end)


def touches(wire, at, box, edge):
  x, y = wire.vertices[at]
  height = box.get_height() if edge == "lower" else 0
  return (
    box.get_x() < x < box.get_x() + box.get_width()
    and abs(box.get_y() + height - y) < 1e-6
  )


def written(cell):
  """Returns the texts of each node's box."""
  names = ["tanh", *(rnn.ACTIVATIONS[activation] for _, activation in cell)]
  return [(str(node), name) for node, name in enumerate(names)]


@few
@given(cells())
def test_the_picture_shows_the_cell(cell):
  picture, nodes = Picture(figure(cell)), written(cell)
  edges = [(nodes[p], nodes[n]) for n, (p, _) in enumerate(cell, 1)]
  edges += [((end,), nodes[0]) for end in ("$x_t$", "$h_{t-1}$")]
  assert Counter(map(picture.ends, picture.wires[canvas.WIRE])) == Counter(
    edges
  )
  ways_out = [picture.ends(w) for w in picture.wires[recurrent.LIGHT]]
  assert Counter(source for source, _ in ways_out) == Counter(nodes[1:])
  assert len({target for _, target in ways_out}) == 1
  assert ways_out[0][1][0].endswith("h_t$")


@few
@given(cells())
def test_boxes_do_not_overlap_and_no_wire_runs_through_one(cell):
  picture = Picture(figure(cell))
  for a, b in itertools.combinations(picture.boxes, 2):
    assert not a.get_bbox().overlaps(b.get_bbox())
  for box in picture.boxes:
    (x0, y0), (x1, y1) = box.get_bbox().get_points()
    assert min(x0, y0) > 1
    assert (np.array([x1, y1]) < picture.page - 1).all()
  for wire in itertools.chain(*picture.wires.values()):
    way = pictures.way(wire)
    # The ends touch the boxes that they join.
    assert not any(within(p, box) for p in way[1:-1] for box in picture.boxes)


LONG = "A cell with a title that is much wider than all that is below it"


@pytest.mark.parametrize(
  ("cell", "title"),
  [([[0, 2]], LONG), ([[0, 1]], ""), (CHAIN, "chain"), (STAR, "")],
)
def test_texts_fit_their_boxes_and_the_page(cell, title):
  pictures.assert_legible(figure(cell, title), outside=[title])


def test_every_activation_has_a_colour_of_its_own():
  assert set(recurrent.COLOURS) == set(rnn.ACTIVATIONS)
  assert len(set(recurrent.COLOURS.values())) == len(rnn.ACTIVATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_the_svg_has_every_node_and_its_activation_once(name, tmp_path):
  tokens = rnn.resolve(name)
  canvas.save(recurrent.figure(tokens, title=name), tmp_path / "cell.svg")
  words = Counter(pictures.words_of_svg(tmp_path / "cell.svg"))
  nodes = written(rnn.to_cells(tokens).tolist())
  assert words[name] == 1
  expected = Counter(itertools.chain(*nodes))
  assert {word: words[word] for word in expected} == expected


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_cell_gives_the_same_bytes(tmp_path, suffix):
  tokens = rnn.resolve("NAO-RNN")
  first, second = (tmp_path / f"{name}.{suffix}" for name in "ab")
  canvas.save(recurrent.figure(tokens, title="NAO-RNN"), [first])
  again = recurrent.figure(tokens.tolist(), title="NAO-RNN")
  canvas.save(again, str(second))
  assert first.read_bytes() == second.read_bytes()
