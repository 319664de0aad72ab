"""A real browser, to look at pages with: Debian's chromium, by playwright.

python -m tests.browser PAGE PICTURE [WIDTH [HEIGHT [light or dark]]]

takes a picture of the upper part of a page; without a height of all of it.
"""

from collections.abc import Iterator
import contextlib
import importlib.util
import pathlib
import shutil
import sys

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
  """Where the browser is."""
  return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def started() -> Iterator:
  """A browser for many pages; skips the test where there is none."""
  if importlib.util.find_spec("playwright") is None:
    pytest.skip("playwright is not installed (pip install '.[test]')")
  if program() is None:
    pytest.skip("there is no chromium (apt-get install chromium)")
  from playwright.sync_api import sync_playwright

  with sync_playwright() as tools:
    # Root, as in a container, has no sandbox; the pages are our own.
    browser = tools.chromium.launch(
      executable_path=program(), args=["--no-sandbox"]
    )
    with contextlib.closing(browser):
      yield browser


def main(page, picture, width=1280, height=None, scheme="light") -> None:
  """Takes a picture of a page."""
  with started() as browser:
    window = browser.new_page(
      viewport={"width": int(width), "height": int(height or 900)},
      color_scheme=scheme,
    )
    window.goto(pathlib.Path(page).absolute().as_uri())
    window.screenshot(path=picture, full_page=height is None)


if __name__ == "__main__":
  main(*sys.argv[1:])
