"""The section about the finalists of a search.

Shapes: F finalists, searched and random ones.
"""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from nao_jax.controller import metrics
from nao_jax.report import formatting, plots
from nao_jax.report.page import Plot, Section, Table, Tile
from nao_jax.report.run import Run

_COLOURS = {"searched": plots.NEW, "random": plots.POOL}


def section(run: Run) -> Section | None:
  """Compares the finalists' places in the search with their ranks after it."""
  if not run.finalists:
    return None
  name = f"validation {run.cells.measure.name}"
  searched, random = run.finalists["searched"], run.finalists["random"]
  texts = [
    f"The {len(searched)} best members by score, trained from scratch with one "
    "budget and one seed, and measured on all of the validation part after the "
    "last epoch. The first of them is the winner."
  ]
  if random:
    texts += [
      f"Beside them {len(random)} random cells that were never in the pool, "
      "trained alike.",
      _beaten(run, searched, random),
    ]
  texts.append(_agreement(run, searched))
  caption = (
    "Left, the validation part after each epoch, a line for each finalist; "
    "right, from the place in the search to the rank after training, with "
    "the ranks of random cells as dots."
  )
  return Section(
    "Finalists: trained from scratch",
    texts,
    [Plot(figure(run.finalists, name), caption)],
    [_table(run, name)],
  )


def _table(run: Run, name: str) -> Table:
  """Lists all finalists by rank."""
  rows = sorted(
    (entry["rank"], group, entry)
    for group, entries in run.finalists.items()
    for entry in entries
  )
  return Table(
    ["rank", "cell", "place in the search", "score there", name],
    [
      [
        str(rank),
        group,
        formatting.NONE if entry["place"] is None else str(entry["place"]),
        _score(run, entry),
        _value(run, entry),
      ]
      for rank, group, entry in rows
    ],
    "One training each: what a second one with another seed would differ by is "
    "not known from here.",
    words=2,
  )


def _beaten(run: Run, searched: list[dict], random: list[dict]) -> str:
  """Counts the pairs in which the searched finalist beats the random one."""
  one, other = _worth(run, searched)[:, None], _worth(run, random)[None]
  better = np.sum(one > other) + np.sum(one == other) / 2
  return (
    f"Of {one.size * other.size} pairs of a searched and a random finalist the "
    f"searched one was better in {better:g}, ties counting half; by chance it "
    "would be in half of them."
  )


def _worth(run: Run, entries: list[dict]) -> np.ndarray:
  """Returns the validation results of finalists, higher is better, [F]."""
  name, sign = f"validation_{run.cells.measure.name}", 1
  if not run.cells.measure.higher_is_better:
    sign = -1
  values = [entry[name] for entry in entries]
  # Worse than any perplexity or accuracy; used where a training diverged.
  worst = -1e30
  return np.array([worst if v is None else sign * v for v in values])


def _agreement(run: Run, searched: list[dict]) -> str:
  """Describes how well the search's order agrees with that after training."""
  if len(searched) < 3:
    return "Fewer than three finalists say nothing of the search's order."
  places = np.array([entry["place"] for entry in searched], np.float64)
  tau = metrics.kendall_tau(-places, _worth(run, searched))
  return (
    f"Kendall's tau between the order of the search ({formatting.how(run)}) "
    f"and that of training: {tau:.2f} over {len(searched)} cells, which are "
    "few and the top of the pool: this says little of the whole pool."
  )


def _score(run: Run, entry: dict) -> str:
  if entry["place"] is None:
    return formatting.NONE
  return run.cells.measure.show(run.pool.scores[entry["row"], run.scored[-1]])


def tile(run: Run) -> Tile:
  """Returns the tile with the winner's result."""
  entries = run.finalists["searched"]
  return Tile(
    f"best validation {run.cells.measure.name}",
    _value(run, entries[0]),
    f"from scratch, first of {len(entries)} finalists; one training",
  )


def _value(run: Run, entry: dict) -> str:
  value = entry[f"validation_{run.cells.measure.name}"]
  return "diverged" if value is None else formatting.compared_number(run, value)


@matplotlib.rc_context(plots.STYLE)
def figure(finalists: dict[str, list[dict]], ylabel: str) -> Figure:
  """Draws the curves of all finalists, and their places beside their ranks.

  Args:
    finalists: the finalists in best.json.
    ylabel: name of the measurement.
  """
  drawn = Figure(figsize=(plots.WIDTH, plots.HEIGHT), layout="constrained")
  left, right = drawn.subplots(1, 2, width_ratios=(3, 2))
  for group, entries in finalists.items():
    colour = _COLOURS[group]
    for number, entry in enumerate(entries):
      label = f"{group} finalists" if number == 0 else None
      curve = entry["curve"]
      epochs = np.arange(1, len(curve) + 1)
      above = {"zorder": 2.5 if group == "searched" else 2.0}
      left.plot(
        epochs, curve, ".-", color=colour, lw=1, ms=3, label=label, **above
      )
      if entry["place"] is None:
        right.scatter([1], [entry["rank"]], s=14, color=colour, zorder=3)
      else:
        ends = [entry["place"], entry["rank"]]
        right.plot([0, 1], ends, "o-", color=colour, ms=3.5, lw=1)
  left.set_xlabel("epoch")
  left.set_ylabel(ylabel)
  left.xaxis.set_major_locator(MaxNLocator(5, integer=True))
  right.set_xticks([0, 1], ["search", "trained"])
  right.set_xlim(-0.2, 1.2)
  right.yaxis.set_major_locator(MaxNLocator(6, integer=True))
  right.invert_yaxis()
  right.set_ylabel("rank")
  drawn.legend(loc="outside upper left", ncols=2)
  return drawn
