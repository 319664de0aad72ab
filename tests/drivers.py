"""Runs drivers as processes."""

import atexit
import contextlib
import importlib.metadata
import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile

# When garbage is collected. Tracing makes many objects and no cycles to speak
# of; with Python's own threshold a quarter of its time went there.
RARELY = 50_000, 20, 20

# The compiler's emitters of fusions take a third of the time for networks and
# more for small programs. Later ones have no others, and refuse the flag.
_WITHOUT_EMITTERS = (
  ["--xla_cpu_use_fusion_emitters=false"]
  if importlib.metadata.version("jaxlib").startswith("0.10.")
  else []
)
# A process that has imported what takes two seconds, and is forked.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
  [
    "nao_jax.drawing.convolutional",
    "nao_jax.experiment",
    "nao_jax.final_training",
    "nao_jax.report.search_page",
    "nao_jax.tasks.known",
    "experiments.run_flags",
    "experiments.settings",
    "tests.short_networks",
  ]
)


def compile_fast(devices: int = 4) -> None:
  """Sets the environment of this process and of those it starts.

  jax reads it once, when it starts.

  Args:
    devices: that the processor poses as.
  """
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["XLA_FLAGS"] = " ".join(
    [
      os.environ.get("XLA_FLAGS", ""),
      f"--xla_force_host_platform_device_count={devices}",
      # Most of the time goes to compiling.
      "--xla_backend_optimization_level=0",
      "--xla_cpu_parallel_codegen_split_count=1",
      *_WITHOUT_EMITTERS,
    ]
  )
  # What one process compiles, the next one reads.
  cache = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def heed_signals() -> None:
  """Has Ctrl-C and the end of the terminal end what this process starts.

  Jobs in a shell's background ignore the one, and those of nohup the other.
  """
  if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(
  driver: str, workdir, flags: dict, *, short: bool = True
) -> subprocess.Popen:
  """Starts `experiments.DRIVER` in a directory.

  Args:
    driver: its name.
    workdir: where its run goes.
    flags: the others.
    short: have all networks be of two cells, of which workers elsewhere do not
      know.
  """
  program = (
    ["tests.short_driver", driver] if short else [f"experiments.{driver}"]
  )
  return process(*program, *_arguments(workdir, flags))


def _arguments(workdir, flags: dict) -> list[str]:
  given = flags | {"workdir": workdir}
  return [f"--{name}={value}" for name, value in given.items()]


def process(module: str, *arguments: str) -> subprocess.Popen:
  """Starts a module with the arguments of its command line."""
  return subprocess.Popen(
    [sys.executable, "-m", module, *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


class Fork:
  """A module that runs as a program in a fork; what tests use of a `Popen`.

  It does what `python -m MODULE` or `python FILE` does, but for the start of
  the interpreter and the imports, and jax keeps the environment of the first
  one.
  """

  def __init__(self, module, *arguments, streams=()):
    """Starts a module with the arguments of its command line.

    Args:
      module: its name, or the path of a program.
      *arguments: those of the command line.
      streams: files that get standard output and error, in place of
        `communicate`.
    """
    self._folder = tempfile.TemporaryDirectory()
    # They are there, too, if it is killed before it opens them.
    self._streams = [
      pathlib.Path(self._folder.name, name) for name in ("stdout", "stderr")
    ]
    for stream in self._streams:
      stream.touch()
    given = (*map(str, (module, *arguments)),)
    self._process = _FORKS.Process(
      target=_run_forked,
      args=(given, {**os.environ}, streams or self._streams),
    )
    self._process.start()

  def poll(self) -> int | None:
    """Returns the exit code, or None before the end."""
    return self._process.exitcode

  @property
  def returncode(self) -> int | None:
    """The exit code; minus the signal if one ended it."""
    return self._process.exitcode

  def send_signal(self, number: signal.Signals) -> None:
    """Sends it a signal, unless it has ended."""
    with contextlib.suppress(ProcessLookupError):
      os.kill(self._process.pid, number)

  def communicate(self) -> tuple[str, str]:
    """Waits for its end; returns standard output and error."""
    self._process.join()
    with self._folder:
      output, errors = (stream.read_text() for stream in self._streams)
    return output, errors


def _run_forked(given, environment, streams) -> None:
  """Runs a module in a fork as Python would run it in a process."""
  for number, stream in enumerate(streams, 1):
    os.dup2(os.open(stream, os.O_WRONLY | os.O_APPEND), number)
  os.environ.clear()
  os.environ.update(environment)
  sys.argv = [*given]
  try:
    if given[0].endswith(".py"):
      runpy.run_path(given[0], run_name="__main__")
    else:
      runpy.run_module(given[0], run_name="__main__", alter_sys=True)
  except Exception:
    sys.excepthook(*sys.exc_info())
    sys.exit(1)
  finally:
    atexit._run_exitfuncs()


def run(module, *arguments) -> subprocess.CompletedProcess:
  """Runs a module in a `Fork` to its end, as `subprocess.run` would."""
  process = Fork(module, *arguments)
  output, errors = process.communicate()
  return subprocess.CompletedProcess(
    [module, *arguments], process.returncode, output, errors
  )


def fork(driver: str, workdir, flags: dict) -> Fork:
  """Does the same as `start`, whose networks are short, in a `Fork`."""
  return Fork("tests.short_driver", driver, *_arguments(workdir, flags))


def finish(process: subprocess.Popen) -> tuple[str, str]:
  """Standard output and error of a process that must end well."""
  output, errors = process.communicate()
  assert process.returncode == 0, errors
  return output, errors
