"""A local page on all runs of a folder, which follows them as they go.

Files are only read. A path of a request is looked up among the runs that were
found, and never opened, so nothing outside of the folder can be asked for.
"""

from collections.abc import Callable, Iterator
import html
import http
import http.server
import io
import os
import pathlib
import secrets
import socketserver
import threading
import urllib.parse

import rich.console

from nao_jax.errors import UserError, in_a_line
from nao_jax.report import page as pages
from nao_jax.report import pool_sections, search_page, watching
from nao_jax.report import run as runs
from nao_jax.report.page import Page, Section
from nao_jax.runs import paths
from nao_jax.tasks import known
from nao_jax.tasks.task import CellsOf

HOST = "127.0.0.1"
# How deep runs may lie in the folder, and how many are shown.
_DEPTH, _MOST = 4, 100
# Seconds until a browser asks again.
_REFRESH = 5
# A page is made anew when one of them has changed.
_FILES = (
  *("config.json", "history.jsonl", "pool.sqlite", "final.json", "best.json"),
)
_HEADERS = {
  "Content-Type": "text/html; charset=utf-8",
  "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-store",
  "Refresh": str(_REFRESH),
}


class Site:
  """Pages on the runs of a folder."""

  def __init__(self, folder: str | os.PathLike, cells_of: CellsOf = known.of):
    """Reads nothing yet.

    Args:
      folder: the folder, or the workdir of one run.
      cells_of: see `report.run.read`.

    Raises:
      UserError: there is no such folder.
    """
    self._folder = paths.expanded(folder).absolute()
    if not self._folder.is_dir():
      raise UserError(f"`folder={folder}`: no folder; give one that holds runs")
    self._cells_of = cells_of
    # Progress takes the place of this word in pages that are kept.
    self._word = secrets.token_hex(16)
    self._kept: dict[str, tuple[tuple, str]] = {}
    self._drawn: dict[str, tuple[tuple, list[pages.Plot]]] = {}
    self._lock = threading.Lock()

  def page(self, path: str) -> str | None:
    """Returns the HTML of a path, `/` or that of a run; None without one."""
    found = dict(_runs(self._folder))
    with self._lock:
      if path == "/":
        return self._current(path, found, self._overview)
      name = path.removeprefix("/run/")
      if path == _address(name) and name in found:
        return self._current(path, {name: found[name]}, self._report)
    return None

  def _current(
    self,
    path: str,
    found: dict[str, pathlib.Path],
    build: Callable[[dict[str, pathlib.Path]], Page],
  ) -> str:
    """Returns a page with the progress of its runs; builds it if needed."""
    state = tuple((name, _signature(run)) for name, run in found.items())
    if self._kept.get(path, (None,))[0] != state:
      self._kept[path] = state, pages.render(build(found))
    text = self._kept[path][1]
    for name, run in found.items():
      text = text.replace(self._place(name), html.escape(_progress(run)))
    return text

  def _place(self, name: str) -> str:
    """Returns what stands for the progress of a run."""
    # A name need not be UTF-8.
    return f"{self._word} {os.fsencode(name).hex()} {self._word}"

  def _overview(self, found: dict[str, pathlib.Path]) -> Page:
    return Page(
      title=f"Runs in {self._folder}",
      about=f"{len(found)} of them; this page follows them, at most {_MOST}.",
      tiles=[],
      sections=[
        Section(
          name,
          plots=self._pictures(name, run),
          code=[self._place(name)],
          links={"Its report": _address(name)},
        )
        for name, run in found.items()
      ]
      or [Section("Nothing yet", ["No workdir of a run is in this folder."])],
    )

  def _pictures(self, name: str, path: pathlib.Path) -> list[pages.Plot]:
    """Returns what `_draw` does; draws again if the run has changed."""
    state = _signature(path)
    if self._drawn.get(name, (None,))[0] != state:
      self._drawn[name] = state, self._draw(path)
    return self._drawn[name][1]

  def _draw(self, path: pathlib.Path) -> list[pages.Plot]:
    """Returns scores by round and the best cell; none before there are."""
    try:
      run = runs.read(path, cells_of=self._cells_of)
      if not run.scored:
        return []
      curve = pool_sections.scores(run, []).plots[:1]
      return [*curve, *search_page.winner(run).plots]
    except Exception:  # Its report says why.
      return []

  def _report(self, found: dict[str, pathlib.Path]) -> Page:
    ((name, path),) = found.items()
    now = Section("Now", code=[self._place(name)], links={"All runs": "/"})
    try:
      page = search_page.of(runs.read(path, cells_of=self._cells_of))
    except Exception as error:  # A training, or a search that just began.
      reason = f"No report of a search: {in_a_line(error)}"
      return Page(name, str(path), [], [now, Section("Report", [reason])])
    return Page(page.title, page.about, page.tiles, [now, *page.sections])


