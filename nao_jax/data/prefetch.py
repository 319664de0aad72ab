"""Prefetching of batches by worker processes."""

import atexit
from collections.abc import Callable, Iterator
from concurrent import futures
import contextlib
import itertools
import multiprocessing
from multiprocessing import resource_tracker
import signal
import traceback
import weakref

from nao_jax.data.images import Examples
from nao_jax.errors import UserError
from nao_jax.runs import environment

_Make = Callable[[int], Examples]

_GUARD = (
  'a script that streams images needs `if __name__ == "__main__":` around its '
  "work, as each worker process imports the script; or no workers: 0 in "
  "`stream.workers`"
)
# Time to wait for a process that no longer answers.
_SECONDS_TO_END = 10.0


def iterate(make: _Make, numbers: range, workers: int) -> Iterator[Examples]:
  """Yields batches by number, while the next ones are being made.

  Args:
    make: makes the batch of a number; with workers, it must be possible to
      pickle it.
    numbers: the numbers of the batches.
    workers: number of processes that make batches; 0 for this process alone.

  Raises:
    UserError: during the iteration, if a worker died; exceptions of `make` are
      raised, too.
  """
  if workers:
    environment.leave_if_imported()
    made = _made_by_workers(make, numbers, workers)
  else:
    made = (make(number) for number in numbers)
  iterator = _one_ahead(made)
  # An iterator still open at the end of the program would otherwise be closed
  # after the modules that it needs are gone.
  reference = weakref.ref(iterator)
  atexit.register(lambda: reference() and reference().close())
  return iterator


def _one_ahead(made) -> Iterator[Examples]:
  """Yields the elements of a generator; a thread fetches the next one ahead."""
  with contextlib.closing(made), futures.ThreadPoolExecutor(1) as thread:
    coming = thread.submit(next, made, None)
    while (examples := coming.result()) is not None:
      coming = thread.submit(next, made, None)
      yield examples


def _made_by_workers(
  make: _Make, numbers: range, workers: int
) -> Iterator[Examples]:
  """Yields the batches, from each worker in turn."""
  # Ctrl-C reaches all processes, but the training's own process ends the
  # workers; so the signal is blocked in them, which they inherit from the
  # thread that starts them. The resource tracker starts with the first worker,
  # and would lift the block.
  resource_tracker.ensure_running()
  signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  with contextlib.ExitStack() as stack:
    started = [
      stack.enter_context(_worker(make, numbers[first::workers]))
      for first in range(workers)
    ]
    for _, (process, receiver) in zip(
      numbers, itertools.cycle(started), strict=False
    ):
      yield _next(process, receiver, workers)


@contextlib.contextmanager
def _worker(make: _Make, numbers: range):
  """Starts a process that makes batches; yields it and the pipe for reading.

  grain's own mp_prefetch (0.2.18) fails if absl has not parsed flags, and
  leaves shared memory behind at the end. A worker with a pipe of its own ends
  when the pipe's reader is gone, however the training ended.
  """
  context = multiprocessing.get_context("spawn")
  receiver, sender = context.Pipe(duplex=False)
  arguments = (make, numbers, sender)
  process = context.Process(target=_send, args=arguments, daemon=True)
  with receiver:
    process.start()
    sender.close()
    try:
      yield process, receiver
    finally:
      process.terminate()
      process.join()


def _next(process, receiver, workers: int) -> Examples:
  try:
    received = receiver.recv()
  except (EOFError, OSError) as error:
    process.join(_SECONDS_TO_END)
    if process.exitcode == environment.IMPORTED:
      raise UserError(_GUARD) from error
    if (process.exitcode or 0) > 0:
      # An exception in making a batch would have been sent through the pipe.
      raise UserError(
        f"a worker process could not start (exit code {process.exitcode}): "
        f"{_GUARD}"
      ) from error
    raise UserError(
      f"`stream.workers={workers}`: a worker process died, for lack of memory"
      " perhaps; give fewer"
    ) from error
  if isinstance(received, Exception):
    raise received
  return received


def _send(make: _Make, numbers: range, sender) -> None:
  """Makes and sends batches; runs in a worker process."""
  with contextlib.suppress(BrokenPipeError):
    try:
      for number in numbers:
        sender.send(make(number))
    except Exception as error:
      error.add_note(traceback.format_exc())
      sender.send(error)
