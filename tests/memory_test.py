"""Memory of a training step: counted by hand, by a compiler, and refused."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax.data.augment import AugmentConfig
from nao_jax.errors import UserError
from nao_jax.networks import ops
from nao_jax.networks.macro import NetworkConfig
from nao_jax.spaces import cnn
from nao_jax.tasks import image_presets, image_recipes, text_recipes
from nao_jax.training import (
  candidate,
  language,
  memory,
  memory_check,
  recurrent,
  stand_alone,
  supernet,
)
from nao_jax.training.optimisers import SgdConfig
from nao_jax.training.recipe import TrainConfig
from tests import running

CHANNELS, SIZE, BATCH = 6, 4, 5
PIXELS = SIZE * SIZE * BATCH
MAP = CHANNELS * PIXELS
STATISTICS = 2 * CHANNELS * 4  # Mean and inverse deviation of a BatchNorm.
# Of ReLU, convolution and BatchNorm: the sign, the convolution's input and
# what BatchNorm reads; the convolution in two parts keeps what is between.
ONE_CONVOLUTION = MAP + 4 * MAP + 4 * MAP + STATISTICS
BY_HAND = {
  "identity": 0,
  "conv_1x1": ONE_CONVOLUTION,
  "conv_3x3": ONE_CONVOLUTION,
  "conv_1x3_3x1": 2 * ONE_CONVOLUTION,
  "sep_conv_3x3": 2 * (ONE_CONVOLUTION + 4 * MAP),
  "dil_sep_conv_3x3": ONE_CONVOLUTION + 4 * MAP,
}


@pytest.mark.parametrize("op", BY_HAND)
def test_what_an_operation_keeps_is_what_a_hand_counts(op):
  shape = jax.ShapeDtypeStruct((CHANNELS, SIZE, SIZE, BATCH), jnp.float32)
  weights = {
    name: jax.ShapeDtypeStruct(shape_, jnp.float32)
    for name, shape_ in ops.shapes(op, CHANNELS, 1).items()
  }

  def loss(weights, x):
    # The factor makes a map of which only the operation keeps anything.
    return jnp.sum(ops.apply(op, x * weights["own"], weights["op"], stride=1))

  params = {"op": weights, "own": jax.ShapeDtypeStruct((), jnp.float32)}
  total, largest = memory.kept(loss, params, shape)
  assert total == BY_HAND[op]
  assert largest == (4 * MAP if total else 0)


def test_what_is_known_anyway_is_not_kept():
  shape = jax.ShapeDtypeStruct((3, 4), jnp.float32)
  # x is an input, w a parameter, and 2 in many places one number.
  assert memory.kept(lambda w, x: jnp.sum(w * x), shape, shape) == (0, 0)
  assert memory.kept(lambda w: jnp.sum(w * 2), shape) == (0, 0)


def test_one_array_in_two_shapes_is_kept_once():
  def loss(w, x):
    y = jnp.sin(x)
    return jnp.sum(w[0] * y) + jnp.sum(w[1] * y.reshape(4, 3))

  w = jax.ShapeDtypeStruct((2,), jnp.float32)
  x = jax.ShapeDtypeStruct((3, 4), jnp.float32)
  assert memory.kept(loss, w, x) == (48, 48)


TINY = NetworkConfig(nodes=2, cells_per_stage=1, channels=8, auxiliary=False)
# Separable convolutions, pools and identities.
CELLS = np.array([[[0, 0, 1, 1], [2, 3, 0, 2]], [[1, 4, 1, 0], [2, 2, 2, 3]]])
SHAPE = (16, 16, 3)


def _settings(**train):
  train = {"batch": 32, "drop_path_keep": 0.8} | train
  return {
    "network": TINY,
    "train": TrainConfig(**train),
    "sgd": SgdConfig(),
    "augment": AugmentConfig(),
    "examples": 64,
  }


def _network(accumulate=1, **train):
  return stand_alone.Trainer(
    **_settings(**train),
    tokens=tuple(cnn.to_tokens(CELLS).tolist()),
    accumulate=accumulate,
  )


def _compiled(function, *arguments) -> int:
  """Temporary memory of a program, its steps in an order that saves memory."""
  options = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
  program = jax.jit(function).lower(*arguments).compile(options)
  return program.memory_analysis().temp_size_in_bytes


def test_a_compiled_step_needs_about_as_much_as_is_counted():
  trainer = _network()
  state = jax.eval_shape(functools.partial(_init, trainer), jax.random.key(0))
  images = jax.ShapeDtypeStruct((32, *SHAPE), jnp.float32)
  labels = jax.ShapeDtypeStruct((32,), jnp.int32)
  needed = memory.of_network(trainer, SHAPE)
  temporary = _compiled(
    functools.partial(stand_alone.gradients, trainer=trainer),
    state,
    jax.random.key(0),
    images,
    labels,
  )
  counted = needed.kept + needed.working + needed.gradients
  assert counted / 1.6 < temporary < 1.6 * counted


def _init(trainer, key):
  variables = trainer.model().init(key, jnp.zeros((1, *SHAPE)))
  params, stats = variables["params"], variables["batch_stats"]
  optimiser = trainer.optimiser.init(params)
  return stand_alone.TrainState(params, stats, optimiser, jnp.int32(0))


def test_parameters_and_momentum_are_counted_exactly():
  needed = memory.of_network(_network(), SHAPE, held=10)
  state = jax.eval_shape(
    functools.partial(_init, _network()), jax.random.key(0)
  )
  counters = 4  # The optimiser's number of steps.
  assert needed.state == memory.size(state._replace(step=()))
  assert needed.gradients == 2 * memory.size(state.params)
  assert memory.size(state.optimiser) == memory.size(state.params) + counters
  images, masks = 32 * 16 * 16 * 3, 5 * 4 * 32
  assert needed.data == 10 * 16 * 16 * 3 + 4 * (images + masks)
  assert needed.total == sum(needed)


def test_micro_batches_and_devices_share_what_is_kept():
  whole = memory.of_network(_network(), SHAPE)
  halves = memory.of_network(_network(accumulate=2), SHAPE)
  spread = memory.of_network(_network(), SHAPE, devices=2)
  assert halves.kept == spread.kept
  assert 0.49 < halves.kept / whole.kept < 0.52
  assert halves.data == whole.data > spread.data


def test_bfloat16_keeps_little_more_than_half():
  exact = memory.of_network(_network(), SHAPE).kept
  trainer = dataclasses.replace(_network(), bfloat16=True)
  # The signs that ReLU keeps are a byte each in either.
  assert 0.5 < memory.of_network(trainer, SHAPE).kept / exact < 0.62


def test_a_supernet_and_a_candidate_need_more_weights_than_one_network():
  alone = memory.of_network(_network(), SHAPE)
  for needed in (
    memory.of_network(candidate.Trainer(**_settings()), SHAPE),
    whole := memory.of_supernet(supernet.Trainer(**_settings()), SHAPE),
  ):
    assert needed.state > 2 * alone.state
    assert needed.kept > 0.5 * alone.kept
  rough = supernet.Trainer(**_settings(), bfloat16=True)
  assert 0.5 < memory.of_supernet(rough, SHAPE).kept / whole.kept < 0.62


def test_shared_recurrent_weights_are_held_and_one_cell_is_differentiated():
  model = recurrent.LanguageModelConfig(nodes=2, width=4, vocabulary=7)
  train = language.TextTrainConfig(batch=3)
  matrices = (2 * 4) * (2 * 4), 4 * 2 * 4
  small = 4 * (7 * 4 + 7 + matrices[0] + 2 * matrices[1])
  bank = small + 4 * 10 * matrices[1]
  one = memory.of_text(recurrent.Trainer(model, train), words=9)
  all_ = memory.of_text(recurrent.Trainer(model, train, shared=True))
  assert (one.state, one.gradients, one.data) == (small, 2 * small, 36)
  assert (all_.state, all_.gradients) == (bank, bank + small)
  assert one.kept == all_.kept > 4 * 60 * 3 * 7  # A logit for every word.


@pytest.fixture
def told(monkeypatch):
  """Has the devices say how much they may use."""

  def tell(bytes_):
    monkeypatch.setattr(memory_check, "limit", lambda device: bytes_)

  return tell


def test_the_accumulate_that_is_named_is_the_least_that_fits(told):
  needed = memory.of_network(_network(), SHAPE, held=64)
  room = needed.total // 2
  told(room)
  with pytest.raises(UserError, match=r"GiB.*give `accumulate=") as refused:
    memory_check.check_network(_network(), SHAPE, held=64, devices=1)
  named = int(str(refused.value).rsplit("=", 1)[1].rstrip("`"))
  assert named > 1

  def total(parts):
    return memory.of_network(_network(parts), SHAPE, held=64).total

  assert total(named) <= room < total(named // 2)
  memory_check.check_network(_network(named), SHAPE, held=64, devices=1)


def test_where_no_accumulate_is_enough_it_says_so(told):
  told(10_000)
  with pytest.raises(UserError, match=r"no `accumulate`.*`train.batch`"):
    memory_check.check_network(_network(), SHAPE, held=0, devices=1)


def test_a_device_is_believed_and_a_cpu_is_the_machine():
  def device(stats, platform):
    return types.SimpleNamespace(memory_stats=lambda: stats, platform=platform)

  assert memory_check.limit(device({"bytes_limit": 5}, "gpu")) == 5
  assert memory_check.limit(device(None, "tpu")) is None
  assert memory_check.limit(device({}, "gpu")) is None
  machine = memory_check.limit(jax.devices()[0])
  assert machine > 2**28
  assert memory_check.room(2) == machine // 2


def _train_cnn(folder):
  running.train_images(
    image_recipes.RECIPES["digits"],
    workdir=folder,
    data_dir=folder.parent / "data",
    devices=1,
  )


def _train_rnn(folder):
  running.train_texts(text_recipes.RECIPES["demo"], workdir=folder, devices=1)


def _search_cnn(preset, folder):
  config = image_presets.PRESETS[preset]
  running.search_images(
    config, workdir=str(folder), data_dir=folder.parent / "data", devices=1
  )


@pytest.mark.parametrize("name", ["finalist", "final"])
def test_what_trains_after_a_search_has_to_fit_before_it(name, told, tmp_path):
  config = image_presets.PRESETS["digits"]
  wide = dataclasses.replace(getattr(config, name), channels=512)
  config = dataclasses.replace(config, **{name: wide})
  told(200_000_000)
  with pytest.raises(
    UserError, match=rf"`{name}\.channels` or `{name}\.batch`"
  ):
    running.search_images(
      config, workdir=str(tmp_path / "run"), data_dir=tmp_path
    )
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "start",
  [
    _train_cnn,
    _train_rnn,
    functools.partial(_search_cnn, "digits"),
    functools.partial(_search_cnn, "digits_scratch"),
  ],
)
def test_a_run_that_does_not_fit_says_so_and_leaves_nothing(
  start, told, tmp_path
):
  told(2_000_000)
  with pytest.raises(UserError, match="each device may use"):
    start(tmp_path / "run")
  assert not (tmp_path / "run").exists()
