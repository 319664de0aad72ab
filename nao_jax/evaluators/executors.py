"""Where candidates train from scratch: the choice, and its settings."""

from collections.abc import Iterator
import contextlib
import dataclasses

from nao_jax import ranges
from nao_jax.errors import UserError
from nao_jax.evaluators import cluster, local
from nao_jax.evaluators.remote import Remote, Resources
from nao_jax.evaluators.scratch import Executor


@dataclasses.dataclass(frozen=True)
class ExecutorConfig:
  """Where candidates train from scratch, and what each of them gets.

  Attributes:
    executor: `local`, on the devices of this process; or `ray`, on a cluster.
    ray_address: with `ray`, HOST:PORT of a cluster to which this machine
      belongs; by default one is started on this machine alone.
    trial_workers: with `ray`, how many candidates train at a time; 0 for as
      many as fit.
    trial_cpus: with `ray`, processors that a worker takes.
    trial_gpus: with `ray`, GPUs that a worker takes, at most 1; may be a part.
    trial_memory: with `ray`, memory that a worker takes, in GiB; 0 for any.
  """

  executor: str = "local"
  ray_address: str = ""
  trial_workers: int = 0
  trial_cpus: float = 1.0
  trial_gpus: float = 0.0
  trial_memory: float = 0.0

  def check(self, evaluator: str) -> None:
    """What can be wrong before the cluster is asked.

    Args:
      evaluator: of the search.

    Raises:
      UserError: the message names the flag.
    """
    if self.executor not in ("local", "ray"):
      raise UserError(
        f"--executor={self.executor}: unknown; allowed: local, ray"
      )
    if self.executor == "local":
      self._check_unused()
      return
    if evaluator != "scratch":
      raise UserError(
        "--executor=ray: allowed only with --evaluator=scratch, where "
        "candidates train alone"
      )
    ranges.check(
      {
        "count or none": {"trial_workers": self.trial_workers},
        "rate": {"trial_cpus": self.trial_cpus},
        "share": {"trial_gpus": self.trial_gpus},
        "weight": {"trial_memory": self.trial_memory},
      }
    )
    if self.trial_cpus > 1 and self.trial_cpus % 1:
      raise UserError(
        f"--trial_cpus={self.trial_cpus:g}: above 1 Ray knows whole ones only; "
        "give a whole number"
      )
    if self.ray_address:
      cluster.reach(self.ray_address)
    cluster.check_installed()

  def _check_unused(self) -> None:
    for field in dataclasses.fields(self)[1:]:
      if getattr(self, field.name) != field.default:
        raise UserError(
          f"--{field.name}: says what workers get; allowed only with "
          "--executor=ray"
        )

  @property
  def resources(self) -> Resources:
    """What workers take of the cluster."""
    return Resources(
      self.trial_workers, self.trial_cpus, self.trial_gpus, self.trial_memory
    )


LOCAL = ExecutorConfig()


@contextlib.contextmanager
def opened(
  config: ExecutorConfig, candidates: local.Candidates
) -> Iterator[Executor]:
  """The executor that the settings ask for, until the end of the block.

  Args:
    config: checked.
    candidates: a dataclass; those of a cluster get copies with `devices=1`.

  Raises:
    UserError: the cluster is not there, or has no room for a worker.
  """
  if config.executor == "local":
    yield local.Local(candidates)
    return
  remote = Remote(config.ray_address, config.resources, candidates)
  try:
    remote.open()
    yield remote
  finally:
    remote.close()
