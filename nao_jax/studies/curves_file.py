"""JSON files of comparisons: settings, figures and the curves of all trials."""

import json
import os
from typing import Any

from absl import logging
import numpy as np

from nao_jax.errors import UserError
from nao_jax.runs import files, json_file, paths
from nao_jax.settings import flatten
from nao_jax.studies.curves import Curves, summary

_ARRAYS = ("signal", "report", "evaluations", "found")


def read(
  file: str | os.PathLike | None,
  config: Any,
  setups: dict[str, dict],
  table: str,
) -> dict[str, Curves]:
  """Reads the curves in a file of strategies whose setup is unchanged."""
  if file is None or not os.path.exists(paths.expanded(file)):
    return {}
  place, wanted, advice = f"`file={file}`", "a comparison", "give another file"
  held = json_file.read(file, place=place, wanted=wanted, advice=advice)
  try:
    settings, trials = held["settings"], dict(held["trials"])
    done = {
      name: _curves_of_file(rows, config)
      for name, rows in trials.items()
      if rows["setup"] == setups[name] and settings == flatten(config)
    }
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise UserError(f"{place}: not {wanted} ({error!r}); {advice}") from error
  if settings != flatten(config):
    raise UserError(f"{place}: holds another comparison, {settings}; {advice}")
  if held.get("table") != table:
    raise UserError(
      f"{place}: holds a comparison on other scores than those that"
      f" `table={config.table}` holds today; {advice}"
    )
  for name in sorted(set(trials) - set(done)):
    logging.info("%s is no longer what %s holds of it", name, file)
  return done


def _curves_of_file(rows: dict, config: Any) -> Curves:
  """Reads the curves of a strategy.

  It raises ValueError and other errors for damaged entries.
  """
  arrays = [np.array(rows[field]) for field in _ARRAYS]
  trials, budget = (config.trials,), (config.evaluations,)
  shapes = [trials + budget, trials + budget, trials, trials]
  if [array.shape for array in arrays] != shapes:
    raise ValueError(f"curves are not {config.trials} by {budget[0]}")
  for array in arrays:
    if array.dtype.kind not in "fi" or not np.isfinite(array).all():
      raise ValueError("curves are not all numbers")
  return Curves(*arrays, seconds=float(rows["seconds"]))


def write(
  file: str | os.PathLike | None,
  config: Any,
  setups: dict[str, dict],
  table: str,
  done: dict[str, Curves],
) -> None:
  """Writes the curves of strategies; does nothing without a file."""
  if file is None:
    return
  rows = {
    name: {field: getattr(curves, field).tolist() for field in _ARRAYS}
    | {"seconds": curves.seconds, "setup": setups[name]}
    for name, curves in done.items()
  }
  held = {
    "settings": flatten(config),
    "table": table,
    "summary": summary(done),
    "trials": rows,
  }
  files.write(paths.expanded(file), json.dumps(held) + "\n")
