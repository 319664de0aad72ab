"""Settings that nobody should give are taken, or refused by their name."""

import dataclasses
import json

from hypothesis import event, given
from hypothesis import strategies as st
import numpy as np
import pytest

from nao_jax import parallel, settings
from nao_jax.data import prepare, sources
from nao_jax.networks.cost import cost
from nao_jax.networks.macro import NetworkConfig
from nao_jax.search.config import SearchConfig
from nao_jax.strategies.nao import NaoConfig
from nao_jax.studies import comparison, controller_study, curves
from nao_jax.studies.comparison import CompareConfig
from nao_jax.studies.controller_study import StudyConfig
from nao_jax.tasks.image_config import SearchCnnConfig
from nao_jax.tasks.image_finals import ImageFinalConfig, ImageFinalistConfig
from nao_jax.tasks.text_presets import SearchRnnConfig
from nao_jax.tasks.text_recipes import TrainRnnConfig
from nao_jax.training.language import TextTrainConfig
from nao_jax.training.recipe import TrainConfig
from tests import drivers, running, tiny_images
from tests.bad_input import (
  CELLS_PAIR,
  CONFIG,
  FLOATS,
  INTEGERS,
  LIKE_A_TABLE,
  TRAINING,
  WHOLE_TEXT,
  WORDS,
  Evil,
  contents_of,
  damaged_json,
  fresh,
  packed,
  refusals,
  run_with,
  write_table,
)


@pytest.fixture(scope="module")
def table(home):
  return write_table(home)


@pytest.fixture(scope="module")
def compared(home, table):
  """The settings of a comparison, and the file that it wrote."""
  config = CompareConfig(
    table=table, dataset="shapes", report="valid", budget=10, trials=2
  )
  file = fresh(home) / "compared.json"
  comparison.run(config, ["random"], file=file, threads=1)
  return config, json.loads(file.read_text())


@given(data=st.data())
def test_a_comparison_is_gone_on_with_or_refused(home, compared, data):
  config, document = compared
  folder = fresh(home)
  file = folder / "compared.json"
  file.write_bytes(data.draw(damaged_json(document)))
  with refusals(folder, f"`file={file}`"):
    found = comparison.run(config, ["random"], file=file, threads=1)
    curves.show(found, "valid", "test")


def test_a_file_that_cannot_be_written_is_refused_at_once(home, compared):
  folder = fresh(home)
  (folder / "file").touch()
  for path in ("", "file/x.json", "a" * 300):
    with refusals(folder, "`file=") as messages:
      comparison.run(compared[0], ["random"], file=folder / path)
    assert messages


# What the data decide, and what has no flag.
_NO_FLAGS = {"classes", "vocabulary", "step_sizes"}
# What the architecture decides too, and what has as many words as the text.
_UNUSED = {"nodes", "vocab_size"}
_KINDS = {
  bool: st.booleans(),
  int: INTEGERS,
  float: FLOATS,
  str: WORDS,
  tuple: st.lists(INTEGERS, max_size=4).map(tuple),
}


def _settings(config):
  """Draws the name of a setting, and a value of its type."""
  names = [x for x in settings.names(config) if _own(x) not in _NO_FLAGS]
  return st.sampled_from(names).flatmap(
    lambda name: st.tuples(
      st.just(name), _KINDS[type(settings.get(config, name))]
    )
  )


def _own(name: str) -> str:
  """The last part of a setting's dotted name."""
  return name.rpartition(".")[2]


SMALL = NetworkConfig(nodes=2, cells_per_stage=1, channels=2)
SEARCH_CNN = SearchCnnConfig(
  dataset="tiny",
  validation_fraction=0.25,
  strategy="nao",
  network=SMALL,
  train=TrainConfig(epochs=2, batch=4),
  search=SearchConfig(pool_size=6, rounds=1, new_per_round=2),
  nao=NaoConfig(top_k=3, max_step_size=4),
  finalists=1,
  finalist=ImageFinalistConfig(
    channels=2, cells_per_stage=1, batch=4, auxiliary=False
  ),
  final=ImageFinalConfig(cells=1, channels=2, cells_per_stage=1, batch=4),
)
TRAIN_CNN = dataclasses.replace(TRAINING.config, dataset="tiny")
LANGUAGE = TextTrainConfig(epochs=2, batch=1)


@pytest.fixture(scope="module")
def place(home):
  """A folder with data, a text, and a workdir that holds something else."""
  folder = fresh(home)
  pixels = np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8)
  labels = np.arange(20) % 3
  file = tiny_images.save_npz(
    folder / "tiny.npz",
    {f"{split}_images": pixels for split in ("train", "test")}
    | {f"{split}_labels": labels for split in ("train", "test")},
  )
  prepare.prepare(sources.from_npz(file), name="tiny", data_dir=folder / "data")
  (folder / "text").mkdir()
  for name in WHOLE_TEXT:
    (folder / "text" / name).write_bytes(b"a b c d e f g\n" * 20)
  (folder / "foreign").mkdir()
  (folder / "foreign" / "thesis.tex").write_text("precious")
  return folder


