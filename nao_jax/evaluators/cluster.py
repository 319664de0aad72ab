"""Connections to Ray, which only this module imports, on demand."""

from collections.abc import Iterator
import contextlib
import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from types import ModuleType

from nao_jax.errors import UserError

_UNTIL_REACHED = 3.0  # Seconds.
# Bytes; Ray keeps small objects in its store beside the data.
_LEAST_STORE = 128 * 2**20


# A cluster of one machine, in a separate process: Ray forks, which a process
# with jax's threads should not do. The process ends when its standard input
# closes, which happens even if the parent is killed.
_NODE = """
import sys
import ray
context = ray.init(
  address="local", include_dashboard=False, object_store_memory=int(sys.argv[1])
)
print(context.address_info["address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""
# In spite of its name, this variable makes a cluster of one machine listen on
# the loopback address alone.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@contextlib.contextmanager
def connection(address: str, store: int) -> Iterator[ModuleType]:
  """Connects to Ray; a cluster started here ends with the block.

  Args:
    address: HOST:PORT of a cluster, or empty to start one.
    store: size of the shared memory of a started cluster, in bytes.

  Yields:
    The module `ray`, connected.

  Raises:
    UserError: Ray does not start, or refuses the connection.
  """
  with contextlib.ExitStack() as stack:
    stack.enter_context(_environment(address))
    ray = importlib.import_module("ray")
    if ray.is_initialized():  # The caller of this library has connected.
      yield ray
      return
    found = address or stack.enter_context(_started(max(_LEAST_STORE, store)))
    try:
      ray.init(found, log_to_driver=False, logging_level="error")
    except Exception as error:  # Causes have different types.
      raise UserError(
        f"{setting(address)}: Ray refuses ({last_line(error)})"
      ) from error
    stack.callback(ray.shutdown)
    yield ray


@contextlib.contextmanager
def _started(store: int) -> Iterator[str]:
  """Starts a cluster on this machine and yields its address."""
  process = subprocess.Popen(
    [sys.executable, "-c", _NODE, str(store)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,  # Ctrl-C is for the search.
  )
  with process:
    address = process.stdout.readline().strip()
    if not address:
      reason = process.stderr.read().strip().rpartition("\n")[2]
      raise UserError(f"`executor.executor=ray`: Ray does not start ({reason})")
    yield address
    process.communicate()


def check_installed() -> None:
  """Raises UserError if there is no Ray."""
  if importlib.util.find_spec("ray") is None:
    raise UserError(
      "`executor.executor=ray`: needs the package ray; pip install nao_jax[ray]"
    )


@contextlib.contextmanager
def _environment(address: str) -> Iterator[None]:
  """Sets the environment that Ray reads when it is imported and connects.

  The variables are removed at the end of the block.

  Args:
    address: address of the cluster; empty for a cluster started on this
      machine, whose processes inherit the environment.
  """
  before = dict(os.environ)
  os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
  if not address or _on_loopback_alone(address):
    os.environ.update(_LOOPBACK)
  if not address:
    # Other users of this machine can reach a loopback address; a token keeps
    # them out.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
  try:
    yield
  finally:
    # A process started later may use another cluster with another token.
    for name in os.environ.keys() - before.keys():
      if name.startswith("RAY_"):
        del os.environ[name]


def reach(address: str) -> None:
  """Raises UserError if nothing listens at the address."""
  host, _, port = address.rpartition(":")
  if not host or not port.isdecimal() or int(port) > 65535:
    raise UserError(f"`executor.ray_address={address}`: allowed: HOST:PORT")
  try:
    socket.create_connection((host, int(port)), _UNTIL_REACHED).close()
  except OSError as error:
    raise UserError(
      f"`executor.ray_address={address}`: nothing answers ({error}); start a "
      "cluster there with `ray start --head`, or give no address to start one "
      "on this machine"
    ) from error


def _on_loopback_alone(address: str) -> bool:
  """Returns whether a cluster listens on this machine's loopback alone."""
  host, _, port = address.rpartition(":")
  if host not in ("127.0.0.1", "localhost"):
    return False
  try:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
      probe.connect(("192.0.2.1", 9))  # Reserved address; nothing is sent.
      own = probe.getsockname()[0]
    socket.create_connection((own, int(port)), 1.0).close()
  except OSError:
    return True
  return False


def take_back_signals() -> None:
  """Replaces Ray's signal handlers, which abort the process, by Python's."""
  if threading.current_thread() is threading.main_thread():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
      signal.signal(number, signal.getsignal(number))


def setting(address: str) -> str:
  """Returns the setting that named a cluster, for messages."""
  return (
    f"`executor.ray_address={address}`"
    if address
    else "`executor.executor=ray`"
  )


def last_line(error: BaseException) -> str:
  """Returns the last line of an error; Ray's errors contain tracebacks."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[-1] if lines else type(error).__name__
