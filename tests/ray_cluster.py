"""A Ray cluster of two nodes on this machine, in a process of its own.

It prints its address, loses the second node at the word `remove`, and ends
with its standard input.
"""

import contextlib
import os
import subprocess
import sys

LOOPBACK = {
  "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
  "RAY_USAGE_STATS_ENABLED": "0",
  # Otherwise workers are nice, and wait for all other tests.
  "RAY_worker_niceness": "0",
}


@contextlib.contextmanager
def started():
  """Yields the address and a function that removes a node."""
  process = subprocess.Popen(
    [sys.executable, "-m", "tests.ray_cluster"],
    env=os.environ | LOOPBACK,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
    start_new_session=True,
  )

  def remove():
    process.stdin.write("remove\n")
    process.stdin.flush()

  with process:
    yield process.stdout.readline().strip(), remove
    process.communicate()


def main():
  """Runs until nobody listens any more."""
  from ray.cluster_utils import Cluster

  node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
  cluster = Cluster(True, head_node_args={"include_dashboard": False, **node})
  second = cluster.add_node(**node)
  print(cluster.address, flush=True)
  for line in sys.stdin:
    if line.strip() == "remove":
      cluster.remove_node(second, allow_graceful=False)
  cluster.shutdown()


if __name__ == "__main__":
  main()
