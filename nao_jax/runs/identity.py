"""Names of saved settings, and reasons why a run's data differ.

Data are compared by their digests, which are part of the settings of a run.
"""

from typing import Any

# Digests of data: {name of the setting: the data in words}.
DIGESTS = {
  "data.train": "the training part{}",
  "data.test": "the test part{}",
  "corpus": "the text{}",
  "latency_table": "the table of latencies",
}
# Settings that may hold the name of the data.
_NAMES = ("dataset", "config.dataset", "text", "config.text")

# Settings of searches that earlier versions wrote: {old name: new name}. The
# last three are in the nested settings of `search.run`.
_RENAMED = {
  "coding": "encoding",
  "search.late": "search.max_pending",
  "demand.limit": "constraint.limit",
  "demand.objectives": "constraint.objectives",
  "demand.limit_penalty": "constraint.limit_penalty",
  "demand.latency_table": "constraint.latency_table",
  "demand": "constraint",
}
_RENAMED_INSIDE = {
  "search": {"late": "max_pending"},
  "constraint": {"trade": "multi_objective"},
}


def with_current_names(settings: dict[str, Any]) -> dict[str, Any]:
  """Returns settings that an earlier version wrote, under today's names.

  Settings of today are returned as they are, as users' own tasks may have
  settings of the old names.
  """
  sizes = {name for name in settings if name.startswith("search.")}
  if isinstance(nested := settings.get("search"), dict):
    sizes |= {f"search.{name}" for name in nested}
  if not sizes or "search.max_pending" in sizes:
    return settings
  renamed = {_RENAMED.get(name, name): x for name, x in settings.items()}
  for name, inside in _RENAMED_INSIDE.items():
    if isinstance(nested := renamed.get(name), dict):
      renamed[name] = {inside.get(key, key): x for key, x in nested.items()}
  if "encoding" in renamed:
    renamed["space"] = "nao"  # The only one at that time.
  return renamed


def why_data_differ(
  saved: dict[str, Any], current: dict[str, Any], version: str | None = None
) -> str | None:
  """Returns why a run cannot resume with its data; None if it can.

  Args:
    saved: the settings that the run began with.
    current: the current settings, which differ in digests at most.
    version: the version of nao_jax that began the run.
  """
  changed = [
    words
    for key, words in DIGESTS.items()
    if saved.get(key) != current.get(key)
  ]
  if not changed:
    return None
  missing = [key for key in DIGESTS if key in current and key not in saved]
  if missing:
    return (
      f"holds a run of nao_jax {version or 'of unknown version'}, which saved "
      f"no digest of its data ({', '.join(missing)}), so it is unknown whether "
      "the data have changed; give another `workdir`, or finish the run with "
      "that version"
    )
  name = next((current[key] for key in _NAMES if current.get(key)), "")
  of_name = f" of {name}" if name else ""
  parts = " and ".join(words.format(of_name) for words in changed)
  return (
    f"holds a run on other data: {parts} changed since it began (contents, not "
    "names, are compared); give another `workdir` for the current data, or "
    "restore the earlier data to resume the run"
  )
