"""Comparison of a resumed run's settings and data with those it began with."""

from typing import Any

# Digests of data: {name of the setting: the data in words}.
DIGESTS = {
  "data.train": "the training part of `{}`",
  "data.test": "the test part of `{}`",
  "corpus": "the text `{}`",
  "latency_table": "the table of latencies",
}
# Settings that may hold the name of the data.
_NAMES = ("dataset", "config.dataset", "text", "config.text")

# Parts of the names of settings that earlier versions wrote: {old: new}.
_RENAMED = {
  "coding": "encoding",
  "demand": "constraint",
  "late": "max_pending",
  "trade": "multi_objective",
}


def with_current_names(settings: dict[str, Any]) -> dict[str, Any]:
  """Returns settings that an earlier version wrote, under today's names."""
  return {
    ".".join(_RENAMED.get(part, part) for part in name.split(".")): (
      with_current_names(value) if isinstance(value, dict) else value
    )
    for name, value in settings.items()
  }


def refusal(there: dict, here: dict, version: str | None) -> str | None:
  """Returns the reason why a run cannot resume with its data; None if it can.

  Args:
    there: the settings that the run began with.
    here: the current settings, which differ in digests at most.
    version: the version of the program that began the run.
  """
  changed = [
    words for key, words in DIGESTS.items() if there.get(key) != here.get(key)
  ]
  if not changed:
    return None
  if unknown := [key for key in DIGESTS if key in here and key not in there]:
    return (
      f"holds a run of nao_jax {version or 'of unknown version'}, which kept "
      f"no digest of its data ({', '.join(unknown)}), so that they cannot be "
      "compared with today's; give another `workdir`, or finish it with that "
      "version"
    )
  name = next((here[key] for key in _NAMES if key in here), "")
  parts = " and ".join(words.format(name) for words in changed)
  return (
    f"holds a run on other data: {parts} changed since it began (contents, not "
    "names, are compared); give another `workdir` for today's data, or restore "
    "the earlier data to resume the run"
  )
