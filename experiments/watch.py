"""Shows the progress of a run from another terminal, or of all in a browser.

python -m experiments.watch --workdir=runs/digits
python -m experiments.watch --serve --workdir=runs

It works for searches and trainings that run, were stopped or have ended. On a
terminal it refreshes until the run ends or Ctrl-C. With --serve it prints the
address of a page, for this machine alone. Files are only read.
"""

import time

from absl import flags
import rich.live

from nao_jax.errors import UserError
from nao_jax.report import serving, watching
from nao_jax.runs import streams

from . import driver, settings

_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Directory of the run; with --serve a folder of runs, the current one by"
  " default.",
)
_SERVE = flags.DEFINE_boolean(
  "serve", False, "Serve a page on all runs of a folder, until Ctrl-C."
)
_PORT = flags.DEFINE_integer(
  "port",
  0,
  "With --serve: the port; a free one if 0.",
  lower_bound=0,
  upper_bound=65535,
)
settings.stands_for("workdir", "folder")
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
  if _SERVE.value:
    for flag in (_ONCE, _SECONDS):
      if flags.FLAGS[flag.name].present:
        raise UserError(f"--{flag.name}: not allowed with --serve")
    _serve()
    return
  if _PORT.value:
    raise UserError(f"--port={_PORT.value}: allowed with --serve only")
  if _WORKDIR.value is None:
    raise UserError("--workdir: give the directory of the run, or --serve")
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


def _serve() -> None:
  folder = _WORKDIR.value or "."
  with serving.server(serving.Site(folder), _PORT.value) as server:
    host, port = server.server_address
    print(
      f"runs in {folder}: http://{host}:{port}/ (Ctrl-C ends it)", flush=True
    )
    server.serve_forever()


if __name__ == "__main__":
  driver.run(main, prints_result=True)