def _entries(place):
  """{name: (settings, what is called with them)}; none can begin to run."""
  foreign, data = place / "foreign", place / "data"
  written = str(place / "text")
  nao = SEARCH_CNN.nao
  return {
    "search_cnn": (
      SEARCH_CNN,
      lambda c: running.search_images(
        c, workdir=foreign, data_dir=data, devices=1
      ),
    ),
    "train_cnn": (
      TRAIN_CNN,
      lambda c: running.train_images(
        c, workdir=foreign, data_dir=data, devices=1
      ),
    ),
    "search_rnn": (
      SearchRnnConfig(
        text=written,
        strategy="nao",
        finalists=3,
        train=LANGUAGE,
        search=SEARCH_CNN.search,
        nao=nao,
      ),
      lambda c: running.search_texts(c, workdir=foreign, devices=1),
    ),
    "train_rnn": (
      TrainRnnConfig(text=written, train=LANGUAGE, eval_batch=2),
      lambda c: running.train_texts(c, workdir=foreign, devices=1),
    ),
  }


@pytest.mark.parametrize(
  "driver", ["search_cnn", "train_cnn", "search_rnn", "train_rnn"]
)
@given(data=st.data())
def test_a_setting_of_a_run_is_taken_or_refused_by_its_flag(
  place, driver, data
):
  config, run = _entries(place)[driver]
  name, value = data.draw(_settings(config))
  # The last word of every entry is that the workdir is something else's.
  with refusals(place / "foreign", _own(name), "holds files but") as messages:
    run(settings.replace(config, {name: value}))
  taken = "holds files but" in messages[0]
  event("taken" if taken else "refused")
  # JAX would take another number in the place of what has more bits.
  if taken and type(value) is int and _own(name) not in _UNUSED:
    assert 0 <= value < 2**32


@given(data=st.data(), names=st.just(["random"]) | st.lists(WORDS, max_size=3))
def test_a_setting_of_a_comparison_is_taken_or_refused(
  home, compared, data, names
):
  config, _ = compared
  name, value = data.draw(_settings(config))
  with refusals(fresh(home), _own(name), "`strategies="):
    comparison.check(settings.replace(config, {name: value}), names)


@given(data=st.data())
def test_a_setting_of_a_study_is_taken_or_refused_by_its_flag(
  home, table, data
):
  config = StudyConfig(table=table, dataset="shapes", members=9, measured=9)
  name, value = data.draw(_settings(config))
  with refusals(fresh(home), _own(name)):
    controller_study.check(settings.replace(config, {name: value}))


@given(data=st.data(), size=INTEGERS)
def test_a_network_is_described_or_refused_by_its_flag(home, data, size):
  name, value = data.draw(_settings(SMALL))
  tokens = np.int32(CELLS_PAIR["tokens"])
  named = (_own(name), "images are", "`auxiliary=")
  with refusals(fresh(home), *named):
    network = settings.replace(SMALL, {name: value})
    network.check(size)
    network = dataclasses.replace(network, ops="small", nodes=2)
    assert cost(network, tokens, size, 3).parameters > 0


@given(devices=INTEGERS)
def test_numbers_of_devices_are_taken_or_refused(home, devices):
  with refusals(fresh(home), f"`devices={devices}`"):
    parallel.check(devices)


@pytest.mark.parametrize(
  ("driver", "flags", "says"),
  [
    ("describe", ["--arch={0}/deep.json"], "deep.json: not a JSON object"),
    (
      "search_rnn",
      ["--workdir={0}/run", "--checkpoint_minutes=nan"],
      "--checkpoint_minutes=nan: allowed: 0 or more",
    ),
    (
      "compare_strategies",
      ["--table={0}/evil.npz", "--json={0}/new/a.json"],
      "evil.npz: not a NumPy archive",
    ),
    ("evaluate_cnn", ["--workdir={0}"], "config.json is damaged: `arch="),
  ],
)
def test_a_driver_ends_with_2_and_a_line_and_leaves_nothing(
  home, driver, flags, says
):
  saved = CONFIG["settings"] | {"config.arch": "1 2 \x1b[31m\n3"}
  content = json.dumps(CONFIG | {"settings": saved}).encode()
  folder = run_with(home, **{"config.json": content})
  (folder / "deep.json").write_text("[" * 100_000)
  evil = np.array([Evil(folder / "made")], object)
  (folder / "evil.npz").write_bytes(packed(LIKE_A_TABLE | {"ops": evil}))
  before = contents_of(folder)
  given = [flag.format(folder) for flag in flags]
  result = drivers.run(f"experiments.{driver}", *given)
  *_, last = result.stderr.splitlines()
  assert result.returncode == 2, result.stderr
  assert last.startswith("error: ")
  assert says in last
  assert "Traceback" not in result.stderr
  assert result.stdout == ""
  assert contents_of(folder) == before
