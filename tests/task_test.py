"""A task of one's own searches like the two that ship."""

import json

import jax
from matplotlib.figure import Figure
import numpy as np
import pytest

import nao_jax
from nao_jax import experiment, final_training
from nao_jax.controller.fit import FitConfig
from nao_jax.controller.model import ControllerConfig
from nao_jax.errors import UserError
from nao_jax.evaluators.local import Local
from nao_jax.runs import checkpoint
from nao_jax.runs.checkpoint import CheckpointConfig
from nao_jax.runs.loggers import Lines
from nao_jax.search.config import FinalConfig, FinalistConfig, SearchConfig
from nao_jax.strategies.nao import NaoConfig
from nao_jax.strategies.proxies import Proxy
from nao_jax.tasks.task import RunOptions
from tests.stand_ins import Killed, nothing
from tests.tabular_task import SPACE, Tabular, TabularConfig

CONFIG = TabularConfig(
  search=SearchConfig(pool_size=6, rounds=1, new_per_round=2),
  controller=ControllerConfig(embedding=4, hidden=8, mlp_width=4),
  fit=FitConfig(epochs=2, batch=3),
  nao=NaoConfig(top_k=2, max_step_size=3, held_out=0.0),
  finalists=2,
  finalist=FinalistConfig(epochs=4),
  final=FinalConfig(cells=1, repeats=2, epochs=4),
)
GIVEN = "1 5 8"
OFTEN = RunOptions(
  checkpoints=CheckpointConfig(minutes=0.0), loggers=(Lines("csv"),)
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp("task") / "run"
  return path, experiment.run(Tabular(), CONFIG, workdir=path, options=OFTEN)


def test_a_third_task_searches_and_compares_with_random_cells(finished):
  path, best = finished
  assert json.loads((path / "best.json").read_text()) == best
  assert SPACE.text(best["tokens"]) == best["text"]
  assert [len(x) for x in best["finalists"].values()] == [2, 2]
  for group in ("searched", "random"):
    (values,) = best["test_accuracy"][group]
    assert len(values) == 2
    assert all(value > 0.5 for value in values)


def test_loggers_get_rounds_and_curves_of_finalists(finished):
  text = (finished[0] / "metrics.csv").read_text()
  for round_ in range(CONFIG.search.rounds + 1):
    assert f"\n{round_},best," in text
  assert "_of_finalists/" in text


def test_it_gets_a_drawing_and_a_report(finished):
  path, best = finished
  assert (path / "best.png").stat().st_size > 1000
  page = (path / "report.html").read_text()
  assert "A search for small networks on wine" in page
  assert best["text"] in page


def test_several_figures_need_a_drawing_of_ones_own(tmp_path, monkeypatch):
  cells = Tabular.cells({})
  monkeypatch.setattr(cells, "figures", lambda _: {"a": Figure(), "b": None})
  with pytest.raises(NotImplementedError, match=r"2 figures.*implement `draw`"):
    cells.draw(SPACE.sample(jax.random.key(0), 1)[0], [tmp_path / "a.png"])
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("trainings", [3, 9, 12])
def test_it_goes_on_after_a_kill_to_the_same_end(
  finished, tmp_path, monkeypatch, trainings
):
  """The kill comes in the search, among finalists, and in the comparison."""
  begun = []
  run = Local.run

  def until(self, state, rows, limits, trials, between):
    for update in run(self, state, rows, limits, trials, between):
      begun.extend(update.finished)
      if len(begun) > trainings:
        raise Killed
      yield update

  monkeypatch.setattr(Local, "run", until)
  with pytest.raises(Killed):
    experiment.run(Tabular(), CONFIG, workdir=tmp_path, options=OFTEN)
  monkeypatch.undo()
  monkeypatch.setattr(experiment, "_report", nothing)
  best = experiment.run(Tabular(), CONFIG, workdir=tmp_path, options=OFTEN)
  assert best == finished[1]


def test_proxies_choose_the_first_pool_once(tmp_path, monkeypatch):
  """The choice is saved, and made again if damaged; given ones come first."""
  asked = []

  def width(tokens):
    asked.append(len(tokens))
    return SPACE.indices(tokens)["width"] + tokens[:, 2] / 10

  task = Tabular()
  opened = type(task.open(CONFIG, None))
  monkeypatch.setattr(opened, "proxies", lambda _: [Proxy("width", width)])
  monkeypatch.setattr(Local, "run", _killed)
  for _ in range(2):
    with pytest.raises(Killed):
      experiment.run(
        task, CONFIG, workdir=tmp_path, architectures=[GIVEN], options=OFTEN
      )
  assert len(asked) == 1
  template = np.zeros((1, 3), np.int32)
  pool = checkpoint.restore(tmp_path / "first_pool", template)
  assert pool[0].tolist() == [1, 5, 8]
  widths = SPACE.indices(pool)["width"]
  assert len(pool) == 6
  assert (np.diff(widths[1:]) <= 0).all()
  assert widths[1] == 3
  for file in (tmp_path / "first_pool").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  with pytest.raises(Killed):
    experiment.run(
      task, CONFIG, workdir=tmp_path, architectures=[GIVEN], options=OFTEN
    )
  again = checkpoint.restore(tmp_path / "first_pool", template)
  np.testing.assert_array_equal(again, pool)


def _killed(*_):
  raise Killed


def test_other_data_of_the_same_name_are_refused(finished, monkeypatch):
  task = Tabular()
  opened = task.open(CONFIG, None)
  changed = type(opened)(CONFIG, opened.x + 1, opened.y)
  monkeypatch.setattr(Tabular, "open", lambda *_: changed)
  with pytest.raises(UserError, match="rows is"):
    experiment.run(task, CONFIG, workdir=finished[0])


def test_its_settings_are_checked_by_name(tmp_path):
  config = TabularConfig(epochs=0)
  with pytest.raises(UserError, match="`epochs=0`: allowed: 1 or more"):
    experiment.run(Tabular(), config, workdir=tmp_path)


@pytest.mark.parametrize(
  ("name", "task"),
  [
    ("cnn_search", {"data_dir": "d", "latency": None}),
    ("cnn_training", {"data_dir": "d", "latency": None}),
    ("rnn_search", {}),
    ("rnn_training", {}),
  ],
)
def test_calls_of_the_first_version_still_work(name, task, monkeypatch):
  asked = {}

  def run(*arguments, **named):
    asked["arguments"], asked["named"] = arguments, named
    return {"done": True}

  monkeypatch.setattr(experiment, "run", run)
  monkeypatch.setattr(final_training, "run", run)
  with pytest.warns(DeprecationWarning, match=f"{name}.run is now"):
    module = getattr(nao_jax, name)
  assert module.run(CONFIG, workdir="w", devices=2, **task) == {"done": True}
  found, config = asked["arguments"]
  assert config is CONFIG
  assert {k: getattr(found, k) for k in task} == task
  assert asked["named"] == {"workdir": "w", "options": RunOptions(devices=2)}
