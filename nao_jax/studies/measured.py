"""Limits of a search on a benchmark table to what was measured, and to costs.

Shapes: F functions of the table.
"""

from typing import Any

from absl import logging
import numpy as np

from nao_jax import objectives
from nao_jax.data import tables
from nao_jax.errors import UserError
from nao_jax.networks.cost import cost
from nao_jax.networks.edge_config import EdgeNetworkConfig
from nao_jax.objectives import CostConstraint
from nao_jax.spaces import nasbench201
from nao_jax.spaces.known import Known
from nao_jax.spaces.space import Space
from nao_jax.strategies.proxies import Proxy

# Exact counts of NAS-Bench-201's networks.
_COUNTS = ("parameters", "multiply_adds")


def constraint(
  config: Any, measured: list[tables.Column]
) -> tuple[CostConstraint | None, np.ndarray | None]:
  """Returns the cost constraint and the functions it allows, bool [F].

  Without a limit, a constraint keeps searches to what was measured, if a table
  of slots lacks architectures.

  Args:
    config: settings with the fields `table`, `dataset`, `limit` and
      `limit_penalty`, see `CompareConfig`.
    measured: columns of the table that a search needs.

  Raises:
    UserError: the limit is no limit on a column of the table.
  """
  name, limit = objectives.parse_limit(config.limit)
  space, penalty = measured[0].space, config.limit_penalty
  complete = all(column.complete for column in measured)
  if not name and complete:
    return None, None
  if name:
    column = tables.load(config.table, config.dataset, name, "limit")
    costs = np.float64(column.scores)
    if np.nanmin(costs) <= 0:
      raise UserError(
        f"`limit={config.limit}`: column {name!r} of the table has values of 0 "
        "or less, so it is no cost"
      )
  else:
    name, costs = "a row of the table", np.ones(len(measured[0].scores))
    limit, penalty = 1.0, 0.0
  if not complete:
    gaps = np.any([np.isnan(column.scores) for column in measured], axis=0)
    costs = np.where(gaps, np.nan, costs)
    _say(space, np.sum(~gaps))
  # Functions without a measured cost are not allowed.
  most = np.finfo(np.float64).max
  costs = np.where(np.isnan(costs), most, costs)

  def of_table(tokens: np.ndarray) -> np.ndarray:
    number = space.number(tokens)
    return np.where(number < 0, most, costs[number])

  return CostConstraint(name, of_table, limit, penalty=penalty), costs <= limit


def proxies(config: Any, space: Space) -> tuple[Proxy, ...]:
  """Makes the signals that `config.proxies` names.

  Args:
    config: settings with the fields `table`, `dataset` and `proxies`, see
      `CompareConfig`.
    space: the space of the table.

  Raises:
    UserError: the table has no such column.
  """
  names = config.proxies.split(",") if config.proxies else []
  plain = [name.removeprefix("-") for name in names]
  if "" in plain or len({*plain}) < len(plain):
    raise UserError(
      f"`proxies={config.proxies}`: give different names of columns, with "
      "commas between them"
    )
  return tuple(_proxy(config, space, name) for name in names)


def _proxy(config, space, name) -> Proxy:
  column = name.removeprefix("-")
  if space.name == nasbench201.space().name and column in _COUNTS:
    network, functions = EdgeNetworkConfig(), space.functions
    rows = functions.tokens(functions.representative)
    found = [cost(network, row, 32, 3) for row in rows]
    values = np.array([getattr(each, column) for each in found], np.float64)
  else:
    loaded = tables.load(config.table, config.dataset, column, "proxies")
    values = np.float64(loaded.scores) * loaded.sign
  values = -values if name.startswith("-") else values
  # What was not measured promises least.
  values = np.where(np.isnan(values), np.nanmin(values), values)
  return Proxy(name, lambda tokens: values[space.number(tokens)])


def _say(space: Known, count: int) -> None:
  missing = space.missing()
  logging.info(
    "%d architectures of the table have all measurements; no others are "
    "proposed%s",
    count,
    "" if missing is None else f", such as {space.text(missing)}",
  )
