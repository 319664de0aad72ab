"""Makes a data set for searches or trainings from images of one's own.

python -m experiments.prepare_images --npz=FILE --name=cifar10 --data_dir=DIR

--npz takes arrays {train,test}_images and {train,test}_labels, or encoded
images {train,test}_bytes, _offsets and _labels; --folder takes
FOLDER/{train,test}/CLASS/*.png (or .jpg), or FOLDER/CLASS/*.png with
--test_fraction; --csv a table of paths and labels; --arrow a Hugging Face data
set that `save_to_disk` wrote. With --keep_sizes, image files are
stored as they are, to be streamed: photographs of any size.
"""

from absl import flags, logging

from nao_jax.data import listed, prepare, sources
from nao_jax.data.split import Split
from nao_jax.errors import UserError

from . import driver

_NPZ = flags.DEFINE_string("npz", None, "NumPy archive to read.")
_FOLDER = flags.DEFINE_string("folder", None, "Folder of images to read.")
_CSV = flags.DEFINE_string(
  "csv", None, "CSV file to read, with columns path, label and perhaps split."
)
_ARROW = flags.DEFINE_string(
  "arrow", None, "Folder of a Hugging Face data set to read."
)
_TEST_FRACTION = flags.DEFINE_float(
  "test_fraction",
  None,
  "Share of each class for the test part, where images have no parts yet.",
)
_SPLIT_SEED = flags.DEFINE_integer(
  "split_seed", 0, "With --test_fraction: seed of the division.", lower_bound=0
)
_SIZE = flags.DEFINE_integer(
  "size", None, "Resize images to this height and width; not with --npz."
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
  given = {
    flag.name: flag.value
    for flag in (_NPZ, _FOLDER, _CSV, _ARROW)
    if flag.value is not None
  }
  if len(given) != 1:
    raise UserError(
      "--npz, --folder, --csv, --arrow: exactly one of them has to be given"
    )
  ((kind, path),) = given.items()
  if kind == "npz":
    for flag in (_SIZE, _TEST_FRACTION):
      if flag.value is not None:
        raise UserError(f"--{flag.name}={flag.value}: not allowed with --npz")
    return sources.from_npz(path)
  fraction = _TEST_FRACTION.value
  if fraction is None and flags.FLAGS[_SPLIT_SEED.name].present:
    raise UserError(
      f"--split_seed={_SPLIT_SEED.value}: acts only with --test_fraction"
    )
  split = None if fraction is None else Split(fraction, _SPLIT_SEED.value)
  if kind == "csv":
    return listed.from_csv(path, split, size=_SIZE.value)
  if kind == "arrow":
    return listed.from_arrow(path, split, size=_SIZE.value)
  if split is None:
    return sources.from_folder(path, size=_SIZE.value)
  return sources.from_classes(path, split, size=_SIZE.value)


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
