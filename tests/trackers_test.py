"""Loggers beside a run: what they get, once, and that none stops it."""

import csv
import dataclasses
import importlib
import json
import logging
import sys
import time

import pytest

from nao_jax.errors import UserError, in_a_line
from nao_jax.runs import loggers, tracker_file, trackers
from nao_jax.runs.workdir import Workdir
from nao_jax.search.journal import SearchJournal

SETTINGS = {"search.rounds": 3, "train.rate": 0.1, "step_sizes": [1, 2]}
REPORTS = [{"round": n, "best": n / 8, "name": "x"} for n in range(4)]


def _run(path, track, rounds, first=0):
  """Some rounds of a run, which then stops or, after the last, finishes."""
  own = trackers.parse(track)
  with Workdir(path, SETTINGS, "best.json", loggers=own) as run:
    run.rewind("round", first)
    for report in REPORTS[first:rounds]:
      run.report("round", report)
    if rounds < len(REPORTS):
      raise KeyboardInterrupt
    run.finish({})
    run.tracking.artefacts("best.json", "no.html")


def _stopped_and_resumed(path, track):
  """Has the third round reported twice."""
  with pytest.raises(KeyboardInterrupt):
    _run(path, track, 3)
  with pytest.raises(KeyboardInterrupt):
    _run(path, track, 3, first=0)
  _run(path, track, 4, first=2)


def test_lines_hold_each_metric_once(tmp_path):
  run = tmp_path / "run"
  _stopped_and_resumed(run, f"csv,jsonl:{tmp_path}/more/m.jsonl")
  with (run / "metrics.csv").open() as file:
    head, *rows = csv.reader(file)
  assert head == ["step", "name", "value"]
  assert rows == [[str(n), "best", str(n / 8)] for n in range(4)]
  lines = (tmp_path / "more" / "m.jsonl").read_text().splitlines()
  assert [*map(json.loads, lines)] == [
    {"step": n, "name": "best", "value": n / 8} for n in range(4)
  ]


class _Calls:
  """A logger that counts."""

  def __init__(self):
    self.metrics_of = []

  def metrics(self, values, step):
    self.metrics_of.append((step, values))

  def start(self, *_):
    pass

  stop = start


def test_curves_of_finalists_are_logged_once(tmp_path):
  curves = {"error_of_finalists/a_1": [0.5, 0.25, 0.125], "b": [0.75]}
  for stage in ("a", "b"):
    calls = _Calls()
    own = [*trackers.parse("csv,jsonl"), calls]
    with SearchJournal(tmp_path, SETTINGS, 1, loggers=own) as run:
      # An epoch of a finalist is earlier than the round, another is not.
      run.rewind("round", 2)
      run.report_stage(stage, {}, curves)
  lines = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
  first = "error_of_finalists/a_1"
  assert sorted(lines) == [
    *(f"1,b,0.75 1,{first},0.5 2,{first},0.25 3,{first},0.125".split())
  ]
  assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4
  # A request to a server for each epoch, not for each number.
  assert calls.metrics_of == [
    *((1, {first: 0.5, "b": 0.75}), (2, {first: 0.25}), (3, {first: 0.125}))
  ]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_lines_go_on_after_a_torn_one(tmp_path, kind):
  with pytest.raises(KeyboardInterrupt):
    _run(tmp_path, kind, 2)
  file = tmp_path / f"metrics.{kind}"
  whole = file.read_bytes()
  for torn in (whole[:-3], whole + "\0\0é".encode()[:-1]):
    file.write_bytes(torn)
    with pytest.raises(KeyboardInterrupt):
      _run(tmp_path, kind, 2, first=1)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("text", ["step,name,value\n0,best,1\n", "notes\n"])
def test_a_file_of_another_run_is_refused_and_kept(tmp_path, text):
  file = tmp_path / "all.csv"
  file.write_text(text)
  with pytest.raises(UserError, match=r"`track=csv:.*all\.csv`: holds someth"):
    _run(tmp_path / "run", f"csv:{file}", 4)
  assert file.read_text() == text


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_one_run_with_all_of_it(tmp_path, monkeypatch):
  mlflow = pytest.importorskip("mlflow")
  monkeypatch.chdir(tmp_path)
  _stopped_and_resumed(tmp_path / "run", "mlflow:sqlite:///runs.db")
  client = mlflow.MlflowClient("sqlite:///runs.db")
  (experiment,) = client.search_experiments(filter_string="name = 'nao_jax'")
  (run,) = client.search_runs([experiment.experiment_id])
  assert run.info.status == "FINISHED"
  assert run.info.run_name == "run"
  assert run.data.params["train.rate"] == "0.1"
  assert run.data.params["step_sizes"] == "[1, 2]"
  history = client.get_metric_history(run.info.run_id, "best")
  assert [(x.step, x.value) for x in history] == [(n, n / 8) for n in range(4)]
  (file,) = client.list_artifacts(run.info.run_id)
  assert file.path == "best.json"
  assert {x.name for x in tmp_path.iterdir()} == {
    *("run", "runs.db", "mlartifacts")
  }


