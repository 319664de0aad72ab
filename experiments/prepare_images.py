"""Makes a data set for searches or trainings from an npz file or a folder.

python -m experiments.prepare_images --npz=FILE --name=cifar10 --data_dir=DIR

--npz takes arrays {train,test}_images and {train,test}_labels, or encoded
images {train,test}_bytes, _offsets and _labels; --folder takes
FOLDER/{train,test}/CLASS/*.png (or .jpg). With --keep_sizes, image files are
stored as they are, to be streamed: photographs of any size.
"""

from absl import flags, logging

from nao_jax.data import prepare, sources
from nao_jax.errors import UserError

from . import driver

_NPZ = flags.DEFINE_string("npz", None, "NumPy archive to read.")
_FOLDER = flags.DEFINE_string("folder", None, "Folder of images to read.")
_SIZE = flags.DEFINE_integer(
  "size", None, "With --folder: resize images to this height and width."
)
_KEEP_SIZES = flags.DEFINE_boolean(
  "keep_sizes", False, "Store image files as they are, for streaming."
)
_NAME = flags.DEFINE_string(
  "name", None, "Name of the new data set.", required=True
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Directory of data sets.", required=True
)


def _source() -> sources.Source:
  if (_NPZ.value is None) == (_FOLDER.value is None):
    raise UserError("--npz, --folder: exactly one of them has to be given")
  if _FOLDER.value is not None:
    return sources.from_folder(_FOLDER.value, size=_SIZE.value)
  if _SIZE.value is not None:
    raise UserError(f"--size={_SIZE.value}: allowed only with --folder")
  return sources.from_npz(_NPZ.value)


def main(_):
  """Reads the source and stores it."""
  directory = prepare.prepare(
    _source(),
    name=_NAME.value,
    data_dir=_DATA_DIR.value,
    keep_sizes=_KEEP_SIZES.value,
  )
  logging.info("prepared %s", directory)


if __name__ == "__main__":
  driver.run(main)
