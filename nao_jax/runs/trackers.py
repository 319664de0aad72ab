"""Experiment trackers: MLflow and Weights & Biases."""

import dataclasses
import importlib
import logging
import os
import pathlib
import re
import shutil
import time
import types
from typing import Any

from nao_jax.errors import UserError, in_a_line, without_passwords
from nao_jax.runs import files, paths, tracker_file
from nao_jax.runs.loggers import Lines, Logger, unseen

# Forms of `parse`.
KINDS = "csv, csv:FILE, jsonl, jsonl:FILE, mlflow:URI, wandb:PROJECT"
_EXPERIMENT = "nao_jax"
# Seconds and attempts for a server; MLflow's own are minutes.
_PATIENCE = {
  "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
  "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
# Characters that MLflow refuses in names, and the most of a parameter's value
# and of the parameters or metrics in a request.
_FOREIGN, _LONGEST, _MOST = re.compile(r"[^\w\-. /]"), 500, 100
# Characters of a group's name in Weights & Biases.
_LONGEST_GROUP = 128


def parse(text: str) -> tuple[Logger, ...]:
  """Returns the loggers that a text such as `csv,mlflow:URI` names.

  Raises:
    UserError: one is unknown, is not installed, or cannot be reached.
  """
  return tuple(_logger(part) for part in text.split(",") if part)


def _logger(part: str) -> Logger:
  kind, _, target = part.partition(":")
  if kind in ("csv", "jsonl"):
    if target:
      files.check_writable(target, "track")
    return Lines(kind, target and str(paths.expanded(target).absolute()))
  if kind in ("mlflow", "wandb") and target:
    return {"mlflow": MLflow, "wandb": Wandb}[kind](target)
  part = without_passwords(part)
  raise UserError(f"`track={part}`: unknown; allowed: {KINDS}")


@dataclasses.dataclass
class MLflow:
  """Logger to an MLflow tracking store, one run for each workdir.

  Attributes:
    uri: the store: a server, or `sqlite:///FILE`, beside which artefacts go.
  """

  uri: str

  def __post_init__(self):
    for name, value in _PATIENCE.items():
      os.environ.setdefault(name, value)
    mlflow = _package("mlflow", "mlflow")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
      self._client = mlflow.MlflowClient(tracking_uri=self.uri)
      name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
      found = self._client.get_experiment_by_name(name)
      self._experiment = (
        found.experiment_id
        if found
        else self._client.create_experiment(name, _artefacts_of(self.uri))
      )
    except Exception as error:
      raise UserError(
        f"`track={self._name}`: cannot be used ({in_a_line(error):.200}); "
        "give a server that answers, or sqlite:///FILE in a folder that exists"
      ) from error
    self._entities = importlib.import_module("mlflow.entities")
    self._run, self._seen = None, {}

  def start(
    self, workdir: pathlib.Path, parameters: dict[str, Any], step: int
  ) -> None:
    """Implements `Logger.start`: a resumed run continues as the same run."""
    del step  # What is there is known by `_seen`.
    client = self._client
    known = tracker_file.known(workdir, self._name)
    if known:
      client.update_run(known, status="RUNNING")
      self._run = known
      for name in client.get_run(known).data.metrics:
        history = client.get_metric_history(known, name)
        self._seen[name] = max(entry.step for entry in history)
      return
    run = client.create_run(self._experiment, run_name=workdir.name)
    self._run = run.info.run_id
    tracker_file.remember(workdir, self._name, self._run)
    rows = [
      self._entities.Param(_FOREIGN.sub("_", name), str(value)[:_LONGEST])
      for name, value in {**parameters, "workdir": workdir}.items()
    ]
    for first in range(0, len(rows), _MOST):
      client.log_batch(self._run, params=rows[first : first + _MOST])

  @property
  def _name(self) -> str:
    return without_passwords(f"mlflow:{self.uri}")

  def metrics(self, values: dict[str, float], step: int) -> None:
    """Implements `Logger.metrics`; those that are there are left alone."""
    named = {_FOREIGN.sub("_", k): v for k, v in values.items()}
    now = time.time_ns() // 1_000_000
    rows = [
      self._entities.Metric(name, value, now, step)
      for name, value in unseen(named, step, self._seen).items()
    ]
    for first in range(0, len(rows), _MOST):
      self._client.log_batch(self._run, rows[first : first + _MOST])

  def artefact(self, file: pathlib.Path) -> None:
    """Implements `Logger.artefact`."""
    self._client.log_artifact(self._run, str(file))

  def stop(self, state: str) -> None:
    """Implements `Logger.stop`."""
    status = {"finished": "FINISHED", "stopped": "KILLED"}.get(state, "FAILED")
    self._client.set_terminated(self._run, status)


def _artefacts_of(uri: str) -> str | None:
  """Returns the folder beside an SQLite file; None leaves it to the server."""
  _, sqlite, file = uri.partition("sqlite:///")
  if not sqlite:
    return None
  return (pathlib.Path(file).absolute().parent / "mlartifacts").as_uri()


@dataclasses.dataclass
class Wandb:
  """Logger to Weights & Biases.

  WANDB_MODE=online makes one run for each workdir. By default files go to the
  workdir, for `wandb sync`, which replaces a run of the same identity: each
  start makes a run, and those of a workdir are a group.

  Attributes:
    project: name of the project.
  """

  project: str

  def __post_init__(self):
    self._wandb = _package("wandb", "wandb")
    self._run = None

  def start(
    self, workdir: pathlib.Path, parameters: dict[str, Any], step: int
  ) -> None:
    """Implements `Logger.start`."""
    del step  # What is there is known by `_seen`.
    if self._run is not None:
      return
    name = f"wandb:{self.project}"
    mode = os.environ.get("WANDB_MODE", "offline")
    online = mode not in ("offline", "dryrun")
    known = tracker_file.known(workdir, name) if online else None
    self._run = self._wandb.init(
      project=self.project,
      name=workdir.name,
      group=str(workdir)[-_LONGEST_GROUP:],
      id=known,
      resume="allow" if known else None,
      dir=str(workdir),
      config=parameters,
      mode=mode,
      settings=self._wandb.Settings(silent=True, console="off"),
    )
    if online:
      tracker_file.remember(workdir, name, self._run.id)
    self._steps = workdir, f"{name} steps"
    self._seen = tracker_file.known(*self._steps) or {}
    # Curves of trainings have steps of their own.
    self._run.define_metric("*", step_metric="step")

  def metrics(self, values: dict[str, float], step: int) -> None:
    """Implements `Logger.metrics`; those that are there are left alone."""
    values = unseen(values, step, self._seen)
    if values:
      self._run.log({**values, "step": step})
      self._seen |= dict.fromkeys(values, step)
      tracker_file.remember(*self._steps, self._seen)

  def artefact(self, file: pathlib.Path) -> None:
    """Implements `Logger.artefact`."""
    # What is in this folder belongs to the run.
    shutil.copy(file, self._run.dir)

  def stop(self, state: str) -> None:
    """Implements `Logger.stop`."""
    self._run.finish(exit_code=int(state != "finished"))
    self._run = None


def _package(name: str, extra: str) -> types.ModuleType:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise UserError(
      f"`track={name}`: needs the package {name}; pip install "
      f"'nao_jax[{extra}]'"
    ) from error
