"""Two processes are as good as one, and end together."""

import contextlib
import ipaddress
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest

from nao_jax.distributed import collectives, team
from nao_jax.distributed.collectives import own_address
from nao_jax.distributed.processes import Rendezvous, meet
from nao_jax.errors import UserError
from nao_jax.runs import checkpoint, watch
from nao_jax.search.pool_parts import PoolParts
from nao_jax.search.state import SearchState
from tests import team_work, trees

# Seconds; for machines with much other work.
LIMIT = 180


def _free_port() -> int:
  with socket.create_server(("127.0.0.1", 0)) as server:
    return server.getsockname()[1]


def _start(*arguments, before=()):
  """Starts Python with two devices; `before` is a command that starts it."""
  flags = os.environ["XLA_FLAGS"].replace("_count=4", "_count=2")
  return subprocess.Popen(
    [*before, sys.executable, *map(str, arguments)],
    env=os.environ | {"XLA_FLAGS": flags},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _start_two(workdir):
  port = _free_port()
  return [
    _start("-m", "tests.team_work", port, number, workdir) for number in (0, 1)
  ]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
  """The search in this process, on four devices: its pool and its workdir."""
  workdir = tmp_path_factory.mktemp("one") / "run"
  return team_work.run(team_work.evaluator(), workdir), workdir


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
  """A workdir of two processes, one of which was killed; how the other ended.

  That is its exit code and its words.
  """
  workdir = tmp_path_factory.mktemp("two") / "run"
  team_work.write_text(workdir.parent)
  first, second = _start_two(workdir)
  while not list(workdir.glob("checkpoints/1")) and first.poll() is None:
    time.sleep(0.05)
  second.kill()
  (_, errors), _ = _end([first, second])
  return workdir, first.returncode, errors


def _end(processes, limit=LIMIT) -> list[tuple[str, str]]:
  """Returns the output of processes, once all of them have ended."""
  try:
    return [process.communicate(timeout=limit) for process in processes]
  finally:
    for process in processes:
      with process:
        process.kill()


def test_strangers_at_the_door_end_nothing(monkeypatch):
  ended = []
  monkeypatch.setattr(watch.os, "_exit", ended.append)
  first = watch.Watch()
  port, token = first.others("127.0.0.1")
  for said in (b"", b"GET / HTTP/1.1", b"0" * (len(token) + 4)):
    with socket.create_connection(("127.0.0.1", port)) as stranger:
      stranger.sendall(said)
      stranger.shutdown(socket.SHUT_WR)
      # It is sent away.
      assert not stranger.recv(1)
  assert not ended
  first.end()


@pytest.mark.parametrize("leaver", [0, 1])
def test_who_leaves_with_an_error_ends_one_that_cannot_hear_it(
  leaver, monkeypatch, capfd
):
  ended, left = queue.Queue(), queue.Queue()
  monkeypatch.setattr(watch.os, "_exit", ended.put)
  monkeypatch.setattr(watch, "_GRACE", 0.01)
  watches = [watch.Watch(lambda: left.put("well")) for _ in range(2)]
  port, token = watches[0].others("127.0.0.1")
  watches[1].first(("127.0.0.1", port), token, 1)
  while ended.empty():
    # Until they have found each other.
    watches[leaver].leave("a worker died")
    time.sleep(0.01)
  assert ended.get() == 2
  assert left.get(timeout=LIMIT) == "well"
  expected = f"error: process {leaver} ended (a worker died"
  assert capfd.readouterr().err.startswith(expected)
  watches[1 - leaver].end()


@pytest.mark.parametrize("first", [True, False])
def test_a_failed_collective_gives_the_watch_time_to_say_why(
  first, monkeypatch
):
  """Otherwise what comes first decides whether the loss has its word."""
  steps = []
  monkeypatch.setattr(team.time, "sleep", lambda _: steps.append("wait"))
  one = object.__new__(team.Team)
  one._interruption = contextlib.nullcontext()
  one._watch = types.SimpleNamespace(
    begin=lambda: None, leave=lambda text: steps.append("leave")
  )
  one._pass_on = lambda over: None
  one.send = lambda *_, **__: steps.append("send")

  def fail():
    raise jax.errors.JaxRuntimeError("connection closed by peer")

  def take_part():
    if not first:
      return one.help({})
    with one.leading():
      fail()

  one.receive = fail
  with pytest.raises(jax.errors.JaxRuntimeError):
    take_part()
  assert steps[0] == "wait"
  assert steps[-1] == "leave"


def test_a_killed_process_ends_the_other_with_a_word(killed):
  _, code, errors = killed
  assert code == 2
  assert "error: process 1 is gone, and so this one ends" in errors
  assert "Traceback" not in errors


@pytest.fixture(scope="module")
def two(killed):
  """Runs the same command again: the output of both, and the workdir.

  They reach the last training, which meets damaged images.
  """
  processes = _start_two(killed[0])
  said = _end(processes, 3 * LIMIT)
  for process, (_, errors) in zip(processes, said, strict=True):
    assert process.returncode == 2, errors
  return said, killed[0]


def test_damaged_images_of_one_process_end_all_with_a_word_on_them(two):
  (_, first), (_, second) = two[0]
  assert f"\nerror: process 1 cannot go on: {team_work.DAMAGED}" in f"\n{first}"
  assert f"\nerror: {team_work.DAMAGED}" in f"\n{second}"
  for errors in (first, second):
    assert errors.count("error: ") == 1
    assert "Traceback" not in errors


def _state(workdir, pool):
  """The search at its end."""
  state = team_work.evaluator().init(jax.random.key(0))
  template = SearchState(0, pool, state, ())
  found = checkpoint.restore(workdir / "checkpoints", template)
  parts = PoolParts(workdir / "pool")
  return found._replace(pool=parts.whole(int(found.round), found.pool))


def test_the_same_commands_go_on_to_the_end_of_one_process(one, two):
  pool, workdir = one
  found = _state(two[1], pool)
  for name in ("tokens", "origins", "alive", "scores"):
    np.testing.assert_array_equal(
      getattr(found.pool, name), getattr(pool, name), err_msg=name
    )
  expected = _state(workdir, pool).evaluator.supernet.params
  found = found.evaluator.supernet.params
  trees.assert_close(found, expected, share=1e-4, atol=1e-7)


@pytest.mark.parametrize(
  ("source", "part", "channels"),
  [(team_work.feed, "validation", 1), (team_work.stream, "test", 3)],
)
def test_a_training_of_two_processes_is_that_of_one(
  one, two, source, part, channels
):
  expected = team_work.train(source(), team_work.init(channels), part)
  found = np.load(two[1] / team_work.FILE)
  found = {name: found[name] for name in expected}
  trees.assert_close(found, expected, share=1e-4, atol=1e-7)


def test_shared_weights_on_a_stream_of_two_processes_score_as_those_of_one(
  one, two
):
  found = np.load(two[1] / team_work.FILE)["streams"]
  expected = team_work.score_streamed(team_work.streamed())
  assert len(set(expected.tolist())) > 1
  # A score is a share of eleven images.
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_shared_recurrent_cells_of_two_processes_score_as_those_of_one(
  one, two
):
  found = np.load(two[1] / team_work.FILE)["text"]
  expected = team_work.read(team_work.reader())
  assert np.ptp(expected) > 1e-3
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_recurrent_cell_of_two_processes_is_that_of_one(
  one, two, monkeypatch, capsys
):
  """And so is what is said of it, also where it diverged and went back."""
  (said, helped), workdir = two
  team_work.make_cells_quick_and_diverge_once(monkeypatch.setattr)
  base = one[1].parent
  team_work.write_text(base)
  expected = team_work.train_cell(base)
  file = workdir.parent / team_work.CELL / "result.json"
  found = json.loads(file.read_text())
  assert expected["roll_backs"] == found["roll_backs"] == 1
  for part in ("validation", "test"):
    assert found.pop(part) == pytest.approx(expected.pop(part), rel=1e-5)
  assert found == expected
  shown = capsys.readouterr().out.replace(str(base), str(workdir.parent))
  # Among the lines of the library that carries arrays from one to another.
  assert shown in said[0]
  assert "perplexity" not in helped[0]


def test_the_first_process_alone_writes(two):
  _, workdir = two
  best = json.loads((workdir / "best.json").read_text())
  assert best["space"] == team_work.SPACE.name
  assert len((workdir / "history.jsonl").read_text().splitlines()) == 2
  held = json.loads((workdir / ".lock").read_text())
  status = json.loads((workdir / "status.json").read_text())
  assert held["process"] == status["process"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_reaches_itself_at_an_address_of_its_own(host):
  address = own_address(host, 9)
  assert ipaddress.ip_address(address).is_loopback
  family = socket.AF_INET6 if ":" in address else socket.AF_INET
  with socket.create_server((address, 0), family=family):
    pass


@pytest.mark.parametrize("outside", ["10.0.0.7", None])
def test_a_name_that_resolves_to_loopback_gives_the_way_out(
  outside, monkeypatch
):
  """Debian gives the name of a machine the address 127.0.1.1 there."""

  def source(host, port):
    if host == "coordinator":
      return "127.0.1.1"
    if outside is None:
      raise OSError("no network")
    return outside

  monkeypatch.setattr(collectives, "_source", source)
  assert own_address("coordinator", 9) == (outside or "127.0.1.1")


# Two processes; the second one says what it heard.
_MEETING = """
import sys
from nao_jax.distributed.processes import Rendezvous, meet

team = meet(Rendezvous(sys.argv[1], 2, int(sys.argv[2])))
if team.first:
  with team.leading():
    team.send("array", [1, 2, 3])
else:
  team.help({"array": lambda command: print(command.arrays[0])})
"""
# Gives this machine a name that nothing knows, and starts a command.
_NAMELESS = """
import os, socket, sys

socket.sethostname("nobody-knows-this")
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_processes_meet_on_a_machine_whose_name_nobody_knows():
  alone = ["unshare", "--user", "--map-root-user", "--uts"]
  if shutil.which("unshare") is None or subprocess.call([*alone, "true"]):
    pytest.skip("this machine's name cannot be changed for one process")
  alone += [sys.executable, "-c", _NAMELESS]
  address = f"127.0.0.1:{_free_port()}"
  processes = [
    _start("-c", _MEETING, address, number, before=alone) for number in (0, 1)
  ]
  _, (heard, errors) = _end(processes)
  # Among the lines of gloo.
  assert "[1 2 3]\n" in heard, errors


@pytest.mark.parametrize(
  ("where", "message"),
  [
    (Rendezvous("host"), "`rendezvous.coordinator=host`: allowed: HOST:PORT"),
    (
      Rendezvous("host:0"),
      "`rendezvous.coordinator=host:0`: allowed: HOST:PORT",
    ),
    (Rendezvous("host:9"), "`rendezvous.count=None`: .* give how many"),
    (Rendezvous("host:9", 2), "`rendezvous.number=None`: allowed: 0 to 1"),
    (Rendezvous("host:9", 2, 2), "`rendezvous.number=2`: allowed: 0 to 1"),
  ],
)
def test_a_rendezvous_that_cannot_be_is_refused(where, message):
  with pytest.raises(UserError, match=message):
    where.check()


def test_a_coordinator_that_nobody_reaches_is_named():
  address = f"127.0.0.1:{_free_port()}"
  with pytest.raises(UserError, match=f"{address}`: nothing answers there"):
    meet(Rendezvous(address, 2, 1, seconds=0.1))


def test_a_port_that_is_taken_is_named():
  with socket.create_server(("127.0.0.1", 0)) as server:
    address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(UserError, match=f"{address}`: .* free port"):
      meet(Rendezvous(address, 2, 0))


def test_processes_with_other_flags_are_refused_and_the_flag_is_named(tmp_path):
  address = f"--coordinator=127.0.0.1:{_free_port()}"
  processes = [
    _start(
      "-m",
      "experiments.search_cnn",
      f"--workdir={tmp_path / 'run'}",
      f"--epochs={epochs}",
      address,
      "--num_processes=2",
      f"--process_id={number}",
    )
    for number, epochs in enumerate((4, 8))
  ]
  for process, (_, errors) in zip(processes, _end(processes), strict=True):
    assert process.returncode == 2, errors
    assert "error: --epochs is 4 in process 0 and 8 in process 1" in errors
  assert not list(tmp_path.iterdir())
