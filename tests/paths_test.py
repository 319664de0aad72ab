"""A `~` is the user's home wherever a path is given, and nowhere a folder."""

import pathlib
import re

import numpy as np
import pytest

from nao_jax.data import images, nasbench101, nats_bench, sources, tables, text
from nao_jax.drawing import canvas, recurrent
from nao_jax.errors import UserError
from nao_jax.report import comparison_page, search_page, watching
from nao_jax.runs import checkpoint, config_file, files, paths, workdir
from nao_jax.runs.trials import Trials
from nao_jax.spaces import cnn, rnn
from nao_jax.tasks import image_costs, image_inference

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A home folder, and another one to work in."""
  folder, here = tmp_path / "home", tmp_path / "here"
  folder.mkdir()
  here.mkdir()
  monkeypatch.setenv("HOME", str(folder))
  monkeypatch.chdir(here)
  yield folder
  assert not list(here.iterdir())


def _workdir(path):
  with workdir.Workdir(path, {"seed": 1}, "result.json"):
    pass


# What writes at a path: a call, and what is there afterwards.
WRITERS = {
  "workdir": (_workdir, "x/config.json"),
  "trials": (lambda path: Trials(path, "space", {}), "x"),
  "checkpoints": (lambda path: checkpoint.save(path, [np.ones(2)]), "x/1"),
  "figures": (lambda path: files.check_writable(f"{path}/y", "f"), "x"),
  "drawing": (
    lambda path: canvas.save(
      recurrent.figure(rnn.resolve("NAO-RNN")), f"{path}.png"
    ),
    "x.png",
  ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_goes_to_the_home(home, name):
  call, made = WRITERS[name]
  call("~/x")
  assert (home / made).exists()


# What reads at a path; each says where it looked.
READERS = {
  "settings": config_file.read_settings,
  "report": search_page.write,
  "watch": watching.snapshot,
  "compare": lambda path: comparison_page.write([path, path], "out.html"),
  "training": image_inference.load,
  "architecture": lambda path: cnn.resolve(f"{path}.json"),
  "recurrent cell": lambda path: rnn.resolve(f"{path}.json"),
  "npz": sources.from_npz,
  "folder": sources.from_folder,
  "text": text.load,
  "table": lambda path: tables.load(
    f"{path}.npz", "cora", "valid", where="table"
  ),
  "costs": lambda path: image_costs.read_table(f"{path}.csv", "small"),
  "images": lambda path: images.load(
    "mine", data_dir=path, validation_fraction=0.1, seed=0
  ),
  "nasbench101": nasbench101.read,
  "nats-bench": lambda path: nats_bench.read(path, lambda *_: None),
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_read_is_looked_for_in_the_home(home, name, monkeypatch):
  looked = []
  expanded = paths.expanded

  def watched(path):
    looked.append(expanded(path))
    return looked[-1]

  monkeypatch.setattr(paths, "expanded", watched)
  with pytest.raises(UserError):
    READERS[name]("~/x")
  assert any(home in path.parents for path in looked)


def test_nobody_else_expands(home):
  users = {
    path.relative_to(ROOT).as_posix()
    for folder in ("nao_jax", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if re.search("expanduser", path.read_text(encoding="utf-8"))
  }
  assert users == {"nao_jax/runs/paths.py"}


def test_a_home_of_nobody_is_refused(home):
  with pytest.raises(UserError, match=r"~nobody-here.*write the path in full"):
    _workdir("~nobody-here/x")


def test_a_run_stays_where_it_is_when_its_program_goes_elsewhere(
  tmp_path, monkeypatch
):
  (tmp_path / "elsewhere").mkdir()
  monkeypatch.chdir(tmp_path)
  with workdir.Workdir("run", {"seed": 1}, "result.json") as run:
    monkeypatch.chdir("elsewhere")
    run.keep([np.ones(2)], 1, last=True)
    run.finish({})
  assert (tmp_path / "run" / "checkpoints" / "1").exists()
  assert (tmp_path / "run" / "result.json").exists()
  assert not list((tmp_path / "elsewhere").iterdir())
