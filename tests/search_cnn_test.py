"""The driver in a process, at sizes that nobody would choose."""

import contextlib
import dataclasses
import json
import re
import sqlite3

import numpy as np
import pytest

from nao_jax import settings
from nao_jax.errors import UserError
from nao_jax.networks.macro import NetworkConfig
from nao_jax.runs.workdir import Workdir
from nao_jax.search.config import SearchConfig
from nao_jax.settings import flatten
from nao_jax.spaces import cnn
from nao_jax.strategies.nao import NaoConfig
from nao_jax.tasks import image_presets
from nao_jax.tasks import images as image_task
from nao_jax.training.recipe import TrainConfig
from tests import drivers, running

POOL, ROUNDS = 6, 2
FLAGS = {
  "preset": "digits",
  "seed": 3,
  "strategy": "nao",
  "nodes": 2,
  "channels": 2,
  "batch": 32,
  "epochs": 3,
  "pool_size": POOL,
  "rounds": ROUNDS,
  "new_per_round": 2,
  "top_k": 3,
  "max_step_size": 4,
  "held_out": 0.4,
  "standardize": True,
  "controller_embedding": 4,
  "controller_hidden": 8,
  "controller_mlp_layers": 1,
  "controller_epochs": 3,
  "finalists": 2,
  "finalist_epochs": 1,
  "finalist_channels": 2,
  "final_cells": 1,
  "final_epochs": 1,
  "final_repeats": 1,
  "final_channels": 2,
  "devices": 1,
}


class Driver:
  """Starts experiments.search_cnn on few data, which are prepared once."""

  def __init__(self, home, data_dir):
    self.home, self.data_dir = home, data_dir

  def run(self, workdir, **changes):
    flags = FLAGS | {"data_dir": self.data_dir} | changes
    process = drivers.fork("search_cnn", workdir, flags)
    process.output, process.errors = process.communicate()
    return process


@pytest.fixture(scope="module")
def driver(home, digits_folder):
  return Driver(home, digits_folder)


@pytest.fixture(scope="module")
def finished(driver):
  """A search that has run to its end: its process and its workdir."""
  workdir = driver.home / "run"
  process = driver.run(workdir)
  assert process.returncode == 0, process.errors
  return process, workdir


def _query(workdir, text):
  with contextlib.closing(sqlite3.connect(workdir / "pool.sqlite")) as database:
    return database.execute(text).fetchall()


def _tables(workdir):
  return (
    _query(workdir, "select * from architectures order by id"),
    _query(workdir, "select * from scores order by architecture, round"),
  )


def _json(file):
  return json.loads(file.read_text())


def test_config_json_holds_what_decided_the_run(finished):
  config = _json(finished[1] / "config.json")
  settings = config["settings"]
  assert settings["seed"] == 3
  assert settings["search.pool_size"] == POOL
  assert settings["fit.epochs"] == 3
  assert settings["controller.hidden"] == 8
  for name, value in (("dataset", "digits"), ("augment.flip", False)):
    assert settings[name] == value
  # Without those that were added later, which have their defaults.
  expected = len(flatten(image_presets.SearchCnnConfig()))
  # And --arch, and digests of the training and of the test part.
  assert len(settings) == expected + 3
  assert all(len(settings[f"data.{part}"]) == 16 for part in ("train", "test"))
  assert {"jax", "flax", "python"} <= {*config["versions"]}
  assert "git" in config


def _leaves(config_class):
  for field in dataclasses.fields(config_class):
    if dataclasses.is_dataclass(field.type):
      yield from _leaves(field.type)
    else:
      yield config_class, field.name


def test_every_member_is_scored_in_every_round_that_it_lives(finished):
  architectures, scores = _tables(finished[1])
  rounds = {row[0]: [] for row in architectures}
  for architecture, round_, score in scores:
    rounds[architecture].append(round_)
    assert 0 <= score <= 1
  for row, _, origin, _, _, alive in architectures:
    last = ROUNDS if alive else rounds[row][-1]
    assert rounds[row] == list(range(origin, last + 1))
  for round_ in range(ROUNDS + 1):
    assert sum(round_ in r for r in rounds.values()) == POOL


def test_the_database_refers_to_what_is_in_it(finished):
  assert _query(finished[1], "pragma foreign_key_check") == []
  children = _query(
    finished[1], "select id, origin, parent, step_size from architectures"
  )
  for row, origin, parent, step_size in children:
    # Where every proposal was known, random ones take their place.
    if origin == 0 or parent is None:
      assert (parent, step_size) == (None, None)
    else:
      assert parent < row
      assert step_size in (1, 2, 3, 4)


