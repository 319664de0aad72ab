"""Costs of convolutional cells, for constrained or multi-objective searches.

Parameters and multiply-adds are exact for the stand-alone network at the sizes
of the final comparison (`final.channels`, `final.cells_per_stage`), without its
auxiliary head. A latency comes from a function that the caller provides, or is
the sum of the entries of a table of operations.

Shapes: N architectures, L tokens.
"""

from collections.abc import Sequence
import csv
import math

import numpy as np

from nao_jax import objectives
from nao_jax.errors import UserError
from nao_jax.networks.build import Network
from nao_jax.networks.cost import cost
from nao_jax.objectives import Cost, CostConstraint
from nao_jax.runs import paths
from nao_jax.settings import within
from nao_jax.spaces import cnn
from nao_jax.tasks import image_spaces
from nao_jax.tasks.image_config import SearchCnnConfig

NAMES = ("params", "multiply_adds", "latency")
_COLUMNS = ["cell", "op", "milliseconds"]
_CELLS = ("normal", "reduction")


def check(config: SearchCnnConfig, latency: Cost | None) -> None:
  """Checks the settings that can be checked before the data are known.

  Raises:
    UserError: a setting is invalid; the message names it.
  """
  asked = config.constraint
  with within("constraint", asked):
    found = objectives.parse(asked, NAMES)
  if found and found[2] and config.strategy == "local":
    raise UserError(
      f"`strategy=local` `constraint.objectives={asked.objectives}`: local "
      "search needs a single objective; give another strategy"
    )
  if config.space == "own" and found and found[0] == "multiply_adds":
    raise UserError(
      "`constraint.limit`, `constraint.objectives`: multiply-adds of your own "
      "operations are not known; give params, or a latency"
    )
  if config.space != "nao" and asked.latency_table:
    raise UserError(
      f"`constraint.latency_table={asked.latency_table}`: a table is for the "
      "operations of `space=nao`; give the argument `latency` of "
      "tasks.images.Images"
    )
  if found is None or found[0] != "latency":
    if asked.latency_table:
      raise UserError(
        f"`constraint.latency_table={asked.latency_table}`: nothing asks for a "
        "latency; add `constraint.limit=latency:MILLISECONDS` or "
        "`constraint.objectives=score,latency`"
      )
    return
  if (latency is None) == (not asked.latency_table):
    raise UserError(
      "`constraint.limit`, `constraint.objectives`: a latency comes from "
      "`constraint.latency_table`, or from the argument `latency` of "
      "tasks.images.Images; give exactly one of them"
    )
  if asked.latency_table:
    read_table(asked.latency_table, config.network.ops)


def constraint(
  config: SearchCnnConfig,
  image: Sequence[int],
  latency: Cost | None = None,
  layout: Network = image_spaces.NAO,
) -> CostConstraint | None:
  """Returns the cost constraint of a search; None if it has none.

  Args:
    config: the settings, which have passed `check`.
    image: height, width and channels.
    latency: the caller's function from tokens int32 [N, L] to latencies [N].
    layout: a network of the space, see `image_spaces.layout`.
  """
  asked = config.constraint
  found = objectives.parse(asked, NAMES)
  if found is None:
    return None
  name, limit, multi_objective = found
  if name != "latency":
    network = layout.resized(config.final.network(config.network))
    function = exact(name, network, image)
  else:
    ops = config.network.ops
    function = latency or table_cost(asked.latency_table, ops)
  return CostConstraint(
    name, function, limit, multi_objective, asked.limit_penalty
  )


def exact(name: str, network: Network, image: Sequence[int]) -> Cost:
  """Returns a function that counts parameters, or multiply-adds for one image.

  Args:
    name: "params" or "multiply_adds".
    network: the sizes.
    image: height, width and channels.
  """
  size, _, channels = image

  def function(tokens):
    costs = [cost(network, row, size, channels) for row in tokens]
    if name == "params":
      return np.array([found.parameters for found in costs])
    return np.array([found.multiply_adds for found in costs])

  return function


def table_cost(path: str, ops: str) -> Cost:
  """Returns the latency by a table, in milliseconds; see `read_table`."""
  base, times = read_table(path, ops)

  def function(tokens):
    chosen = np.asarray(cnn.to_cells(tokens))[..., [1, 3]]
    return base + sum(
      times[cell][chosen[:, cell]].sum((1, 2)) for cell in range(len(_CELLS))
    )

  return function


def read_table(path: str, ops: str) -> tuple[float, np.ndarray]:
  """Reads a table of latencies.

  The table is a CSV file with the columns cell, op and milliseconds: the
  latency that one branch with this op adds to the whole network, in all its
  cells of this kind together. A row `network,,MILLISECONDS` holds the latency
  that does not depend on the branches.

  Args:
    path: path of the file.
    ops: name of the op set; each of its ops needs a row for either kind of
      cell.

  Returns:
    Milliseconds of the network without branches, and of each op, [2, ops].

  Raises:
    UserError: the file has another form; the message names the line.
  """
  place, names = f"`constraint.latency_table={path}`", cnn.OP_SETS[ops]
  base, times = 0.0, np.full((len(_CELLS), len(names)), np.nan)
  for number, row in enumerate(_rows(path, place), 2):
    where = f"{place}, line {number}"
    if len(row) != len(_COLUMNS):
      raise UserError(
        f"{where}: {len(row)} values; allowed: {', '.join(_COLUMNS)}"
      )
    cell, op, text = (value.strip() for value in row)
    value = _milliseconds(text, where)
    if (cell, op) == ("network", ""):
      base = value
    elif cell not in _CELLS or op not in names:
      raise UserError(
        f"{where}: {cell},{op}; allowed: normal or reduction, and an op of "
        f"`network.ops={ops}`: {', '.join(names)}"
      )
    else:
      times[_CELLS.index(cell), names.index(op)] = value
  missing = np.argwhere(np.isnan(times))
  if len(missing):
    cell, op = missing[0]
    raise UserError(f"{place}: has no row {_CELLS[cell]},{names[op]}")
  if base <= 0 and (times.min(1) <= 0).all():
    raise UserError(
      f"{place}: some architectures would take no time at all; "
      "add a row network,,MILLISECONDS"
    )
  return base, times


def _rows(path: str, place: str) -> list[list[str]]:
  """Returns all lines after the first, which must be the heading."""
  try:
    with paths.expanded(path).open(encoding="utf-8", newline="") as file:
      heading, *rows = list(csv.reader(file)) or [[]]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UserError(f"{place}: cannot be read ({error})") from error
  if [name.strip() for name in heading] != _COLUMNS:
    raise UserError(
      f"{place}: the first line must be {','.join(_COLUMNS)}; found: "
      f"{','.join(heading)[:60]}"
    )
  return rows


def _milliseconds(text: str, where: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value < math.inf:
    raise UserError(f"{where}: {text!r} is not a number of milliseconds")
  return value