def _runs(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """Yields name and directory of the runs in a folder; links are left out."""
  count = 0
  for path, inner, files in os.walk(folder):
    place = pathlib.Path(path)
    inside = place.relative_to(folder)
    if "config.json" in files and count < _MOST:
      count += 1
      yield ("this run" if place == folder else inside.as_posix()), place
      inner.clear()
    elif len(inside.parts) >= _DEPTH:
      inner.clear()
    inner[:] = sorted(name for name in inner if not name.startswith("."))


def _address(name: str) -> str:
  return f"/run/{name}"


def _signature(path: pathlib.Path) -> tuple:
  found = []
  for name in _FILES:
    try:
      state = (path / name).stat()
    except OSError:
      continue
    found.append((name, state.st_mtime_ns, state.st_size))
  return tuple(found)


def _progress(path: pathlib.Path) -> str:
  """Returns what `watch` shows, as plain text."""
  console = rich.console.Console(
    file=io.StringIO(), width=120, color_system=None
  )
  try:
    console.print(watching.render(watching.snapshot(path)))
  except Exception as error:  # One damaged run must not hide the others.
    return in_a_line(error)
  return console.file.getvalue().rstrip()


class _Server(socketserver.ThreadingTCPServer):
  """Server of a site, to this machine alone."""

  daemon_threads = allow_reuse_address = True

  def __init__(self, port: int, site: Site):
    super().__init__((HOST, port), _Handler)
    self.site = site

  def handle_error(self, *_) -> None:
    """Shows nothing: a browser that goes away is no fault."""


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers to GET and HEAD."""

  # Seconds for a request.
  timeout = 30

  def do_GET(self) -> None:
    host = self.headers.get("Host", "").partition(":")[0]
    # A page of another site may have its name lead here.
    if host not in (HOST, "localhost"):
      self.send_error(http.HTTPStatus.FORBIDDEN)
      return
    path = urllib.parse.unquote(self.path.partition("?")[0])
    text = self.server.site.page(path)
    if text is None:
      self.send_error(http.HTTPStatus.NOT_FOUND)
      return
    content = text.encode(errors="replace")
    self.send_response(http.HTTPStatus.OK)
    for name, value in _HEADERS.items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    if self.command == "GET":
      self.wfile.write(content)

  do_HEAD = do_GET

  def log_message(self, *_) -> None:
    """Logs nothing."""


def server(site: Site, port: int = 0) -> socketserver.BaseServer:
  """Opens a server of a site on this machine's own address.

  Call its `serve_forever`; `server_address` has the port.

  Args:
    site: the pages.
    port: the port; a free one if 0.

  Raises:
    UserError: the port is in use or not allowed.
  """
  try:
    return _Server(port, site)
  except (OSError, OverflowError) as error:
    reason = getattr(error, "strerror", None) or str(error)
    raise UserError(
      f"`port={port}`: cannot be used ({reason}); give another, or 0 for a "
      "free one"
    ) from error
