"""Keeps what a release leaves, for earlier_test.py of later versions.

python -m tests.keep_earlier VERSION
"""

import pathlib
import shutil
import signal
import sys
import tempfile
import time
import zipfile

from nao_jax.networks.macro import NetworkConfig
from nao_jax.tasks import image_inference
from tests import drivers
from tests.short_networks import TWO_CELLS
from tests.soak_subjects import Subject, subjects

# Name of the folder, and the run of `soak_subjects`.
RUNS = {
  "train_rnn": "train_rnn",
  "search_rnn_scratch": "search_rnn, scratch",
  "train_cnn": "train_cnn",
}
_PICTURES = (".pdf", ".png", ".svg", ".html")
_LEFT_OUT = ("events.out", ".lock")


def _run(subject: Subject, workdir: pathlib.Path) -> None:
  """Runs a driver to its end, with a copy of the workdir as it was stopped."""
  process = drivers.start(subject.driver, workdir, subject.flags)
  while process.poll() is None and not any(
    workdir.glob("checkpoints/[0-9]*/files.sha256")
  ):
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  process.communicate()
  shutil.copytree(workdir, workdir.with_name(f"{workdir.name}_stopped"))
  drivers.finish(drivers.start(subject.driver, workdir, subject.flags))


def _kept(path: pathlib.Path) -> bool:
  """Returns whether a file is small and needed."""
  if path.suffix in _PICTURES or path.name.startswith(_LEFT_OUT):
    return False
  for folder in path.parents:
    if folder.parent.name == "checkpoints":
      return int(folder.name) == max(
        int(x.name) for x in folder.parent.iterdir()
      )
  return path.is_file()


def main() -> None:
  """Runs drivers and writes tests/earlier/VERSION.zip."""
  drivers.compile_fast(1)
  NetworkConfig.cells = TWO_CELLS
  target = pathlib.Path(__file__).parent / "earlier" / f"{sys.argv[1]}.zip"
  with tempfile.TemporaryDirectory() as place:
    root = pathlib.Path(place)
    (root / "home").mkdir()
    every = subjects(root / "home")
    for name, subject in RUNS.items():
      _run(every[subject], root / name)
    image_inference.export(root / "train_cnn", root / "network.jax")
    shutil.rmtree(root / "home" / "data")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
      for path in filter(_kept, sorted(root.rglob("*"))):
        content = path.read_bytes()
        if path.suffix == ".json":
          content = content.replace(place.encode(), b"/earlier")
          content = content.replace(sys.executable.encode(), b"python")
        archive.writestr(str(path.relative_to(root)), content)


if __name__ == "__main__":
  main()
