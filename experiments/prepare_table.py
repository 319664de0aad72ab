"""Makes a table for --table from other files.

python -m experiments.prepare_table --nats_bench=NATS-tss-v1_0-3ffb9-simple \
  --output=nasbench201.npz
python -m experiments.prepare_table --nasbench101=nasbench_only108.tfrecord \
  --output=nasbench101.npz
python -m experiments.prepare_table --table=mine.csv --output=mine.npz

The first reads the official files of NAS-Bench-201 and requires the package
nats-bench (`pip install 'nao_jax[tables]'`); the second reads an official file
of NAS-Bench-101; the third reads a table of any space in CSV or JSON. Files are
read as data; nothing in them is executed.
"""

import io

from absl import flags, logging
import numpy as np

from nao_jax.data import nasbench101, nats_bench, table_files
from nao_jax.errors import UserError
from nao_jax.runs import formats, paths
from nao_jax.runs.files import check_writable, write_bytes
from nao_jax.runs.progress import Progress

from . import driver

_NATS_BENCH = flags.DEFINE_string(
  "nats_bench", None, "Folder of NATS-Bench's topology space."
)
_TABLE = flags.DEFINE_string(
  "table", None, "A table of any space, .csv or .json, which is checked."
)
_NASBENCH101 = flags.DEFINE_string(
  "nasbench101", None, "An official file of NAS-Bench-101, .tfrecord."
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "The .npz file to write.", required=True
)


def main(_):
  """Reads all architectures and writes the table."""
  given = (_NATS_BENCH.value, _NASBENCH101.value, _TABLE.value)
  if given.count(None) != 2:
    raise UserError("--nats_bench, --nasbench101, --table: give one of them")
  if not _OUTPUT.value.endswith(".npz"):
    raise UserError(f"--output={_OUTPUT.value}: the name must end in .npz")
  check_writable(_OUTPUT.value, "output")
  if _NATS_BENCH.value is not None:
    arrays = nats_bench.read(_NATS_BENCH.value, Progress())
    columns = sorted(set(arrays) - {"ops", "op_names"})
  else:
    if _TABLE.value is not None:
      table = table_files.read(_TABLE.value)
    else:
      table = nasbench101.read(_NASBENCH101.value, Progress())
    arrays, columns = table_files.arrays(table), sorted(table.columns)
  content = io.BytesIO()
  np.savez_compressed(
    content, allow_pickle=False, format=formats.TABLE, **arrays
  )
  write_bytes(paths.expanded(_OUTPUT.value), content.getvalue())
  logging.info("%s: %s", _OUTPUT.value, ", ".join(columns))


if __name__ == "__main__":
  driver.run(main)
