"""Where candidates train from scratch: the choice, and its settings."""

from collections.abc import Iterator
import contextlib
import dataclasses

from nao_jax.errors import UserError
from nao_jax.evaluators import cluster, local
from nao_jax.evaluators.remote import Remote, Resources
from nao_jax.evaluators.scratch import Executor, FromScratch
from nao_jax.metrics import ACCURACY, Measure
from nao_jax.runs.trials import Trials
from nao_jax.settings import Only, field, validate, within
from nao_jax.spaces.space import Space


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
    """What can be wrong before the cluster is asked.

    Args:
      evaluator: of the search.

    Raises:
      UserError: the message names the flag.
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
    """Refuses a part of a processor beside whole ones."""
    if self.trial_cpus > 1 and self.trial_cpus % 1:
      raise UserError(
        f"`trial_cpus={self.trial_cpus:g}`: above 1 Ray knows whole ones only; "
        "give a whole number"
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


@contextlib.contextmanager
def from_scratch(
  config: ExecutorConfig,
  candidates: local.Candidates,
  space: Space,
  trials: Trials,
  *,
  prune: bool = False,
  measure: Measure = ACCURACY,
) -> Iterator[FromScratch]:
  """The evaluator that trains candidates there; see `opened`, `FromScratch`."""
  with opened(config, candidates) as executor:
    yield FromScratch(space, executor, trials, prune, measure)