def test_there_is_a_line_of_history_for_each_round(finished):
  lines = (finished[1] / "history.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  *rows, searched, random = rows
  assert [row["round"] for row in rows] == list(range(ROUNDS + 1))
  assert searched["stage"] == "searched finalists"
  assert random["stage"] == "random finalists"
  for row in rows[:-1]:
    assert {"kendall_tau", "pairwise_accuracy", "exact_reconstruction"} <= {
      *row
    }
    assert len(row["new_by_step_size"]) == FLAGS["max_step_size"]
  for round_, row in enumerate(rows):
    (values,) = _query(
      finished[1],
      f"select max(score), avg(score) from scores where round = {round_}",
    )
    np.testing.assert_allclose((row["best"], row["mean"]), values, rtol=1e-6)


def test_the_winner_is_the_better_of_the_two_finalists(finished):
  best = _json(finished[1] / "best.json")
  rows = _query(
    finished[1],
    "select id, tokens, score, origin from architectures join scores"
    f" on id = architecture where round = {ROUNDS}"
    " order by score desc, id limit 2",
  )
  entries = best["finalists"]["searched"]
  assert [entry["place"] for entry in entries] in ([1, 2], [2, 1])
  row, tokens, score, origin = rows[entries[0]["place"] - 1]
  assert (entries[0]["row"], entries[0]["tokens"]) == (row, best["tokens"])
  assert best["tokens"] == [int(token) for token in tokens.split()]
  assert best["validation_accuracy_with_shared_weights"] == score
  assert best["origin"] == origin
  measured = [entry["validation_accuracy"] for entry in entries]
  assert measured[0] == max(measured) == entries[0]["curve"][-1]
  assert best["validation_accuracy_as_finalist"] == measured[0]
  # All of the validation part, and of the test part.
  for value, images in (
    (measured[0], 75),
    (best["test_accuracy"]["random"][0][0], 100),
  ):
    assert value * images == pytest.approx(round(value * images), abs=1e-3)
  assert {k: np.shape(v) for k, v in best["test_accuracy"].items()} == {
    "searched": (1, 1),
    "random": (1, 1),
  }


def test_the_winner_can_be_given_as_an_architecture(finished):
  file = finished[1] / "best.json"
  best = _json(file)
  space = cnn.space(2)
  for text in (str(file), best["text"], " ".join(map(str, best["tokens"]))):
    assert cnn.parse(space, text).tolist() == best["tokens"]


def test_the_run_is_drawn_and_logged(finished):
  process, workdir = finished
  assert (workdir / "best.png").read_bytes().startswith(b"\x89PNG")
  assert "<svg" in (workdir / "best.svg").read_text()
  assert (workdir / "best.pdf").read_bytes().startswith(b"%PDF")
  events = list(workdir.glob("events.out.tfevents.*"))
  assert any(event.stat().st_size > 100 for event in events)
  # Plain lines, with the time that it took.
  assert re.search(r"train supernet: (\d+) of \1, \d+ s", process.errors)
  words = ("round 0 of 2", "finalists", "1 searched", "1 random", "winner: ")
  words = (*words, "seconds: data ", "propose ", "report ")
  for word in words:
    assert word in process.output
  assert "<svg" in (finished[1] / "report.html").read_text()


def test_the_status_says_where_the_time_went(finished):
  status = _json(finished[1] / "status.json")
  assert status["state"] == "finished"
  assert status["best"].endswith(f"(round {ROUNDS})")
  phases = ("train supernet", "score pool", "fit controller", "train finalists")
  for phase in phases:
    seconds, compiled = status["seconds"][phase]
    assert 0 <= compiled < seconds
  assert status["seconds"]["train supernet"][1] > 0


def _contents(workdir):
  return {
    path: (path.read_bytes(), path.stat().st_mtime_ns)
    for path in workdir.rglob("[!.]*")
    if path.is_file()
  }


def test_a_finished_run_is_left_as_it_is(driver, finished):
  before = _contents(finished[1])
  process = driver.run(finished[1])
  assert process.returncode == 0
  assert "finished" in process.errors
  assert _contents(finished[1]) == before


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ({"preset": "digit"}, "--preset=digit: unknown; allowed: digits"),
    ({"channels": 3}, "--channels=3: "),
    ({"seed": 4}, "holds another run (seed is 3 there and 4 here)"),
  ],
)
def test_bad_input_ends_with_2_and_one_line(driver, finished, flags, message):
  before = _contents(finished[1])
  process = driver.run(finished[1], **flags)
  assert process.returncode == 2
  (line,) = [x for x in process.errors.splitlines() if "error" in x]
  assert line.startswith("error: ")
  assert message in line
  assert "Traceback" not in process.errors
  assert _contents(finished[1]) == before


def test_helpfull_describes_every_setting():
  process = drivers.run("experiments.search_cnn", "--helpfull")
  assert process.returncode == 0
  text = " ".join(process.stdout.split())
  for owner, name in _leaves(image_presets.SearchCnnConfig):
    # The data decide, and a list of sizes is no flag.
    if name in ("classes", "step_sizes"):
      continue
    # A class describes what it adds to its base.
    documents = [base.__doc__ for base in owner.__mro__[:-1]]
    words = " ".join(" end: ".join(documents).split())
    description = re.split(r" \w+: ", words.partition(f" {name}: ")[2])[0]
    # Where there are limits, they follow.
    description = description.rstrip(".")
    assert description
    assert f"{name}: {description}" in text or (
      f"no]{name}: {description}" in text
    ), name


