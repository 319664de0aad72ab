"""The config.json of a run: its settings, and the program that wrote it.

A run may go on in a directory whose config.json has the same settings.
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

import jax

from nao_jax import __version__
from nao_jax.errors import UserError, some, without_passwords
from nao_jax.runs import files, formats, identity, json_file, paths

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def read_settings(path: str | os.PathLike, where: str = "workdir") -> dict:
  """Returns the settings of the run in a directory.

  Raises:
    UserError: there is no run, or its config.json is damaged.
  """
  file = paths.expanded(path) / "config.json"
  if not os.path.exists(file):
    raise UserError(
      f"`{where}={path}`: no run there (no {file}); give the workdir of one"
    )
  return _settings(file)


def write_or_compare(path: pathlib.Path, settings: dict) -> None:
  """Writes config.json, or checks that it has the same settings.

  Args:
    path: the directory.
    settings: JSON-like; all settings that determine the result.

  Raises:
    UserError: the directory holds a run with other settings, or a run that this
      version cannot go on with.
  """
  file = path / "config.json"
  if not file.exists():
    files.write(file, json.dumps(_config(settings), indent=2) + "\n")
  saved = _settings(file)
  unknown = (saved.keys() ^ settings.keys()) - identity.DIGESTS.keys()
  if unknown and (program := _program(file)) != _this_program():
    raise UserError(
      f"`workdir={path}`: holds a run of another version of this program, "
      f"{program} (one of the two lacks {some(sorted(unknown))}); finish "
      "it with that version, or give another `workdir`"
    )
  different = [
    name
    for name in sorted({*saved, *settings})
    if saved.get(name) != settings.get(name)
  ]
  if others := [name for name in different if name not in identity.DIGESTS]:
    differences = [
      f"{name} is {saved.get(name)!r} there and {settings.get(name)!r} here"
      for name in others[:4]
    ]
    raise UserError(
      f"`workdir={path}`: holds another run ({'; '.join(differences)}); "
      "give the same settings to resume it, or another `workdir`"
    )
  if changed := identity.why_data_differ(saved, settings, _version_of(file)):
    raise UserError(f"`workdir={path}`: {changed}")


def _program(file: pathlib.Path) -> str:
  """Describes the version and the revision that wrote a config.json."""
  revision = json.loads(file.read_bytes()).get("git")
  return _named(_version_of(file) or "of unknown version", revision)


def _this_program() -> str:
  return _named(__version__, git_revision())


def _named(version: str, revision: str | None) -> str:
  program = f"nao_jax {version}"
  return f"{program}, revision {revision}" if revision else program


def _version_of(file: pathlib.Path) -> str | None:
  """Returns the version of this program that wrote a config.json."""
  versions = json.loads(file.read_bytes()).get("versions")
  version = versions.get("nao_jax") if isinstance(versions, dict) else None
  return version if isinstance(version, str) else None


def _settings(file: pathlib.Path) -> dict:
  place, advice = f"{file}: damaged", "give another `workdir`"
  config = json_file.read(
    file, place=place, wanted="the settings of a run", advice=advice
  )
  version = _version_of(file)
  program = f"nao_jax {version}" if version else ""
  formats.check(config.get("format"), formats.WORKDIR, str(file), program)
  settings = config.get("settings")
  if not isinstance(settings, dict):
    raise UserError(f"{place}: no `settings`; {advice}")
  return identity.with_current_names(settings)


def _config(settings: dict) -> dict:
  return {
    "format": formats.WORKDIR,
    "settings": settings,
    "command": [sys.executable, *map(without_passwords, sys.orig_argv[1:])],
    "versions": {name: _version(name) for name in _PACKAGES}
    | {"nao_jax": __version__, "python": platform.python_version()},
    "devices": [device.device_kind for device in jax.local_devices()],
    "git": git_revision(),
  }


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def git_revision() -> str | None:
  """Returns the commit of this source, with `-dirty` if it was changed.

  It is None if the source is not in a git checkout.
  """
  command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    return subprocess.run(
      command,
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
  return None
