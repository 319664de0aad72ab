r"""Compares strategies, or variants of `nao_plus`, on several data sets.

python -m benchmarks.search_quality --datasets=cora,citeseer --budget=100 \
  --trials=50 --folder=runs/graph --json=FILE
python -m benchmarks.search_quality --table=FILE --datasets=cifar100 \
  --signal=test200 --report=test200 --strategies=nao_plus \
  --variant='one controller: members=1' --folder=runs/variants --json=FILE

Each data set and variant is a comparison with a file of its own in the folder:
the same command goes on where it stopped. Several data sets are also joined:
differences to the first strategy, paired by seed.
"""

import ast
import pathlib
import re

from absl import flags
import numpy as np

from benchmarks import results
from experiments import driver, settings
from nao_jax.errors import UserError
from nao_jax.runs import streams
from nao_jax.settings import replace, validate
from nao_jax.strategies.ensemble import NaoPlusConfig
from nao_jax.studies import comparison, setups
from nao_jax.studies.curves import Curves

_DATASETS = flags.DEFINE_list("datasets", ["cora"], "Data sets of the table.")
_STRATEGIES = flags.DEFINE_list(
  "strategies", ["nao_plus", "local", "evolution", "random"], "To compare."
)
_VARIANTS = flags.DEFINE_multi_string(
  "variant", [], "`NAME: setting=value ..`, settings of `plus` to compare, too."
)
_FOLDER = flags.DEFINE_string("folder", None, "Of curves.", required=True)
_JSON = flags.DEFINE_string("json", None, "File of results.", required=True)
settings.define(comparison.CompareConfig, {}, fixed=("dataset",))

# Curves by data set and strategy.
Found = dict[tuple[str, str], Curves]


def main(_):
  """Runs what is missing, and shows and writes all figures."""
  config = settings.choose({"": comparison.CompareConfig()}, "", {})
  variants = _variants(_VARIANTS.value)
  found: Found = {}
  for dataset in _DATASETS.value:
    own = replace(config, {"dataset": dataset})
    found |= _compared(own, _STRATEGIES.value, "", None)
    for name, plus in variants.items():
      found |= _compared(own, ["nao_plus"], name, plus)
  rows = [_figures(*names, curves) for names, curves in found.items()]
  if len(_DATASETS.value) > 1:
    rows += _joined(found)
  streams.show(rows, "mean (standard error)", wide=150)
  title = f"Searches on {pathlib.Path(config.table).name}, {config.signal}"
  note = (
    f"Mean (standard error) of {config.trials} trials, seeds from "
    f"{config.seed} on; a trial that does not find the best one counts as "
    f"{config.evaluations}."
  )
  results.write(
    _JSON.value, results.table(title, "benchmarks.search_quality", rows, note)
  )


def _variants(texts: list[str]) -> dict[str, NaoPlusConfig]:
  """Parses the values of --variant; each is also the name of a file."""
  found = {}
  for text in texts:
    name, plus = _variant(text)
    if not re.fullmatch(r"[\w ]+", name) or name in {*found, *setups.SETUPS}:
      raise UserError(
        f"--variant={text}: give a name of letters, digits and spaces that no "
        "other variant or strategy has"
      )
    found[name] = plus
  return found


def _variant(text: str) -> tuple[str, NaoPlusConfig]:
  """Parses a value of --variant: its name and settings."""
  name, _, changes = text.partition(":")
  try:
    if not changes.strip():
      raise ValueError("no setting")
    pairs = [change.split("=") for change in changes.split()]
    plus = replace(
      setups.PLUS, {key: ast.literal_eval(value) for key, value in pairs}
    )
    validate(plus)
  except (TypeError, ValueError, SyntaxError, UserError) as error:
    raise UserError(
      f"--variant={text}: {error}; give NAME: setting=value, with settings of "
      f"{', '.join(NaoPlusConfig.__annotations__)}"
    ) from error
  return name, plus


def _compared(
  config: comparison.CompareConfig,
  strategies: list[str],
  variant: str,
  plus: NaoPlusConfig | None,
) -> Found:
  """Runs the trials on one data set, or reads them from their file."""
  name = "_".join([config.dataset, *variant.split()])
  file = pathlib.Path(_FOLDER.value) / f"{name}.json"
  file.parent.mkdir(parents=True, exist_ok=True)
  curves = comparison.run(config, strategies, plus=plus, file=file)
  return {
    (config.dataset, variant or name): own for name, own in curves.items()
  }


def _figures(dataset: str, name: str, curves: Curves) -> dict:
  needed = curves.to_optimum()
  return _ends(dataset, name, *_last(curves)) | {
    "evaluations to the best": _shown(needed, 1),
    "median": f"{np.median(needed):g}",
    "found": f"{np.mean(curves.found > 0):.0%}",
  }


def _joined(found: Found) -> list[dict]:
  """Returns the means over all data sets, and their differences by seed."""
  datasets = dict.fromkeys(dataset for dataset, _ in found)
  first, *others = dict.fromkeys(name for _, name in found)
  means = {
    name: np.mean([_last(found[each, name]) for each in datasets], axis=0)
    for name in (first, *others)
  }
  where = f"mean of {len(datasets)}"
  rows = [_ends(where, name, *mean) for name, mean in means.items()]
  rows += [
    _ends(where, f"{first} - {name}", *(means[first] - means[name]))
    for name in others
  ]
  empty = dict.fromkeys(("evaluations to the best", "median", "found"), "")
  return [row | empty for row in rows]


def _last(curves: Curves) -> np.ndarray:
  """Returns score and reported measurement at the end of trials, [2, R]."""
  return np.stack([curves.signal[:, -1], curves.report[:, -1]])


def _ends(
  dataset: str, name: str, score: np.ndarray, report: np.ndarray
) -> dict[str, str]:
  return {
    "data set": dataset,
    "strategy": name,
    "score": _shown(score),
    "reported": _shown(report),
  }


def _shown(values: np.ndarray, digits: int = 3) -> str:
  error = np.std(values, ddof=1) / np.sqrt(len(values))
  return f"{np.mean(values):.{digits}f} ({error:.{digits}f})"


if __name__ == "__main__":
  driver.run(main)
