"""Files of results."""

import datetime
import json
import pathlib
import re
import shlex
import sys
from typing import Any

from benchmarks import machine
from nao_jax.errors import UserError
from nao_jax.runs import files, json_file
from nao_jax.runs.config_file import git_revision

# Flags that name files or folders of this machine.
_LOCAL = ("workdir", "folder", "json", "data_dir", "compilation_cache")


def read(file: str, settings: dict[str, Any]) -> dict[str, Any]:
  """Returns the results so far, to which a benchmark adds.

  Args:
    file: path of the file, the value of `--json`; it may not exist yet.
    settings: JSON-like entries of the file that determine the others.

  Returns:
    The content of the file; `settings` if there is none.

  Raises:
    UserError: the file holds something else or results of other settings.
  """
  if not pathlib.Path(file).exists():
    return dict(settings)
  place, advice = f"--json={file}", "give another file"
  found = json_file.read(file, place=place, wanted="results", advice=advice)
  if any(found.get(name) != value for name, value in settings.items()):
    raise UserError(
      f"{place}: holds results of other settings; give the same flags to go "
      "on, or another file"
    )
  return found


def write(file: str, content: dict[str, Any]) -> None:
  """Writes results to a file, atomically; creates its folder."""
  path = pathlib.Path(file)
  path.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(content, indent=1)
  # Lists of numbers take one line each.
  text = re.sub(
    r'\[\s+([^][{}"]+?)\s+\]',
    lambda found: f"[{' '.join(found[1].split())}]",
    text,
  )
  files.write(path, text + "\n")


def table(title: str, module: str, rows: list[dict], note: str) -> dict:
  """Returns entries that `benchmarks.tables` shows as a section of a page.

  Args:
    title: title of the section.
    module: see `measured_here`.
    rows: {column: value}, with the same columns.
    note: text below the table.
  """
  return {
    "title": title,
    **measured_here(module),
    "columns": list(rows[0]),
    "rows": [list(row.values()) for row in rows],
    "note": note,
  }


def measured_here(module: str) -> dict[str, Any]:
  """Returns date, machine, command and commit of a measurement.

  Args:
    module: name of the benchmark's module. `_LOCAL` flags are left out of the
      command, and files in others are without their folders.
  """
  given = [
    re.sub(r"(?<=[=,])[^,]*/", "", argument)
    for argument in sys.argv[1:]
    if argument.lstrip("-").partition("=")[0] not in _LOCAL
  ]
  return {
    "date": datetime.date.today().isoformat(),
    "machine": machine.name(),
    "command": shlex.join(["python", "-m", module, *given]),
    "commit": git_revision(),
  }
