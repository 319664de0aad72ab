"""Shows the progress of a run from another terminal.

python -m experiments.watch --workdir=runs/digits

It works for searches and trainings that run, were stopped or have ended. On a
terminal it refreshes until the run ends or Ctrl-C. Files are only read.
"""

import time

from absl import flags
import rich.live

from nao_jax.errors import UserError
from nao_jax.report import watching
from nao_jax.runs import streams

from . import driver

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of the run.", required=True
)
_ONCE = flags.DEFINE_boolean(
  "once", False, "Show the state once; always so without a terminal."
)
_SECONDS = flags.DEFINE_float(
  "seconds", 1.0, "Seconds between two updates.", lower_bound=0.1
)


def main(_):
  """Shows the run."""
  # NaN is not below a bound.
  if not _SECONDS.value < float("inf"):
    raise UserError(f"`seconds={_SECONDS.value}`: allowed: 0.1 or more")
  snapshot = watching.snapshot(_WORKDIR.value)
  console = streams.console(wide=120)
  if _ONCE.value or not console.is_terminal or not snapshot.running:
    console.print(watching.render(snapshot))
    return
  with rich.live.Live(
    watching.render(snapshot), console=console, auto_refresh=False
  ) as live:
    while snapshot.running:
      time.sleep(_SECONDS.value)
      snapshot = watching.snapshot(_WORKDIR.value)
      live.update(watching.render(snapshot), refresh=True)


if __name__ == "__main__":
  driver.run(main, prints_result=True)
