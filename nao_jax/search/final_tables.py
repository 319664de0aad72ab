"""Tables of finalists and of the final comparison, for the terminal."""

from absl import logging
import numpy as np

from nao_jax.metrics import Measure
from nao_jax.runs import streams
from nao_jax.search.journal import origin_text


def show(best: dict, measure: Measure) -> None:
  """Prints the finalists, the comparison and the winner."""
  streams.show(
    _finalists_rows(best.get("finalists") or {}, measure),
    "finalists: from scratch, same budget and seed in each stage",
  )
  streams.show(
    _comparison_rows(best[f"test_{measure.name}"], measure),
    "comparison: from scratch, same budget and seeds",
  )
  console = streams.console()
  console.print(f"winner: {best['text']}", highlight=False)
  console.print(f"it came from {origin_text(best['origin'])}", highlight=False)


def show_seconds(parts: dict[str, list[float]]) -> None:
  """Prints how long the parts of a search took.

  Args:
    parts: {name: [seconds, seconds of them in which jax compiled]}.
  """
  shown = ", ".join(f"{name} {whole:.1f}" for name, (whole, _) in parts.items())
  compiling = sum(compiled for _, compiled in parts.values())
  streams.console().print(
    f"seconds: {shown}; {compiling:.1f} of them compiling", highlight=False
  )


def _finalists_rows(finalists: dict, measure: Measure) -> list[dict]:
  """Describes the finalists by rank."""
  name = f"validation_{measure.name}"
  entries = [(group, own) for group in finalists for own in finalists[group]]
  staged = any("stages" in own for _, own in entries)
  return [
    {
      "rank": entry["rank"],
      "cell": group,
      "place in the search": "" if entry["place"] is None else entry["place"],
      name.replace("_", " "): (
        "diverged"
        if entry[name] is None
        else f"{entry[name]:.{measure.digits}f}"
      ),
    }
    | ({"epochs": entry["stages"][-1][0]} if staged else {})
    for group, entry in sorted(entries, key=lambda pair: pair[1]["rank"])
  ]


def _comparison_rows(compared: dict, measure: Measure) -> list[dict]:
  """Describes the groups of the comparison that have a sound training."""
  found = []
  for group, rows in compared.items():
    values = np.array(rows, np.float64).ravel()
    diverged, values = np.isnan(values).sum(), values[~np.isnan(values)]
    if diverged:
      logging.warning("%s cells: %d trainings diverged", group, diverged)
    if len(values):
      deviation = values.std(ddof=min(1, len(values) - 1))
      found.append(
        {
          "cells": f"{len(rows)} {group}",
          "trainings": len(values),
          f"test {measure.name}": f"{values.mean():.{measure.digits}f}",
          "standard deviation": f"{deviation:.{measure.digits}f}",
        }
      )
  return found
