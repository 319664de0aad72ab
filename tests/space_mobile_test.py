"""Searches for chains of mobile blocks, and their final trainings."""

import dataclasses
import json

from absl import flags
import jax
import numpy as np
import pytest

from experiments import settings as flag_settings
from nao_jax import experiment, final_training, settings
from nao_jax.errors import UserError
from nao_jax.networks.mobile_config import MobileConfig
from nao_jax.search.config import SearchConfig
from nao_jax.spaces import mobile, nasbench201
from nao_jax.tasks import image_drawing, image_inference
from nao_jax.tasks.image_presets import PRESETS
from nao_jax.tasks.image_recipes import RECIPES
from nao_jax.tasks.images import Images
from nao_jax.tasks.task import RunOptions
from tests import driver_flags

SIZES = MobileConfig(
  stem_width=4,
  stem_stride=1,
  first_width=4,
  places=(2, 2),
  widths=(4, 6),
  strides=(1, 2),
  last_width=6,
  kernels=(3, 5),
  expansions=(2, 1),
)
CHAIN = "1 2 2 3"
CONFIG = dataclasses.replace(
  settings.replace(
    PRESETS["digits"],
    {
      "space": "mobile",
      "mobile": SIZES,
      "strategy": "random",
      "network.dropout": 0.1,
      "train.epochs": 2,
      "finalists": 1,
      "finalist.epochs": 1,
      "final.cells": 0,
      "constraint.limit": "params:5000",
    },
  ),
  search=SearchConfig(pool_size=6, rounds=1, new_per_round=2),
)
TRAINING = settings.replace(
  RECIPES["digits"],
  {
    "arch": CHAIN,
    "space": "mobile",
    "mobile": dataclasses.replace(SIZES, epsilon=1e-3),
    "network.dropout": 0.1,
    "train.epochs": 1,
    "sgd.decay_batch_norm": False,
  },
)


@pytest.fixture(scope="module")
def finished(digits_folder, tmp_path_factory):
  path = tmp_path_factory.mktemp("mobile") / "run"
  return path, experiment.run(
    Images(digits_folder), CONFIG, workdir=path, options=RunOptions(devices=1)
  )


def test_the_winner_is_a_chain_of_the_space(finished):
  path, best = finished
  assert json.loads((path / "best.json").read_text()) == best
  space = mobile.space(SIZES.places, SIZES.blocks)
  assert best["space"] == space.name
  assert space.parse(str(path / "best.json")).tolist() == best["tokens"]
  assert space.parse(best["text"]).tolist() == best["tokens"]


def test_it_is_drawn_and_reported(finished):
  path, best = finished
  assert (path / "best.png").stat().st_size > 1000
  page = (path / "report.html").read_text()
  assert best["text"] in page
  assert "% of places" in page
  assert "The chain of blocks." in page
  assert "MB2 3x3" in page


def test_the_limit_on_parameters_is_kept(finished):
  assert all(row["cost"] == "params" for row in _history(finished[0]))


def _history(path):
  rows = (path / "history.jsonl").read_text().splitlines()
  return [row for row in map(json.loads, rows) if "stage" not in row]


@pytest.fixture(scope="module")
def scored(digits_folder):
  """{number of devices: (the evaluator, its scores, states on the way)}."""
  task = Images(digits_folder).open(CONFIG, 1)
  tokens = np.array([[1, 1, 1, 1], [2, 3, 2, 3], [1, 2, 2, 2], [2, 2, 1, 3]])
  found = {}
  for devices in (1, 2):
    evaluator, states = dataclasses.replace(task.shared(), devices=devices), []

    def score(state, evaluator=evaluator, states=states):
      key = jax.random.key(2)

      def keep(state, _):
        states.append(jax.device_get(state))

      quiet = lambda *_: None  # noqa: E731
      return evaluator.score(state, key, tokens, 0, quiet, keep)[1]

    scores = score(evaluator.init(jax.random.key(1)))
    found[devices] = evaluator, scores, [*states], score
  return found


def test_training_on_two_devices_is_that_on_one(scored):
  np.testing.assert_allclose(scored[2][1], scored[1][1], atol=0.02)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_resumed_round_gives_the_same_bits(scored, devices):
  evaluator, scores, states, score = scored[devices]
  assert len(states) > 1
  np.testing.assert_array_equal(score(evaluator.replicate(states[0])), scores)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"network.channels": 4}, r"`network.channels=4`: acts only with `space="),
    ({"network.nodes": 4}, r"`network.nodes=4`: acts only with `space=nao`"),
    ({"train.drop_path_keep": 0.5}, r"`train.drop_path_keep=0.5`: acts only"),
    ({"mobile.places": (2, 2, 1)}, r"`mobile.widths=\(4, 6\)`: 2 numbers"),
  ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    settings.validate(settings.replace(CONFIG, changes), CONFIG)


def test_sizes_of_chains_need_their_space():
  changed = settings.replace(PRESETS["digits"], {"mobile.stem_width": 8})
  with pytest.raises(UserError, match=r"`mobile.stem_width=8`: acts only with"):
    settings.validate(changed, PRESETS["digits"])


