"""Calls of version 0.1 under their old names, such as `cnn_search.run`."""

import functools
import importlib
import types
from typing import Any

# {old module: (where its other names are, where `run` is, the task)}.
CALLS = {
  "cnn_search": ("tasks.images", "experiment", "Images"),
  "cnn_training": ("tasks.image_training", "final_training", "Images"),
  "rnn_search": ("tasks.texts", "experiment", "Texts"),
  "rnn_training": ("tasks.text_training", "final_training", "Texts"),
}
_OF_TASK = ("data_dir", "latency")
_OF_OPTIONS = ("devices", "checkpoints", "plain", "team")


def module(name: str) -> types.ModuleType:
  """Returns a module of 0.1 with its function `run`.

  Args:
    name: one of `CALLS`.
  """
  found = types.ModuleType(f"nao_jax.{name}")
  vars(found).update(vars(_loaded(CALLS[name][0])))
  found.run = functools.partial(_run, name)
  return found


def _loaded(name: str) -> types.ModuleType:
  # By name, as nothing but old programs needs these modules from here.
  return importlib.import_module(f"nao_jax.{name}")


def _run(old: str, config: Any, **given: Any) -> dict | None:
  """Makes the call of today from the arguments of 0.1."""
  _, call, task = CALLS[old]
  of_task, of_options = (
    {name: given.pop(name) for name in names if name in given}
    for names in (_OF_TASK, _OF_OPTIONS)
  )
  tasks = _loaded(f"tasks.{task.lower()}")
  options = _loaded("tasks.task").RunOptions(**of_options)
  opened = getattr(tasks, task)(**of_task)
  return _loaded(call).run(opened, config, options=options, **given)
