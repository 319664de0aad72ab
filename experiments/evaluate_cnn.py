"""Measures a network that experiments.train_cnn trained, or exports it.

python -m experiments.evaluate_cnn --workdir=DIR
python -m experiments.evaluate_cnn --workdir=DIR --export=network.jax
python -m experiments.evaluate_cnn --workdir=DIR --export=network.onnx
"""

import json

from absl import flags

from nao_jax.tasks import image_inference

from . import driver, run_flags, settings

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of the training.", required=True
)
_DATA_DIR = run_flags.data_dir()
_DATASET = flags.DEFINE_string(
  "dataset", None, "Data set to measure on; the training's by default."
)
_SPLIT = flags.DEFINE_string(
  "split", None, "Its split; the training's test split by default."
)
settings.stands_for("export", "file")
_DEVICES = run_flags.devices()
_EXPORT = flags.DEFINE_string(
  "export",
  None,
  "File to write the network to, for jax and flatbuffers (.jax) or for ONNX"
  " runtimes (.onnx); nothing is measured.",
)


def main(_):
  """Measures or exports the network."""
  if _EXPORT.value is not None:
    image_inference.export(_WORKDIR.value, _EXPORT.value)
    return
  measured = image_inference.evaluate(
    _WORKDIR.value,
    data_dir=_DATA_DIR.value,
    dataset=_DATASET.value,
    split=_SPLIT.value,
    devices=_DEVICES.value,
  )
  print(json.dumps(measured))


if __name__ == "__main__":
  driver.run(main, prints_result=True)
