"""Agreement of cheap scores of architectures with their true scores.

A correlation over all architectures mostly tells bad from middling ones, while
a search needs the order of good ones. Agreement is therefore measured over all,
among the truly better half and among the truly best tenth; and by the true
scores of the architectures with the highest cheap scores.

Shapes: N architectures, S seeds.
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np
from scipy import stats

# Names of the parts, and the quantile of the true scores where each begins.
PARTS = {"all": 0.0, "better half": 0.5, "best tenth": 0.9}
# Number of architectures with the highest cheap scores.
TOP = 10
_COLOURS, _GREY = ("#d55e00", "#0072b2", "#009e73"), "#777777"


class Agreement(NamedTuple):
  """Agreement of cheap with true scores.

  Attributes:
    kendall: Kendall's tau-b in each of `PARTS`; NaN if all scores are equal.
    spearman: Spearman's rho in each of `PARTS`.
    first: true score of the architecture with the highest cheap score.
    top_mean: mean true score of the `TOP` architectures by cheap scores.
    top_best: best true score of these.
  """

  kendall: dict[str, float]
  spearman: dict[str, float]
  first: float
  top_mean: float
  top_best: float

  @property
  def figures(self) -> dict[str, float]:
    """All numbers, by name."""
    return (
      {f"Kendall, {part}": value for part, value in self.kendall.items()}
      | {f"Spearman, {part}": value for part, value in self.spearman.items()}
      | {
        "true score of the first": self.first,
        f"of the first {TOP}: mean": self.top_mean,
        "best": self.top_best,
      }
    )


def agreement(scores: np.ndarray, truth: np.ndarray) -> Agreement:
  """Compares cheap scores with true ones.

  Args:
    scores: [N]; higher is better. Among equal ones the first counts as the
      best.
    truth: [N]; higher is better.
  """
  scores, truth = np.asarray(scores, float), np.asarray(truth, float)
  kendall, spearman = {}, {}
  for part, quantile in PARTS.items():
    chosen = truth >= np.quantile(truth, quantile)
    kendall[part], spearman[part] = correlations(scores[chosen], truth[chosen])
  top = truth[np.argsort(-scores, kind="stable")[:TOP]]
  return Agreement(
    kendall, spearman, float(top[0]), float(top.mean()), float(top.max())
  )


def correlations(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
  """Returns Kendall's tau-b and Spearman's rho; NaN if all values are equal.

  Args:
    one: [N].
    other: [N].
  """
  if not np.ptp(one) or not np.ptp(other):
    return float("nan"), float("nan")
  return (
    float(stats.kendalltau(one, other).statistic),
    float(stats.spearmanr(one, other).statistic),
  )


def interval(values: Sequence[float]) -> tuple[float, float]:
  """Returns the mean over seeds and half its 95 % confidence interval.

  The interval is Student's; it is NaN for one seed.

  Args:
    values: [S].
  """
  values = np.asarray(values, float)
  if len(values) < 2:
    return float(values.mean()), float("nan")
  error = values.std(ddof=1) / len(values) ** 0.5
  return float(values.mean()), float(
    error * stats.t.ppf(0.975, len(values) - 1)
  )


def shown(values: Sequence[float]) -> str:
  """Formats `interval` as "mean (half)".

  Args:
    values: [S].
  """
  mean, half = interval(values)
  digits = 3 if abs(mean) <= 1 else 2
  text = f"{mean:.{digits}f}"
  return text if np.isnan(half) else f"{text} ({half:.{digits}f})"


def picture(
  runs: Sequence[dict[str, Sequence[float]]], truth: np.ndarray
) -> Figure:
  """Draws true against cheap scores, and Kendall's tau by epoch.

  Args:
    runs: for each seed, {epoch: cheap scores [N]}; the last scores of the first
      seed are drawn against the true ones.
    truth: [N].
  """
  figure = Figure(figsize=(8.8, 3.4), layout="constrained")
  left, right = figure.subplots(1, 2)
  _draw_scores(left, np.array(list(runs[0].values())[-1]), truth)
  for part, colour in zip(PARTS, _COLOURS, strict=True):
    taus = {
      int(epoch): [agreement(run[epoch], truth).kendall[part] for run in runs]
      for epoch in runs[0]
    }
    means, halves = np.array([*map(interval, taus.values())]).T
    right.plot(list(taus), means, "o-", color=colour, label=part)
    if np.isfinite(halves).all():
      low, high = means - halves, means + halves
      right.fill_between(list(taus), low, high, color=colour, alpha=0.2)
  right.axhline(0, color=_GREY, linewidth=0.8)
  right.set(xlabel="epoch", ylabel="Kendall's tau with true scores")
  right.legend(frameon=False)
  return figure


def _draw_scores(axes: Axes, scores: np.ndarray, truth: np.ndarray) -> None:
  good = truth >= np.quantile(truth, PARTS["better half"])
  for chosen, colour, label in (
    (~good, _GREY, "worse half"),
    (good, _COLOURS[1], "better half"),
  ):
    axes.scatter(scores[chosen], truth[chosen], 8, colour, label=label)
  axes.set(xlabel="score with shared weights", ylabel="true score")
  # Cells that learn nothing would leave no room for the others.
  axes.set_ylim(np.quantile(truth, 0.03) - 1, truth.max() + 0.5)
  axes.legend(frameon=False)
