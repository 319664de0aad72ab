"""Flags that are no settings reach what a driver calls, or are refused.

Drivers are thin: what they call is replaced by a recorder here. Settings, which
come as one dataclass, are the matter of acting_test.py.
"""

from absl import flags, logging
import pytest

from experiments import settings as driver_settings
from nao_jax import experiment, final_training
from nao_jax.data import nats_bench, prepare, sources
from nao_jax.distributed import processes
from nao_jax.errors import UserError
from nao_jax.report import comparison_page, search_page, serving, watching
from nao_jax.studies import comparison, controller_study
from nao_jax.tasks import image_inference, image_presets
from tests import driver_flags

CELLS = "0 0 1 4 2 2 0 4 | 0 4 1 2 2 3 1 4"
# Of every driver that trains: a flag, and another value of it.
_RUN = {
  "workdir": "other",
  "devices": 2,
  "checkpoint_minutes": 3.0,
  "checkpoint_steps": 7,
  "log": "plain",
  "track": "csv:metrics.csv",
  "coordinator": "host:9",
  "num_processes": 2,
  "process_id": 1,
  "coordinator_seconds": 5.0,
  "distributed": True,
}
_TRIAL = {
  "trial_workers": 2,
  "trial_cpus": 2.0,
  "trial_gpus": 0.5,
  "trial_memory": 1.0,
  "ray_address": "host:8",
}
_SEARCH = (
  _RUN | {"arch": CELLS, "trials": "t.sqlite", "executor": "ray"} | _TRIAL
)
# {driver: (what it calls, flags that are always given, others)}
DRIVERS = {
  "search_cnn": (
    [(experiment, "run")],
    {"workdir": "w"},
    _SEARCH | {"preset": "digits", "data_dir": "d", "final_specialise": True},
  ),
  "search_rnn": (
    [(experiment, "run")],
    {"workdir": "w"},
    _SEARCH | {"preset": "demo"},
  ),
  "train_cnn": (
    [(final_training, "run")],
    {"workdir": "w"},
    _RUN | {"preset": "digits", "data_dir": "d"},
  ),
  "train_rnn": (
    [(final_training, "run")],
    {"workdir": "w"},
    _RUN | {"preset": "demo"},
  ),
  "train_controller": (
    [(controller_study, "run"), (controller_study, "check")],
    {},
    {"json": "x"},
  ),
  "compare_strategies": (
    [(comparison, "run")],
    {},
    {"strategies": "random", "json": "x", "threads": 3},
  ),
  "report": (
    [(search_page, "write"), (comparison_page, "write")],
    {"workdir": "w"},
    {
      **{"workdir": "v", "random": "a,b", "compare": "a,b", "output": "o"},
      **{"table": "t.npz", "column": "made:true"},
    },
  ),
  "evaluate_cnn": (
    [(image_inference, "evaluate"), (image_inference, "export")],
    {"workdir": "w"},
    {
      "workdir": "v",
      "data_dir": "d",
      "dataset": "x",
      "split": "y",
      "devices": 2,
      "export": "z",
    },
  ),
  "watch": (
    [(watching, "snapshot"), (serving, "Site")],
    {"workdir": "w"},
    {"workdir": "v", "serve": True, "port": 8},
  ),
  "prepare_images": (
    [(prepare, "prepare")],
    {"npz": "a", "name": "n", "data_dir": "d"},
    {
      "npz": "b",
      "name": "m",
      "data_dir": "e",
      "folder": "f",
      "csv": "c",
      "arrow": "a",
      "test_fraction": 0.5,
      "split_seed": 3,
      "size": 8,
      "keep_sizes": True,
    },
  ),
  "prepare_table": (
    [(nats_bench, "read")],
    {"nats_bench": "a", "output": "o.npz"},
    {
      "nats_bench": "b",
      "output": "/proc/o.npz",
      "nasbench101": "t.tfrecord",
      "table": "t.csv",
    },
  ),
}
# Their output is looked at in describe_test.py, and in watch_test.py.
_SHOWN_ELSEWHERE = {"once", "seconds"}


class _Called(Exception):
  """The calls of a driver, with their arguments."""


