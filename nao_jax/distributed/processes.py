"""Processes that train together: how they meet and communicate.

The first process runs everything: it alone reads and writes the workdir,
proposes architectures and reports. The other processes, the helpers, provide
their devices. They receive commands and compute together with the first
process, call by call, as in JAX every process takes part in a computation on
devices of several. A command precedes each of these calls; when the first
process stops, it sends a command for that, and all processes end.

Commands go through the key-value store of JAX's coordinator. They do not occupy
a device, and so there may be a long time between them.
"""

import dataclasses
import socket
import threading
import time

import jax

from nao_jax.distributed import collectives
from nao_jax.distributed.team import LOOPBACK, Team
from nao_jax.errors import UserError

# Seconds without a sign of life after which a process counts as dead, and
# seconds for which a process that ends waits for the others.
HEARTBEAT, FAREWELL = 30, 20


@dataclasses.dataclass(frozen=True)
class Rendezvous:
  """The address where processes meet, and the identity of this process.

  Attributes:
    coordinator: HOST:PORT of the first process; None to leave everything to the
      scheduler, as JAX detects it.
    count: number of processes.
    number: number of this process, from 0.
    seconds: seconds to wait for the others.
  """

  coordinator: str | None = None
  count: int | None = None
  number: int | None = None
  seconds: float = 60.0

  @property
  def address(self) -> tuple[str, int]:
    """The coordinator's host and port."""
    return _host(self.coordinator), int(self.coordinator.rpartition(":")[2])

  def check(self) -> None:
    """Raises UserError for inconsistent values."""
    if self.coordinator is None:
      return
    host, _, port = self.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
      raise UserError(
        f"`rendezvous.coordinator={self.coordinator}`: allowed: HOST:PORT of "
        "the first process"
      )
    if self.count is None or self.count < 1:
      raise UserError(
        f"`rendezvous.count={self.count}`: with `rendezvous.coordinator`, give "
        "how many processes there are"
      )
    if self.number is None or not 0 <= self.number < self.count:
      raise UserError(
        f"`rendezvous.number={self.number}`: allowed: 0 to {self.count - 1} "
        "(`rendezvous.count`), another in each process"
      )


def meet(where: Rendezvous) -> Team:
  """Joins the other processes; call it before anything touches a device.

  Args:
    where: the meeting point and this process's identity.

  Raises:
    UserError: if a process does not come.
  """
  where.check()
  jax.config.update("jax_enable_preemption_service", False)
  settings = {
    # Our own timeout ends first: at the end of its timeout JAX aborts the
    # process.
    "initialization_timeout": int(10 * where.seconds) + 60,
    "heartbeat_timeout_seconds": HEARTBEAT,
    "shutdown_timeout_seconds": FAREWELL,
  }
  if where.coordinator is not None:
    _find(where)
    settings |= {
      "coordinator_address": where.coordinator,
      "num_processes": where.count,
      "process_id": where.number,
    }
    if where.address[0] in LOOPBACK:
      settings["coordinator_bind_address"] = where.coordinator
  _initialize(settings, where)
  # The store has no public name; orbax accesses it in the same way.
  from jax._src import distributed

  state = distributed.global_state
  host, _, port = state.coordinator_address.rpartition(":")
  host = host.strip("[]")
  collectives.listen_at(collectives.own_address(host, int(port)), state.client)
  return Team(state.client, host)


def _initialize(settings: dict, where: Rendezvous) -> None:
  """Waits for all processes, but only for the allowed time."""
  failed = []

  def initialize():
    try:
      jax.distributed.initialize(**settings)
    except Exception as error:  # Schedulers raise different types.
      failed.append(error)

  waiting = threading.Thread(target=initialize, daemon=True)
  waiting.start()
  waiting.join(where.seconds)
  place = "`rendezvous`"
  if where.coordinator is not None:
    place = f"`rendezvous.coordinator={where.coordinator}`"
  if waiting.is_alive():
    raise UserError(
      f"{place}: not all processes came within {where.seconds:g} s; start as "
      "many as `rendezvous.count` says, each with its `rendezvous.number`"
    )
  if failed and where.coordinator is None:
    raise UserError(
      f"{place}: no SLURM, Open MPI or Cloud TPU was found to connect the "
      f"processes ({failed[0]}); give `rendezvous.coordinator`, "
      "`rendezvous.count` and `rendezvous.number`"
    )
  if failed:
    raise UserError(f"{place}: {failed[0]}")


def _host(address: str) -> str:
  return address.rpartition(":")[0].strip("[]")


def _find(where: Rendezvous) -> None:
  """Raises UserError if the coordinator cannot be reached or started."""
  what = f"`rendezvous.coordinator={where.coordinator}`"
  if where.number == 0:
    try:
      host, port = where.address
      with socket.create_server((host if host in LOOPBACK else "", port)):
        return
    except OSError as error:
      raise UserError(
        f"{what}: the first process cannot listen there ({error.strerror}); "
        "give a free port"
      ) from error
  end = time.monotonic() + where.seconds
  while True:
    try:
      with socket.create_connection(where.address, timeout=1):
        return
    except OSError as error:
      if time.monotonic() > end:
        raise UserError(
          f"{what}: nothing answers there after {where.seconds:g} s ({error}); "
          "is the first process (`rendezvous.number=0`) running, and can this "
          "machine reach it?"
        ) from error
      time.sleep(0.2)
