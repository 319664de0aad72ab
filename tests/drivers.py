"""Runs drivers as processes, and kills them."""

import os
import pathlib
import signal
import subprocess
import sys
import time


def start(driver: str, workdir, flags: dict) -> subprocess.Popen:
  """Starts `experiments.DRIVER` in a directory."""
  given = flags | {"workdir": workdir}
  return subprocess.Popen(
    [sys.executable, "-m", f"experiments.{driver}"]
    + [f"--{name}={value}" for name, value in given.items()],
    env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process: subprocess.Popen) -> tuple[str, str]:
  """Standard output and error of a process that must end well."""
  output, errors = process.communicate()
  assert process.returncode == 0, errors
  return output, errors


def whole_and_killed(
  driver: str, folder: pathlib.Path, flags: dict
) -> tuple[pathlib.Path, pathlib.Path, str, str]:
  """Runs a driver, and the same one killed after its first checkpoint.

  Args:
    driver: its name; it saves checkpoints.
    folder: where both runs go.
    flags: of both.

  Returns:
    The two workdirs, and what the killed one said when it went on.
  """
  whole, killed = folder / "whole", folder / "killed"
  finish(start(driver, whole, flags))
  process = start(driver, killed, flags)
  while process.poll() is None:
    if list(killed.glob("checkpoints/*/commit_success.txt")):
      process.send_signal(signal.SIGKILL)
    time.sleep(0.01)
  process.communicate()
  assert process.returncode == -signal.SIGKILL
  output, errors = finish(start(driver, killed, flags))
  results = [(path / "result.json").read_text() for path in (whole, killed)]
  assert results[0] == results[1]
  return whole, killed, output, errors
