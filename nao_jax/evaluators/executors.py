"""Choice of the executor that trains candidates from scratch."""

from collections.abc import Iterator
import contextlib
import dataclasses

from nao_jax.errors import UserError
from nao_jax.evaluators import cluster, local
from nao_jax.evaluators.remote import Remote, Resources
from nao_jax.evaluators.scratch import Executor
from nao_jax.settings import Only, field, validate, within


@dataclasses.dataclass(frozen=True)
class ExecutorConfig:
  """Executor of trainings from scratch, and the resources of each candidate.

  Attributes:
    executor: `local`, on the devices of this process; or `ray`, on a cluster.
    ray_address: with `ray`, HOST:PORT of a cluster to which this machine
      belongs; by default a cluster is started on this machine alone.
    trial_workers: with `ray`, number of candidates that train at a time; 0 for
      as many as fit.
    trial_cpus: with `ray`, processors that a worker takes.
    trial_gpus: with `ray`, GPUs that a worker takes, a fraction or 1 at most.
    trial_memory: with `ray`, memory that a worker takes, in GiB; 0 for any.
  """

  ACTS_WITH = (
    Only(
      (
        *("ray_address", "trial_workers", "trial_cpus"),
        *("trial_gpus", "trial_memory"),
      ),
      "executor",
      ("ray",),
    ),
  )

  executor: str = field("local", choices=("local", "ray"))
  ray_address: str = ""
  trial_workers: int = field(0, least=0)
  trial_cpus: float = field(1.0, above=0)
  trial_gpus: float = field(0.0, least=0, most=1)
  trial_memory: float = field(0.0, least=0)

  def check(self, evaluator: str) -> None:
    """Checks the settings before the cluster is used.

    Args:
      evaluator: name of the evaluator of the search.

    Raises:
      UserError: a setting is out of range or does not fit the evaluator, no
        cluster listens at the address, or Ray is not installed.
    """
    with within("executor", self):
      validate(self, LOCAL)
    if self.executor == "local":
      return
    if evaluator != "scratch":
      raise UserError(
        "`executor.executor=ray`: allowed only with `evaluator=scratch`, where "
        "candidates train alone"
      )
    if self.ray_address:
      cluster.reach(self.ray_address)
    cluster.check_installed()

  def check_together(self) -> None:
    """Raises UserError for a fractional number of processors above 1."""
    if self.trial_cpus > 1 and self.trial_cpus % 1:
      raise UserError(
        f"`trial_cpus={self.trial_cpus:g}`: above 1 Ray accepts whole numbers "
        "only; give a whole number"
      )

  @property
  def resources(self) -> Resources:
    """Resources that workers take from the cluster."""
    return Resources(
      self.trial_workers, self.trial_cpus, self.trial_gpus, self.trial_memory
    )


LOCAL = ExecutorConfig()


@contextlib.contextmanager
def opened(
  config: ExecutorConfig, candidates: local.Candidates
) -> Iterator[Executor]:
  """Opens the executor that the settings name; it closes with the block.

  Args:
    config: settings that passed `check`.
    candidates: a dataclass; workers of a cluster get copies with `devices=1`.

  Raises:
    UserError: no cluster answers, or it has no room for a worker.
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
