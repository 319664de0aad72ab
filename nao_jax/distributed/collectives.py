"""The address at which gloo listens, for collectives between CPUs.

JAX lets gloo listen at the address to which this machine's own name resolves.
In containers, and wherever /etc/hosts lacks the name, it does not resolve, and
JAX fails; on many installations of Debian and Ubuntu it resolves to 127.0.1.1,
which no other machine can reach.
The address from which this process reaches the coordinator is one at which the
other processes can reach it, unless the coordinator's name resolves to a
loopback address here; then it is the address that leads out of this machine.
"""

import contextlib
import ipaddress
import socket
from typing import Any

import jax

# Addresses of no machine, reserved for documentation.
_OUTSIDE = ("192.0.2.1", "2001:db8::1")


def own_address(host: str, port: int) -> str:
  """Returns the address at which the processes of a run reach this one.

  It is the address from which this machine reaches the coordinator's. Nothing
  is sent.

  Args:
    host: name or address of the coordinator's machine, which may be this one.
    port: any port.

  Returns:
    A numeric address, IPv4 or IPv6.

  Raises:
    OSError: the host is unknown or cannot be reached.
  """
  address = _source(host, port)
  if _is_loopback(address) and not _is_loopback(host):
    # On the coordinator's machine, /etc/hosts may give its name 127.0.1.1.
    for outside in _OUTSIDE:
      with contextlib.suppress(OSError):
        return _source(outside, port)
  return address


def _source(host: str, port: int) -> str:
  """Returns the address from which this machine reaches another one."""
  addresses = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
  for family, kind, _, _, address in addresses:
    with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
      probe.connect(address)
      return probe.getsockname()[0]
  raise OSError(f"this machine cannot reach {host}")


def _is_loopback(host: str) -> bool:
  with contextlib.suppress(ValueError):
    return ipaddress.ip_address(host).is_loopback
  return host == "localhost"


def listen_at(address: str, client: Any) -> None:
  """Makes collectives between CPUs listen at an address of this machine.

  Call it after `jax.distributed.initialize` and before the first use of a
  device. Collectives other than gloo are left as they are.

  Args:
    address: a name or a numeric address.
    client: the client of JAX's coordination service.
  """
  # JAX offers no way to pass gloo an address, and no public function to make
  # the CPU client.
  from jax._src import xla_bridge
  from jaxlib import _jax

  if jax.config.jax_cpu_collectives_implementation != "gloo":
    return

  def make_client():
    gloo = _jax.make_gloo_tcp_collectives(client, hostname=address)
    return xla_bridge.make_cpu_client(gloo)

  xla_bridge.register_backend_factory(
    "cpu", make_client, priority=0, fail_quietly=False
  )
