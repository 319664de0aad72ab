"""A local page on all runs of a folder: current, escaped, read only."""

import contextlib
import http.client
import json
import os
import shutil
import threading

import pytest

from nao_jax.errors import UserError
from nao_jax.report import page as pages
from nao_jax.report import serving
from nao_jax.search.journal import SearchJournal
from tests import browser as browsers
from tests.report_searches import EVIL, ROUNDS, Reader, settings_of, without

NAME = "b <b>&amp;"


@contextlib.contextmanager
def _served(folder):
  """A server of a folder; gives its port."""
  with serving.server(serving.Site(folder)) as server:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()


def _asked(port, path, method="GET", **headers):
  """Status and text of an answer."""
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
  with contextlib.closing(connection):
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
      connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


@pytest.fixture(scope="module")
def folder(uniform, tmp_path_factory):
  """Two searches that run, and files that are none of anybody's business."""
  folder = tmp_path_factory.mktemp("serving") / "runs"
  folder.mkdir()
  (folder.parent / "outside").mkdir()
  for path in (folder.parent / "outside", folder):
    (path / "secret.txt").write_text("secret")
  shutil.copy(uniform / "config.json", folder.parent / "outside")
  (folder / "link").symlink_to(folder.parent / "outside")
  without(uniform, folder, "best.json").rename(folder / "a")
  settings = json.loads((folder / "a" / "config.json").read_text())["settings"]
  with (
    SearchJournal(folder / "a", settings, ROUNDS),
    SearchJournal(folder / NAME, settings_of("nao", 7), ROUNDS) as second,
  ):
    second.rewind("round", 0)
    yield folder


@pytest.fixture(scope="module")
def port(folder):
  with _served(folder) as port:
    yield port


def test_the_first_page_shows_both_runs(port):
  status, text, headers = _asked(port, "/")
  assert status == 200
  assert headers["Refresh"]
  assert "default-src 'none'" in headers["Content-Security-Policy"]
  page = Reader(text)
  assert page.shown.count("running: process") == 2
  assert NAME in page.shown
  assert EVIL in page.shown
  assert {"script", "b"}.isdisjoint(page.tags)
  # Scores by round and two cells, of the one that has some.
  assert page.tags.count("svg") == 3
  links = [
    x for _, name, x in page.attributes if name == "href" and x[0] == "/"
  ]
  assert links == ["/run/a", "/run/b%20%3Cb%3E%26amp%3B"]
  for link in links:
    status, text, _ = _asked(port, link)
    assert status == 200
    assert "running: process" in text


def test_a_report_follows_its_run(port, folder):
  _, text, _ = _asked(port, "/run/a")
  page = Reader(text)
  assert "The best so far" in page.shown
  assert "secret" not in text
  history = folder / "a" / "history.jsonl"
  before = history.read_text()
  history.write_text(before + '{"stage": "a late stage", "best": 0.9}\n')
  assert "a late stage" in _asked(port, "/run/a")[1]
  history.write_text(before)
  assert "a late stage" not in _asked(port, "/run/a")[1]


@pytest.mark.parametrize(
  "path",
  [
    *("/run/../outside", "/../outside", "/run/..%2Foutside", "/run/link"),
    *("/run/a/../../outside", "/run//etc", "/secret.txt", "/run/a/config.json"),
    *("/run/", "/run", "/run/%00", "/run/link/config.json", "/a"),
  ],
)
def test_other_paths_are_not_found(port, path):
  status, text, _ = _asked(port, path)
  assert status == 404
  assert "secret" not in text


def test_other_methods_and_hosts_are_refused(port):
  for method in ("POST", "PUT", "DELETE"):
    assert _asked(port, "/", method)[0] == 501
  assert _asked(port, "/", Host="evil.example:80")[0] == 403
  assert _asked(port, "/", Host=f"localhost:{port}")[0] == 200
  assert _asked(port, "/", "HEAD")[:2] == (200, "")


def test_a_folder_may_be_a_run_or_hold_none(uniform, tmp_path):
  assert "finished" in serving.Site(uniform).page("/run/this run")
  assert "No workdir of a run" in serving.Site(tmp_path).page("/")
  (tmp_path / "broken").mkdir()
  (tmp_path / "broken" / "config.json").write_text("{")
  assert "config.json" in serving.Site(tmp_path).page("/run/broken")


def test_what_cannot_be_served_is_refused(port, folder, tmp_path):
  with pytest.raises(UserError, match=r"`folder=.*none`: no folder"):
    serving.Site(tmp_path / "none")
  with pytest.raises(
    UserError, match=f"`port={port}`: cannot be used .* in use"
  ):
    serving.server(serving.Site(folder), port)


def test_only_runs_that_changed_are_drawn_again(uniform, tmp_path, monkeypatch):
  for name in "ab":
    shutil.copytree(uniform, tmp_path / name)
  drawn = []
  draw, svg = serving.Site._draw, pages.svg
  monkeypatch.setattr(
    serving.Site, "_draw", lambda *x: drawn.append(x[1].name) or draw(*x)
  )
  monkeypatch.setattr(
    pages, "svg", lambda *x: drawn.append("figure") or svg(*x)
  )
  site = serving.Site(tmp_path)
  first = site.page("/")
  figures = drawn.count("figure")
  assert figures >= 2
  assert drawn.count("a") == drawn.count("b") == 1
  drawn.clear()
  os.utime(tmp_path / "b" / "history.jsonl")
  assert len(site.page("/")) == len(first)
  assert drawn.count("a") == 0
  assert drawn.count("b") == 1
  assert drawn.count("figure") < figures


def test_a_browser_sees_the_runs_go_on(folder, monkeypatch):
  monkeypatch.setitem(serving._HEADERS, "Refresh", "1")
  with browsers.started() as browser, _served(folder) as port:
    window = browser.new_page()
    faults = []
    window.on("pageerror", lambda fault: faults.append(fault))
    window.goto(f"http://127.0.0.1:{port}/")
    window.get_by_text("running: process").nth(1).wait_for()
    assert window.locator("section").count() == 2
    assert window.locator("svg").first.bounding_box()["width"] > 200
    status = folder / NAME / "status.json"
    told = {"state": "running", "phase": "painting", "done": 3, "total": 4}
    status.write_text(json.dumps(told))
    window.get_by_text("painting").wait_for(timeout=20_000)
    window.get_by_role("link").first.click()
    window.get_by_role("heading", name="The best so far").wait_for()
    window.get_by_role("link", name="All runs").click()
    window.get_by_text("painting").wait_for()
    assert not faults
