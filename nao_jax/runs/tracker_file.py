"""The file trackers.json of a workdir: what trackers hold of the run."""

import contextlib
import json
import pathlib
from typing import Any

from nao_jax.errors import without_passwords
from nao_jax.runs import files

_FILE = "trackers.json"


def known(workdir: pathlib.Path, tracker: str) -> Any:
  """Returns what is known of a tracker such as `mlflow:URI`, else None."""
  return _read(workdir).get(tracker)


def remember(workdir: pathlib.Path, tracker: str, value: Any) -> None:
  """Writes what `known` returns, JSON-like."""
  found = _read(workdir) | {tracker: value}
  files.write(workdir / _FILE, json.dumps(found, indent=2) + "\n")


def _read(workdir: pathlib.Path) -> dict[str, Any]:
  with contextlib.suppress(OSError, ValueError):
    found = json.loads((workdir / _FILE).read_text(encoding="utf-8"))
    if isinstance(found, dict):
      # Earlier versions wrote passwords.
      return {without_passwords(name): x for name, x in found.items()}
  return {}
