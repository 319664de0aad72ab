"""Files of every released version are read, or refused by its name.

`earlier/VERSION.zip` has what each version left: a search and its stopped
copy, two trainings and a stopped copy, an exported network. Their networks are
of two cells (`short_networks`), and pictures and reports are left out.
"""

import contextlib
import json
import pathlib
import sqlite3
import zipfile

import jax
import numpy as np
import pytest

import nao_jax
from nao_jax.errors import UserError
from nao_jax.report import search_page, watching
from nao_jax.runs import config_file
from nao_jax.runs.trials import Trials
from nao_jax.settings import flatten, unflatten
from nao_jax.spaces import rnn
from nao_jax.tasks import image_inference
from nao_jax.tasks.text_recipes import TrainRnnConfig
from nao_jax.tasks.training import restore
from tests import short_networks

ARCHIVES = sorted((pathlib.Path(__file__).parent / "earlier").glob("*.zip"))


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.stem)
def left(request, tmp_path_factory):
  """A version, and the folder that it left."""
  folder = tmp_path_factory.mktemp("earlier")
  with zipfile.ZipFile(request.param) as archive:
    archive.extractall(folder)
  for config in folder.glob("*/config.json"):
    # The folder in which the version ran.
    text = config.read_text().replace("/earlier", str(folder))
    config.write_text(text)
  return request.param.stem, folder


def test_there_is_an_archive_of_every_release():
  log = pathlib.Path(__file__).parents[1] / "CHANGELOG.md"
  lines = log.read_text(encoding="utf-8").splitlines()
  released = {line[4:].split("]")[0] for line in lines if line[:4] == "## ["}
  released -= {"Unreleased"}
  assert {path.stem for path in ARCHIVES} == released


def test_a_finished_search_is_reported_and_its_winner_read(left):
  version, folder = left
  for name in ("search_rnn_scratch", "search_rnn_scratch_stopped"):
    assert search_page.write(folder / name).exists()
    watching.render(watching.snapshot(folder / name))
    config = json.loads((folder / name / "config.json").read_text())
    assert config["versions"]["nao_jax"] == version
  best = folder / "search_rnn_scratch" / "best.json"
  tokens = rnn.resolve(str(best))
  assert tokens.tolist() == json.loads(best.read_text())["tokens"]


def test_trials_are_read(left):
  _, folder = left
  file = folder / "search_rnn_scratch" / "trials.sqlite"
  with contextlib.closing(sqlite3.connect(file)) as database:
    rows = database.execute(
      "select space, protocol, architecture, score from trials"
    ).fetchall()
  assert rows
  for space, protocol, architecture, score in rows:
    trials = Trials(file, space, {})
    trials._key = space, protocol
    assert trials.get(list(map(int, architecture.split()))).score == score


def test_a_stopped_training_of_a_recurrent_cell_resumes(left):
  _, folder = left
  workdir = folder / "train_rnn_stopped"
  saved = config_file.read_settings(workdir)
  config = unflatten(TrainRnnConfig, saved, "config.")
  training, _ = nao_jax.Texts().open_training(config, 1)
  config_file.write_or_compare(workdir, flatten(training))
  state = restore(training, workdir / "checkpoints")
  assert 0 < training.done(state) < training.total


def test_a_search_of_other_settings_is_refused_with_its_version(left):
  version, folder = left
  workdir = folder / "search_rnn_scratch_stopped"
  settings = config_file.read_settings(workdir) | {"new_setting": 1}
  with pytest.raises(UserError, match=f"nao_jax {version}.*lacks new_setting"):
    config_file.write_or_compare(workdir, settings)


def test_a_trained_network_is_loaded(left):
  _, folder = left
  with short_networks.two_cells():
    training, state = image_inference.load(folder / "train_cnn")
  assert int(state.step) == training.trainer.steps


def test_an_exported_network_runs(left):
  _, folder = left
  exported = jax.export.deserialize(
    bytearray((folder / "network.jax").read_bytes())
  )
  logits = exported.call(np.zeros((2, 8, 8, 1), np.uint8))
  assert np.isfinite(np.asarray(logits)).all()
  assert logits.shape == (2, 10)
