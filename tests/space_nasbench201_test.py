"""Searches for cells of NAS-Bench-201: shared weights, drawing, report."""

import dataclasses
import html
import json
import shutil

import jax
import jax.numpy as jnp
from matplotlib.patches import FancyBboxPatch
import numpy as np
import pytest

from nao_jax import experiment, settings
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import ControllerConfig
from nao_jax.drawing import edges
from nao_jax.errors import UserError
from nao_jax.evaluators.table import Table
from nao_jax.networks import build, edge_config
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.report import search_page
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import nasbench201, slots
from nao_jax.strategies.nao import NaoConfig
from nao_jax.tasks.image_presets import PRESETS
from nao_jax.tasks.image_recipes import RECIPES
from nao_jax.tasks.images import Images
from nao_jax.tasks.task import RunOptions

CONFIG = dataclasses.replace(
  settings.replace(
    PRESETS["digits"],
    {
      "space": "nasbench201",
      "strategy": "nao",
      "network.channels": 4,
      "train.epochs": 2,
      "finalists": 2,
      "finalist.epochs": 1,
      "finalist.channels": 4,
      "final.cells": 1,
      "final.repeats": 1,
      "final.epochs": 1,
      "final.channels": 4,
    },
  ),
  search=SearchConfig(pool_size=6, rounds=1, new_per_round=2),
  controller=ControllerConfig(embedding=4, hidden=8, mlp_width=4),
  fit=FitConfig(epochs=2, batch=3),
  nao=NaoConfig(top_k=2, max_step_size=3, held_out=0.0),
)


@pytest.fixture(scope="module")
def finished(digits_folder, tmp_path_factory):
  path = tmp_path_factory.mktemp("nasbench201") / "run"
  return path, experiment.run(
    Images(digits_folder), CONFIG, workdir=path, options=RunOptions(devices=1)
  )


def test_the_winner_is_a_cell_of_the_benchmark(finished):
  path, best = finished
  assert json.loads((path / "best.json").read_text()) == best
  assert best["space"] == "nasbench201"
  tokens = nasbench201.parse(best["text"])
  np.testing.assert_array_equal(tokens, best["tokens"])
  assert {len(x) for x in best["finalists"].values()} == {2}


def test_it_is_drawn_and_reported(finished):
  path, best = finished
  assert (path / "best.png").stat().st_size > 1000
  page = (path / "report.html").read_text()
  assert best["text"] in page
  assert "% of edges" in page
  assert "branches" not in page


def test_a_table_shows_where_the_winner_stands(finished, tmp_path):
  path, best = finished
  space = nasbench201.space()
  number = int(space.functions.number(np.array(best["tokens"])))
  count = len(space.functions.representative)
  # Three cells are better.
  scores = np.linspace(0, 50, count)
  scores[number] = 60
  scores[(number + np.arange(1, 4)) % count] = 70
  copy = shutil.copytree(path, tmp_path / "run")
  file = search_page.write(copy, truth=Table(space, scores))
  page = html.unescape(file.read_text())
  assert "Among all cells" in page
  share = f"{(count - 4) / count:.1%}"
  words = " ".join(page.split())
  assert f"The winner's is 60.00 %, better than {share} of them" in words
  assert "the best is 70.00 %" in words
  other = Table(slots.space("other", {"a": ("x", "y")}), np.zeros(2))
  with pytest.raises(UserError, match="a table of the same space"):
    search_page.write(copy, truth=other)


def test_it_starts_from_cells_in_the_benchmarks_notation(digits_folder):
  text = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
  cells = Images(digits_folder).cells(
    {"space": "nasbench201", "encoding": "pairs"}
    | {
      f"network.{name}": value
      for name, value in dataclasses.asdict(CONFIG.network).items()
    }
  )
  assert cells.space.text(cells.space.parse(text)) == text
  with pytest.raises(UserError, match="'odd~0' stands for the edge 0 to 1"):
    cells.space.parse(text.replace("none~0", "odd~0", 1))


def test_training_on_two_devices_is_that_on_one(digits_folder):
  task = Images(digits_folder).open(CONFIG, 1)
  tokens = np.asarray(nasbench201.space().sample(jax.random.key(0), 4))

  def scores(devices):
    evaluator = dataclasses.replace(task.shared(), devices=devices)
    state = evaluator.init(jax.random.key(1))
    key = jax.random.key(2)
    return evaluator.score(state, key, tokens, 0, lambda *_: None)[1]

  np.testing.assert_allclose(scores(2), scores(1), atol=0.02)


def test_only_the_supernet_is_without_learnt_scales(digits_folder):
  changed = settings.replace(CONFIG, {"supernet_affine": False})
  task = Images(digits_folder).open(changed, 1)
  trainer = task.shared().trainer
  shapes = jax.eval_shape(
    build.supernet(trainer.network).init,
    jax.random.key(0),
    jnp.zeros((1, 8, 8, 1)),
    jnp.zeros(6, jnp.int32),
  )
  # What is left are the kernels of two convolutions.
  assert len(jax.tree.leaves(shapes["params"]["cell_0"])) == 2
  assert task.candidates()[0].trainer.network.affine


def test_scores_are_of_as_many_images_as_asked(digits_folder):
  changed = settings.replace(CONFIG, {"score_images": 7})
  task = Images(digits_folder).open(changed, 1)
  assert len(task.shared()._scored_with.labels) == 7