def test_settings_of_a_preset_that_do_nothing_are_said(digits_folder, caplog):
  config = settings.replace(CONFIG, {"train.drop_path_keep": 0.5})
  Images(digits_folder).open(config, 1)
  assert "`train.drop_path_keep=0.5` does nothing with" in caplog.text


def test_images_that_the_strides_reduce_to_nothing_are_refused(digits_folder):
  config = settings.replace(CONFIG, {"mobile.strides": (4, 4)})
  with pytest.raises(UserError, match=r"digits.*8 pixels wide, .* 16-fold"):
    Images(digits_folder).open(config, 1)


@pytest.mark.parametrize(
  ("arch", "message"),
  [
    ("3 2 2 3", "`arch`: token 3 at place 1 of 4, which begins stage 1, is"),
    ("1 2 3 3", "`arch`: token 3 at place 3 of 4, which begins stage 2, is"),
    ("1 2 2", "`arch`: 3 tokens, but an architecture .* has 4"),
    ("NAONet-A", "`arch=NAONet-A`: give the 4 tokens"),
  ],
)
def test_chains_of_no_sense_are_refused_before_a_training(
  digits_folder, arch, message
):
  config = dataclasses.replace(TRAINING, arch=arch)
  with pytest.raises(UserError, match=message):
    Images(digits_folder).open_training(config, 1)


def test_a_file_of_another_space_is_refused(digits_folder, tmp_path):
  file = tmp_path / "best.json"
  tokens = nasbench201.space().sample(jax.random.key(0), 1)[0].tolist()
  file.write_text(json.dumps({"space": "nasbench201", "tokens": tokens}))
  config = dataclasses.replace(TRAINING, arch=str(file))
  with pytest.raises(UserError, match="is of space 'nasbench201', but this is"):
    Images(digits_folder).open_training(config, 1)


@pytest.fixture(scope="module")
def trained(digits_folder, tmp_path_factory):
  path = tmp_path_factory.mktemp("trained") / "run"
  return path, final_training.run(Images(digits_folder), TRAINING, workdir=path)


def test_a_chain_is_trained_and_measured_again(digits_folder, trained):
  path, result = trained
  assert result["text"] == CHAIN
  assert result["space"] == mobile.space(SIZES.places, SIZES.blocks).name
  found = image_inference.evaluate(path, data_dir=digits_folder)
  assert found == result["test"]


def test_the_published_final_training_is_that_of_the_paper():
  recipe = RECIPES["seminasnet_imagenet"]
  assert recipe.train.epochs == 300
  assert recipe.train.label_smoothing == 0.1
  assert recipe.network.dropout == 0.3
  assert recipe.mobile.epsilon == 1e-3
  # .05 for each 256 images.
  assert recipe.sgd.learning_rate == pytest.approx(
    0.05 * recipe.train.batch / 256
  )
  assert (recipe.sgd.momentum, recipe.sgd.nesterov) == (0.9, True)
  assert (recipe.sgd.weight_decay, recipe.sgd.decay_batch_norm) == (4e-5, False)


def test_every_size_changes_what_the_network_costs():
  config = dataclasses.replace(SIZES, epsilon=1e-3)
  task = Images("")

  def costs(sizes):
    cells = task.cells(
      settings.flatten(dataclasses.replace(CONFIG, mobile=sizes))
    )
    found = cells.space.parse(CHAIN)
    return cells.costs(found, {"image": [8, 8, 1]})

  expected = costs(config)
  for name, value in (
    ("stem_width", 5),
    ("stem_stride", 2),
    ("first_width", 5),
    ("widths", (4, 7)),
    ("strides", (2, 2)),
    ("last_width", 7),
    ("kernels", (5, 7)),
    ("expansions", (3, 1)),
  ):
    assert costs(dataclasses.replace(config, **{name: value})) != expected, name


def test_a_drawing_has_a_box_for_each_block():
  network = Images("").cells(settings.flatten(CONFIG)).network
  (figure,) = image_drawing.figures(network, np.int32([1, 2, 2, 3])).values()
  texts = [text.get_text() for text in figure.axes[0].texts]
  names = [text for text in texts if text.startswith(("MB", "conv"))]
  assert names == [
    *("conv 3x3", "MB1 3x3", "MB2 3x3", "MB1 5x5", "MB1 5x5", "conv 1x1")
  ]
  assert "6 channels, stride 2" in texts


def test_numbers_of_a_flag_are_read():
  with driver_flags.loaded("search_cnn"):
    flags.FLAGS["mobile_widths"].parse("8,16,32")
    flags.FLAGS["mobile_epsilon"].parse("1e-3")
    config = flag_settings.choose(
      PRESETS, "mobile_cifar10", flag_settings.SEARCH_PREFIXES
    )
    with pytest.raises(flags.IllegalFlagValueError, match="with commas"):
      flags.FLAGS["mobile_widths"].parse("8,x")
  with driver_flags.loaded("train_cnn"):
    assert "mobile_widths" in flags.FLAGS
  assert config.mobile.widths == (8, 16, 32)
  assert config.mobile.epsilon == 1e-3