TINY = dataclasses.replace(
  image_presets.PRESETS["digits"],
  strategy="nao",
  network=NetworkConfig(nodes=2, cells_per_stage=1, channels=2),
  train=TrainConfig(epochs=3),
  search=SearchConfig(pool_size=POOL, rounds=ROUNDS, new_per_round=2),
  nao=NaoConfig(top_k=3, max_step_size=4),
)


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("dataset", "mnist5", "not in .*digits"),
    ("strategy", "best", "allowed: nao, nao_plus"),
    ("seed", -1, "allowed: 0 to"),
    ("validation_fraction", 0.0, "no image"),
    ("network.ops", "tiny", "allowed: small, middle, large"),
    ("network.nodes", 8, "allowed: 2 to 7"),
    ("network.channels", 3, ".* even number"),
    ("network.stem", "mnist", "allowed: cifar, imagenet"),
    ("network.auxiliary", True, ".* 32x32"),
    ("network.dropout", 1.0, "allowed: from"),
    ("network.cells_per_stage", 0, "allowed: 1"),
    ("train.batch", 5000, "there are 225 training"),
    ("train.epochs", 2, ".* give a multiple of 3"),
    ("nao.top_k", 7, r".* 1 to 6 \(`search.pool_size`"),
    ("nao.max_step_size", 0, "allowed: 1"),
    ("nao.held_out", 1.0, "allowed: from 0 to"),
    ("nao.held_out", 0.99, "none of 6"),
    ("fit.batch", 0, "allowed: 1 or more"),
    ("controller.hidden", 0, "allowed: 1"),
    ("sgd.learning_rate", 0.0, "allowed:"),
    ("final.channels", 5, ".* even number"),
    ("final.cells", 7, "the pool has only 6 members"),
    ("final.cells", 6, ".* the best of `finalists=5`"),
    ("finalist.channels", 5, ".* even number"),
    ("finalist.dropout", 1.0, "allowed: from"),
    ("finalist.auxiliary", True, ".* 32x32"),
    ("search.new_per_round", 6, ".*=6`.* must"),
    ("sampling", "size", "allowed: uniform, parameter"),
    ("train_only_new", True, ".* add `search.extend=True`"),
    ("architectures_per_step", 5, ".* divisor"),
  ],
)
def test_an_impossible_search_does_not_start(
  driver, tmp_path, name, value, message
):
  workdir = tmp_path / "run"
  with pytest.raises(UserError, match=f"`{name}={value}`: {message}") as caught:
    running.search_images(
      settings.replace(TINY, {name: value}),
      workdir=workdir,
      data_dir=driver.data_dir,
      devices=1,
    )
  assert "\n" not in str(caught.value)
  assert not workdir.exists()


def test_the_preset_of_the_follow_up_starts_each_round_at_the_top():
  config = image_presets.PRESETS["cifar10_v2"]
  rates = config.sgd.by_epoch(config.train.epochs)
  rounds = config.search.rounds + 1
  each = config.train.epochs // rounds
  assert [float(rates(each * r)) for r in range(rounds)] == pytest.approx(
    [config.sgd.learning_rate] * rounds
  )
  assert float(rates(each - 1)) < 0.1 * config.sgd.learning_rate


@pytest.mark.parametrize(
  ("architectures", "message"),
  [
    (["1 3 2 4 1 4 1 4 1 4 1 4 1 4 1 4"], "token 3 at position 1 .*: 4 5 6"),
    (["1 4 9 4 1 4 1 4 1 4 1 4 1 4 1 4"], "token 9 at position 2 .*: 1 2"),
    (["1 2 3"], "3 tokens, but an architecture .* has 16"),
    (["nowhere.json"], "nowhere.json`: No such file"),
    (["0 0 0 0 1 1 0 0 | 0 0 0 0 1 1 0 0"] * 2, "two of them are equivalent"),
  ],
)
def test_an_illegal_architecture_is_named(tmp_path, architectures, message):
  with pytest.raises(UserError, match=message):
    running.search_images(
      TINY,
      workdir=tmp_path / "run",
      data_dir=tmp_path,
      architectures=architectures,
    )
  assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_refused(tmp_path):
  (tmp_path / "thesis.tex").write_text("precious")
  with pytest.raises(UserError, match="holds files but no config"):
    Workdir(tmp_path, {}, "best.json")
  assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match=r"`workdir=.*cannot be written \(Not a"):
    Workdir(tmp_path / "file" / "run", {}, "best.json")


def test_a_damaged_config_is_refused(tmp_path):
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(UserError, match=r"config.json: damaged"):
    Workdir(tmp_path, {}, "best.json")


def test_finalists_of_a_few_images_train_on_all_of_them_at_a_time(caplog):
  usual = image_presets.PRESETS["digits"]
  found = image_task._with_small_batches(usual, 24)
  assert found.finalist == dataclasses.replace(usual.finalist, batch=24)
  assert "batches are of 24" in caplog.text
  assert image_task._with_small_batches(usual, 1000) == usual