def test_settings_of_other_cells_are_refused():
  changed = settings.replace(CONFIG, {"network.nodes": 4})
  with pytest.raises(UserError, match=r"`network\.nodes=4`: acts only with"):
    settings.validate(changed, CONFIG)


def test_a_cell_that_does_nothing_is_drawn_without_arrows():
  config = EdgeNetworkConfig()
  figure = edges.figure(config.edges, ["none"] * 6, nasbench201.OPS)
  assert len(figure.axes[0].patches) == config.states


def _boxes(figure):
  """The edge colours of the boxes in a drawing, and their texts."""
  (axes,) = figure.axes
  boxes = [p for p in axes.patches if isinstance(p, FancyBboxPatch)]
  texts = [text.get_text() for text in axes.texts if text.get_text()]
  return [box.get_edgecolor() for box in boxes], texts


def test_parallel_edges_are_both_drawn():
  _, texts = _boxes(edges.figure([(0, 1), (0, 1)], ["a", "b"], ["a", "b"]))
  assert sorted(texts) == ["a", "b", "input", "output"]


def test_every_operation_has_its_own_colour_in_all_cells():
  names = ["none", "a", "b", "c", "d", "e"]
  both = [
    _boxes(edges.figure([(0, 1)] * len(chosen), chosen, names))[0][2:]
    for chosen in (names, ["none", "d"])
  ]
  assert len(set(both[0])) == 5
  assert both[1] == both[0][3:4]


def test_arrows_begin_at_the_box_of_their_state():
  count = 9
  figure = edges.figure([(0, 1)] * count, ["a"] * count, ["a"])
  state = figure.axes[0].patches[0]
  right = state.get_x() + state.get_width()
  starts = [
    patch.get_path().vertices[0, 0]
    for patch in figure.axes[0].patches
    if not isinstance(patch, FancyBboxPatch) and not patch.get_fill()
  ]
  assert min(starts) == state.get_x() + state.get_width() / 2
  assert len({x for x in starts if x > right + edges.LANE / 2}) == count
  assert sum(x <= right for x in starts) == count


def test_cells_of_ones_own_need_their_setting_and_the_setting_its_cells(
  digits_folder,
):
  own = edge_config.own_cells(edge_config.NASBENCH201, [(0, 1)])
  with pytest.raises(UserError, match="cells of your own go with `space=own`"):
    Images(digits_folder, own=own).open(CONFIG, 1)
  with pytest.raises(UserError, match=r"give them as tasks.images.Images"):
    Images(digits_folder).open(dataclasses.replace(CONFIG, space="own"), 1)


def test_cells_of_ones_own_are_part_of_what_a_run_is(digits_folder):
  config = dataclasses.replace(CONFIG, space="own")
  found = [
    Images(digits_folder, own=edge_config.own_cells(operations, edges_))
    .open(config, 1)
    .identity
    for operations, edges_ in (
      (edge_config.NASBENCH201, [(0, 1)]),
      (edge_config.NASBENCH201[:3], [(0, 1)]),
      (edge_config.NASBENCH201, [(0, 1), (0, 2), (1, 2)]),
    )
  ]
  assert found[0] != found[1] != found[2] != found[0]


def test_two_operations_of_one_name_are_refused():
  with pytest.raises(UserError, match="2 are called 'none'"):
    edge_config.own_cells(edge_config.NASBENCH201[:1] * 2, [(0, 1)])


def test_random_searches_of_own_cells_are_shown_beside_each_other(
  digits_folder, tmp_path
):
  own = edge_config.own_cells(edge_config.NASBENCH201[1:], [(0, 1)])
  task = Images(digits_folder, own=own)
  config = dataclasses.replace(
    CONFIG,
    space="own",
    strategy="random",
    finalists=0,
    search=SearchConfig(pool_size=2, rounds=0, new_per_round=1),
    train=dataclasses.replace(CONFIG.train, epochs=1),
    final=dataclasses.replace(CONFIG.final, cells=0),
  )
  for seed in (0, 1):
    experiment.run(
      task, dataclasses.replace(config, seed=seed), workdir=tmp_path / str(seed)
    )
  page = search_page.write(
    tmp_path / "0", [tmp_path / "1"], cells_of=task.cells
  )
  assert "random search" in page.read_text().lower()


def test_settings_that_other_cells_do_not_have_are_refused(digits_folder):
  changed = settings.replace(
    CONFIG, {"constraint.limit": "latency:1", "constraint.latency_table": "x"}
  )
  with pytest.raises(UserError, match="a table is for the operations of"):
    Images(digits_folder).open(changed, 1)
  with pytest.raises(UserError, match=r"`network.stem=imagenet`: these"):
    settings.validate(settings.replace(CONFIG, {"network.stem": "imagenet"}))


def test_a_cell_is_trained_at_its_own_sizes(digits_folder):
  text = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
  config = settings.replace(
    RECIPES["digits"],
    {"space": "nasbench201", "arch": text, "network.channels": 4},
  )
  training, _ = Images(digits_folder).open_training(config, 1)
  assert training.config.arch == text
  assert training.tokens == tuple(nasbench201.parse(text).tolist())
  expected = EdgeNetworkConfig(cells_per_stage=1, channels=4, classes=10)
  assert training.trainer.network == expected


def test_a_file_of_another_space_is_refused(tmp_path):
  file = tmp_path / "best.json"
  tokens = nasbench201.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
  file.write_text(json.dumps({"space": "other", "tokens": tokens.tolist()}))
  with pytest.raises(UserError, match="is of space 'other'"):
    nasbench201.space().parse(str(file))
