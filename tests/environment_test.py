"""Results do not depend on a user's environment variables."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nao_jax import parallel
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import ControllerConfig
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.networks.recurrent import LanguageModelConfig
from nao_jax.objectives import CostConstraint
from nao_jax.search import loop
from nao_jax.search.config import FinalistConfig, SearchConfig
from nao_jax.spaces import nasbench201, slots
from nao_jax.strategies.evolution import Evolution
from nao_jax.strategies.nao import NaoConfig
from nao_jax.studies import comparison, controller_study
from nao_jax.tasks import image_presets, text_recipes
from nao_jax.tasks.image_recipes import TrainCnnConfig
from nao_jax.tasks.text_presets import FinalConfig, SearchRnnConfig
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.recipe import TrainConfig
from tests import running
from tests.short_networks import two_cells

CONTROLLER = ControllerConfig(embedding=4, hidden=8, mlp_layers=1, mlp_width=4)
FIT = FitConfig(epochs=2, batch=4)
NAO = NaoConfig(top_k=3, max_step_size=3, held_out=0.0)
SEARCH = SearchConfig(pool_size=6, rounds=1, new_per_round=2)
MODEL = LanguageModelConfig(nodes=2, width=4)


@pytest.fixture(scope="module", autouse=True)
def short_networks():
  with two_cells():
    yield


@pytest.fixture
def in_64_bits():
  jax.config.update("jax_enable_x64", True)
  yield
  jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits_folder):
  """Images, texts and a table."""
  path = tmp_path_factory.mktemp("folder")
  (path / "data").symlink_to(digits_folder)
  rng = np.random.default_rng(0)
  (path / "text").mkdir()
  for part in ("train", "valid", "test"):
    words = " ".join(f"w{word}" for word in rng.integers(0, 5, 60))
    (path / "text" / f"tiny.{part}.txt").write_text(f"{words}\n")
  space = nasbench201.space()
  index = np.arange(len(space.functions.of_sequence))
  ops = space.functions.tokens(index) - nasbench201.to_tokens(np.zeros(6))
  scores = (ops == 3).sum(-1) + (ops == 2).sum(-1) / 2
  scores = scores.astype(np.float32)
  np.savez(path / "table.npz", ops=ops, edges_valid=scores, edges_test=scores)
  return path


def _train_images(folder, workdir):
  config = TrainCnnConfig(
    arch="0 0 1 4 0 4 1 4 | 0 4 1 2 0 4 1 4",
    dataset="digits",
    network=NetworkConfig(cells_per_stage=1, channels=4, nodes=2, dropout=0.1),
    train=TrainConfig(epochs=1, batch=64, drop_path_keep=0.9),
  )
  return running.train_images(
    config, workdir=workdir, data_dir=folder / "data", devices=1
  )


def _search_images(folder, workdir):
  digits = image_presets.PRESETS["digits"]
  config = dataclasses.replace(
    digits,
    strategy="random",
    network=dataclasses.replace(digits.network, channels=2, nodes=2),
    train=dataclasses.replace(digits.train, epochs=2, batch=64),
    search=dataclasses.replace(SEARCH, pool_size=2, new_per_round=1),
    finalists=1,
    finalist=dataclasses.replace(digits.finalist, epochs=1, channels=2),
    final=dataclasses.replace(digits.final, cells=0),
  )
  return running.search_images(
    config, workdir=workdir, data_dir=folder / "data", devices=1
  )


def _train_text(folder, workdir):
  config = text_recipes.TrainRnnConfig(
    text=str(folder / "text"),
    arch="0 0 1 1",
    network=MODEL,
    train=TextTrainConfig(epochs=1, batch=2, bptt=5),
    eval_batch=2,
  )
  return running.train_texts(config, workdir=workdir, devices=1)


def _search_text(folder, workdir):
  config = SearchRnnConfig(
    text=str(folder / "text"),
    strategy="nao",
    network=MODEL,
    train=TextTrainConfig(epochs=2, batch=2, bptt=5),
    search=SEARCH,
    nao=NAO,
    controller=CONTROLLER,
    fit=FIT,
    finalists=1,
    finalist=FinalistConfig(epochs=1),
    final=FinalConfig(cells=0),
  )
  return running.search_texts(config, workdir=workdir, devices=1)


def _study(folder, workdir):
  config = controller_study.StudyConfig(
    table=str(folder / "table.npz"),
    dataset="edges",
    members=20,
    measured=20,
    best=4,
    controller=CONTROLLER,
    fit=FIT,
    nao=NAO,
  )
  return controller_study.run(config)


def _compare(folder, workdir):
  config = comparison.CompareConfig(
    table=str(folder / "table.npz"), dataset="edges", trials=2, budget=12
  )
  found = comparison.run(config, ["evolution"], threads=2)
  curves = found["evolution"]
  return {"signal": curves.signal.tolist(), "report": curves.report.tolist()}


@pytest.mark.parametrize(
  "run",
  [_train_images, _search_images, _train_text, _search_text, _study, _compare],
)
def test_64_bits_of_another_project_change_no_result(
  run, folder, tmp_path, request
):
  expected = run(folder, tmp_path / "expected")
  request.getfixturevalue("in_64_bits")
  assert _told(run(folder, tmp_path / "found")) == _told(expected)


def _told(result):
  """All of it but the seconds."""
  result = {k: v for k, v in result.items() if "seconds" not in k}
  return json.dumps(result, sort_keys=True)


def test_a_function_of_the_user_keeps_its_64_bits(in_64_bits):
  space = slots.space("own", {f"slot {at}": (1, 2, 3, 4) for at in range(4)})
  seen = []

  def scores(tokens):
    found = jnp.asarray(np.float64(tokens)).sum(-1)
    seen.append(found.dtype)
    return found

  def costs(tokens):
    return scores(tokens) + 1

  pool = loop.run(
    space,
    scores,
    jax.random.key(0),
    SearchConfig(pool_size=4, rounds=1, new_per_round=2),
    strategy=Evolution(space),
    constraint=CostConstraint(cost=costs, name="sum", limit=100.0),
  )
  assert set(seen) == {jnp.dtype("float64")}
  assert pool.scores.dtype == np.float32
  assert jnp.ones(1).dtype == jnp.float64


def test_a_device_that_jax_does_not_find_is_asked_for_by_name(monkeypatch):
  def none():
    # As jax has it where the plugin for a GPU is not installed.
    raise AssertionError

  monkeypatch.setattr(jax, "local_devices", none)
  with pytest.raises(UserError, match=r"JAX_PLATFORMS=.* unset it"):
    parallel.check(1)