@pytest.fixture
def consequence(monkeypatch, tmp_path):
  """A function that says what comes of a driver's flags."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(processes, "meet", _recorded("meet"))
  monkeypatch.setattr(sources, "from_npz", lambda file: f"archive {file}")
  monkeypatch.setattr(
    sources, "from_folder", lambda folder, size: f"folder {folder} {size}"
  )

  said = []
  monkeypatch.setattr(logging, "warning", lambda *line: said.append(line))

  def says(driver, given):
    with driver_flags.loaded(driver) as module:
      line = [f"--{name}={value}" for name, value in given.items()]
      flags.FLAGS(["driver", *line])
      said.clear()
      try:
        module.main([])
      except (_Called, UserError) as error:
        return f"{said} {error!r}"
    raise AssertionError("nothing was called")

  return says


def _recorded(name):
  def call(*arguments, **named):
    named = {k: v for k, v in named.items() if not callable(v)}
    raise _Called(f"{name} {arguments} {named}")

  return call


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_flag_reaches_what_is_called_or_is_refused(
  driver, consequence, monkeypatch
):
  calls, always, others = DRIVERS[driver]
  for module, name in calls:
    monkeypatch.setattr(module, name, _recorded(name))
  before = consequence(driver, always)
  for name, value in others.items():
    if name == "split_seed":
      continue  # It divides: data_listed_test.py.
    assert consequence(driver, always | {name: value}) != before, name
    if name in _TRIAL:
      ray = always | {"executor": "ray"}
      expected = consequence(driver, ray)
      assert consequence(driver, ray | {name: value}) != expected, name


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_flag_of_a_driver_is_forgotten(driver):
  known = {*DRIVERS[driver][1], *DRIVERS[driver][2], *_SHOWN_ELSEWHERE}
  with driver_flags.loaded(driver):
    own = {
      flag.name
      for module, group in flags.FLAGS.flags_by_module_dict().items()
      if module.startswith("experiments.")
      for flag in group
    }
    settings = {
      name for name in own if "(default: the preset's" in flags.FLAGS[name].help
    }
  old = {name for name in own if name in driver_settings.RENAMED}
  assert own - settings - old == known & own


@pytest.mark.parametrize("old", driver_settings.RENAMED)
def test_flags_of_earlier_names_still_act_and_say_so(old, caplog):
  new = driver_settings.RENAMED[old]
  with driver_flags.loaded("search_cnn"):
    value = {"encoding": "triples", "max_pending": "0.25"}[new]
    more = ["--ops=large", "--asynchronous", "--evaluator=scratch"]
    flags.FLAGS(["search_cnn", "--workdir=w", f"--{old}={value}", *more])
    config = driver_settings.choose(
      image_presets.PRESETS, "digits", driver_settings.SEARCH_PREFIXES
    )
  found = {config.encoding, str(config.search.max_pending)}
  assert value in found
  assert f"--{old} is now called --{new}" in caplog.text


# Each changes what is printed.
_DESCRIBED = {
  "arch": CELLS.replace("4", "3"),
  "ops": "middle",
  "channels": 4,
  "cells_per_stage": 2,
  "classes": 7,
  "stem": "imagenet",
  "auxiliary": False,
  "image_size": 64,
  "image_channels": 1,
  "json": False,
  "output": "drawn/",
  "recurrent": True,
  "nodes": 3,
}


def _printed(given, capsys):
  with driver_flags.loaded("describe") as module:
    flags.FLAGS(["driver", *(f"--{k}={v}" for k, v in given.items())])
    try:
      module.main([])
    except UserError as error:
      return str(error)
  return capsys.readouterr().out


def test_every_flag_of_describe_changes_what_it_prints(
  capsys, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "cells.json").write_text('{"tokens": [1, 1, 1, 2]}')
  small = {"arch": CELLS, "channels": 2, "cells_per_stage": 1, "json": True}
  before = _printed(small, capsys)
  for name, value in _DESCRIBED.items():
    given = small | {name: value}
    expected = before
    if name == "nodes":  # A file does not say how many there are.
      given["arch"] = "cells.json"
      expected = _printed(small | {"arch": "cells.json"}, capsys)
    assert _printed(given, capsys) != expected, name
  recurrent = {"arch": "0 1 1 2", "recurrent": True, "json": True}
  before = _printed(recurrent, capsys)
  for name in ("width", "vocabulary"):
    assert _printed(recurrent | {name: 3}, capsys) != before, name


@pytest.mark.parametrize(
  ("driver", "given", "named"),
  [
    ("prepare_images", {"folder": "f", "split_seed": 3}, "--test_fraction"),
    ("prepare_images", {"csv": "c", "size": 0}, "1 or more pixels"),
    ("watch", {"workdir": "w", "serve": True, "once": True}, "with --serve"),
    ("watch", {"workdir": "w", "serve": True, "seconds": 2}, "with --serve"),
    ("report", {"workdir": "w", "column": "made:true"}, "needs --table"),
  ],
)
def test_flags_that_would_do_nothing_are_refused(
  driver, given, named, consequence
):
  if driver == "prepare_images":
    given = given | {"name": "n", "data_dir": "d"}
  found = consequence(driver, given)
  assert "UserError" in found
  assert named in found
