"""Results of trials of strategies: figures, tables and a plot.

Shapes: R trials, B evaluations (the budget).
"""

import dataclasses
import itertools
import os

from matplotlib.figure import Figure
import numpy as np
from scipy import stats

from nao_jax.runs import paths, streams

# Evaluations between two rows of a curve's table.
EVERY = 10
# Hues of Okabe and Ito, distinct for readers with any colour vision.
_COLOURS = ("#777777", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7")
# Differences of at most this many standard errors are not marked.
_ERRORS = 2


@dataclasses.dataclass(frozen=True)
class Curves:
  """Results of the trials of one strategy after each evaluation.

  After the last evaluation of a trial its curves stay constant: a trial stops
  when it has found the best score of the table.

  Attributes:
    signal: float [R, B], the best score so far.
    report: float [R, B], the reported measurement of that architecture.
    evaluations: int [R], number of evaluations in each trial.
    found: int [R], the evaluation that had the table's best score; 0 without.
    seconds: wall time of all trials together.
  """

  signal: np.ndarray
  report: np.ndarray
  evaluations: np.ndarray
  found: np.ndarray
  seconds: float

  def to_optimum(self) -> np.ndarray:
    """Returns the evaluations until the best score was found.

    A trial that did not find it counts with the budget.
    """
    budget = self.signal.shape[1]
    return np.where(self.found > 0, self.found, budget)


def show(curves: dict[str, Curves], signal: str, report: str) -> None:
  """Prints the results and marks differences that are larger than chance.

  Args:
    curves: {strategy: results}.
    signal: name of the score that the search saw.
    report: name of the measurement that is reported.
  """
  found = summary(curves)
  # Without a terminal rich assumes 80 columns, too few for the tables.
  streams.show(
    _figures(found, signal, report),
    "means over trials (standard error)",
    wide=150,
  )
  streams.show(
    _differences(found),
    "paired differences at the end (standard error); * is more than "
    f"{_ERRORS} of them",
    wide=150,
  )


def _figures(found: dict, signal: str, report: str) -> list[dict[str, str]]:
  at = [row["evaluations"] for row in next(iter(found.values()))["curve"]]
  shown = sorted({at[len(at) // 2 - 1], at[-1]})
  rows = []
  for name, own in found.items():
    curve = {row["evaluations"]: row for row in own["curve"]}
    optimum = own["to_optimum"]
    row = {"strategy": name}
    for column, heading in (("signal", signal), ("report", report)):
      row |= {f"{heading} @{n}": _pair(curve[n][column], 2) for n in shown}
    rows.append(
      row
      | {
        "evaluations to the optimum": _pair(optimum, 1),
        "median": f"{optimum['median']:.0f}",
        "found": f"{optimum['found']:.0%}",
        "seconds": f"{own['seconds']:.0f}",
      }
    )
  return rows


def _differences(found: dict) -> list[dict[str, str]]:
  """Describes the differences of each pair of strategies."""
  rows = []
  for name, other in itertools.combinations(found, 2):
    parts = found[name]["against"][other]
    rows.append(
      {
        "": name,
        "against": other,
        "evaluations to the optimum": _difference(parts["to_optimum"]),
        "signal": _difference(parts["signal"]),
        "report": _difference(parts["report"]),
      }
    )
  return rows


def _difference(part: dict) -> str:
  error, found = part["standard_error"], part["difference"]
  mark = "*" if 0 < _ERRORS * error < abs(found) else ""
  return f"{found:+.2f} ({error:.2f}){mark}"


def _pair(spread: dict, digits: int) -> str:
  return f"{spread['mean']:.{digits}f} ({spread['standard_error']:.{digits}f})"


def draw(
  curves: dict[str, Curves], file: str | os.PathLike, signal: str, report: str
) -> None:
  """Plots the means with bands of one standard error on both sides.

  Args:
    curves: {strategy: results}.
    file: the plot is written with this name and the suffixes .png and .svg.
    signal: name of the score that the search saw.
    report: name of the measurement that is reported.
  """
  figure = Figure(figsize=(9, 3.6), layout="constrained")
  panels = figure.subplots(1, 2)
  for panel, column, label in zip(
    panels, ("signal", "report"), (signal, report), strict=True
  ):
    for number, (name, own) in enumerate(curves.items()):
      colour = _COLOURS[number % len(_COLOURS)]
      _band(panel, getattr(own, column), name, colour)
    _scale(panel, [getattr(own, column) for own in curves.values()])
    panel.set_xlabel("evaluations")
    panel.set_ylabel(label)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
  panels[0].set_title("the best so far", fontsize=10)
  panels[1].set_title("the same architecture, reported", fontsize=10)
  panels[0].legend(frameon=False, fontsize=8, loc="lower right")
  path = paths.expanded(file)
  for end in (".png", ".svg"):
    figure.savefig(path.with_suffix(end), dpi=160)


def _band(panel, values: np.ndarray, name: str, colour: str) -> None:
  mean = values.mean(0)
  error = values.std(0, ddof=min(1, len(values) - 1)) / np.sqrt(len(values))
  at = np.arange(1, len(mean) + 1)
  panel.plot(at, mean, color=colour, label=name, linewidth=1.4)
  panel.fill_between(
    at, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0
  )


def _scale(panel, columns: list[np.ndarray]) -> None:
  """Leaves out the first evaluations, which would take up the whole height."""
  means = np.array([column.mean(0) for column in columns])
  shown = means[:, means.shape[1] // 20 :]
  margin = 0.05 * np.ptp(shown) or 1.0
  panel.set_ylim(shown.min() - margin, shown.max() + margin)


def summary(curves: dict[str, Curves]) -> dict:
  """Returns the figures of a comparison, JSON-like.

  Returns:
    {strategy: figures}: at each tenth evaluation the mean, the standard
    deviation and the standard error of signal and report; the evaluations to
    the optimum; and, against each other strategy, the paired difference of the
    evaluations to the optimum, of the signal and of the report at the end, with
    its standard error and the p-value of a paired t-test. A trial that never
    found the optimum counts with the budget.
  """
  return {
    name: {
      "evaluations": float(own.evaluations.mean()),
      "seconds": own.seconds,
      "to_optimum": _spread(own.to_optimum())
      | {
        "median": float(np.median(own.to_optimum())),
        "found": float((own.found > 0).mean()),
      },
      "curve": [
        {
          "evaluations": n,
          "signal": _spread(own.signal[:, n - 1]),
          "report": _spread(own.report[:, n - 1]),
        }
        for n in range(EVERY, own.signal.shape[1] + 1, EVERY)
      ],
      "against": {
        other: {
          "to_optimum": _paired(own.to_optimum(), curves[other].to_optimum()),
          "signal": _paired(own.signal[:, -1], curves[other].signal[:, -1]),
          "report": _paired(own.report[:, -1], curves[other].report[:, -1]),
        }
        for other in curves
        if other != name
      },
    }
    for name, own in curves.items()
  }


def _spread(values: np.ndarray) -> dict:
  several = len(values) > 1
  deviation = float(np.std(values, ddof=1)) if several else 0.0
  return {
    "mean": float(np.mean(values)),
    "standard_deviation": deviation,
    "standard_error": deviation / np.sqrt(len(values)),
  }


def _paired(own: np.ndarray, other: np.ndarray) -> dict:
  difference = np.subtract(own, other, dtype=np.float64)
  same = len(difference) < 2 or np.ptp(difference) == 0
  p = 1.0 if same else float(stats.ttest_1samp(difference, 0).pvalue)
  found = _spread(difference)
  return {
    "difference": found["mean"],
    "standard_error": found["standard_error"],
    "p": p,
  }