def _records(file):
  """Records of a file of less than 32 KB: LevelDB's log behind 7 bytes."""
  record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
  content, at = file.read_bytes(), 7
  while at < len(content):
    end = at + 7 + int.from_bytes(content[at + 4 : at + 6], "little")
    yield record.FromString(content[at + 7 : end])
    at = end


@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_each_round_once_for_its_sync(tmp_path, monkeypatch):
  pytest.importorskip("wandb")
  monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
  monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
  _stopped_and_resumed(tmp_path / "run", "wandb:mine")
  folders = [*(tmp_path / "run" / "wandb").glob("offline-run-*")]
  # A sync replaces runs of the same identity.
  identities = {folder.name.rpartition("-")[2] for folder in folders}
  assert len(identities) == len(folders) == 3
  # W&B's own process writes the files, at times after the run has ended.
  for _ in range(100):
    records = [
      record
      for folder in folders
      for record in _records(*folder.glob("*.wandb"))
    ]
    if sum(x.HasField("exit") for x in records) == len(folders):
      break
    time.sleep(0.2)
  runs = [x.run for x in records if x.HasField("run")]
  assert {x.run_group for x in runs} == {str(tmp_path / "run")[-128:]}
  assert "search.rounds" in {y.key for x in runs for y in x.config.update}
  rows = [
    {item.key or item.nested_key[0]: item.value_json for item in x.history.item}
    for x in records
    if x.HasField("history")
  ]
  assert sorted((int(row["step"]), float(row["best"])) for row in rows) == [
    (n, n / 8) for n in range(4)
  ]
  assert [*(tmp_path / "run" / "wandb").rglob("files/best.json")]


@dataclasses.dataclass
class _Failing:
  """A logger that fails in one of its methods."""

  method: str

  def __getattr__(self, name):
    def call(*_):
      if name == self.method:
        raise OSError("the server\nis gone")

    return call


@pytest.mark.parametrize("method", ["start", "metrics", "artefact", "stop"])
def test_a_logger_that_fails_is_named_once_and_stops_nothing(
  tmp_path, caplog, method
):
  own = [_Failing(method), loggers.Lines("csv")]
  with Workdir(tmp_path, SETTINGS, "best.json", loggers=own) as run:
    run.rewind("round", 0)
    for report in REPORTS:
      run.report("round", report)
    run.finish({})
    run.tracking.artefacts("best.json")
  warned = [x for x in caplog.records if x.levelno == logging.WARNING]
  (line,) = (x.getMessage() for x in warned)
  assert line.startswith("_Failing: the server is gone; it gets no more")
  assert (tmp_path / "metrics.csv").read_text().count("best") == 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
  ("track", "said"),
  [
    ("sacred:x", "`track=sacred:x`: unknown; allowed: csv, csv:FILE"),
    ("mlflow", "`track=mlflow`: unknown; allowed: "),
    ("csv:/proc/no.csv", "`track=/proc/no.csv`: cannot be written"),
    ("mlflow:sqlite:////proc/no/runs.db", "cannot be used .* sqlite:///FILE"),
    ("mlflow:http://127.0.0.1:9", "cannot be used .* a server that answers"),
  ],
)
def test_a_place_that_cannot_be_used_is_refused(track, said, monkeypatch):
  if "mlflow:" in track:
    pytest.importorskip("mlflow")
  monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
  with pytest.raises(UserError, match=said):
    trackers.parse(track)


def test_a_package_that_is_missing_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(UserError, match=r"pip install 'nao_jax\[wandb\]'"):
    trackers.parse("wandb:mine")


def test_passwords_of_servers_are_in_no_file_and_no_message(
  tmp_path, monkeypatch
):
  plain = "mlflow:https://me:s%40cr@et@host/x"
  with pytest.raises(UserError, match="://host/x`: unknown"):
    trackers.parse(plain.replace("mlflow", "other"))
  assert in_a_line(OSError(f"{plain} fails")) == "mlflow:https://host/x fails"
  monkeypatch.setattr(sys, "orig_argv", ["python", f"--track=csv,{plain}"])
  (tmp_path / "trackers.json").write_text(json.dumps({plain: "a"}))
  assert tracker_file.known(tmp_path, "mlflow:https://host/x") == "a"
  (tmp_path / "trackers.json").unlink()
  _run(tmp_path, "", 4)
  tracker_file.remember(tmp_path, "mlflow:https://host/x", "a")
  for name in ("config.json", "trackers.json"):
    text = (tmp_path / name).read_text()
    assert "https://host/x" in text
    assert "cr@et" not in text
