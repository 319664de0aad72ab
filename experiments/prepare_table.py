"""Makes a table for --table from the official files of NAS-Bench-201.

python -m experiments.prepare_table --nats_bench=NATS-tss-v1_0-3ffb9-simple \
  --output=nasbench201.npz

The files are read as data; nothing in them is executed. Requires the package
nats-bench (`pip install 'nao_jax[tables]'`).
"""

import io

from absl import flags, logging
import numpy as np

from nao_jax.data import nats_bench
from nao_jax.runs import formats, paths
from nao_jax.runs.files import check_writable, write_bytes
from nao_jax.runs.progress import Progress

from . import driver

_NATS_BENCH = flags.DEFINE_string(
  "nats_bench", None, "Folder of NATS-Bench's topology space.", required=True
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "The .npz file to write.", required=True
)


def main(_):
  """Reads all architectures and writes the table."""
  check_writable(_OUTPUT.value, "output")
  arrays = nats_bench.read(_NATS_BENCH.value, Progress())
  content = io.BytesIO()
  np.savez_compressed(
    content, allow_pickle=False, format=formats.TABLE, **arrays
  )
  write_bytes(paths.expanded(_OUTPUT.value), content.getvalue())
  columns = sorted(set(arrays) - {"ops", "op_names"})
  logging.info("%s: %s", _OUTPUT.value, ", ".join(columns))


if __name__ == "__main__":
  driver.run(main)
