"""A real browser, to look at pages with: Debian's chromium, by playwright.

python -m tests.browser PAGE PICTURE

takes a picture of a page; --help lists what else it does.
"""

import argparse
from collections.abc import Iterator
import contextlib
import importlib.util
import pathlib
import shutil

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
  """Returns the path of the browser, or None."""
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


def main() -> None:
  """Takes a picture of a page."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("page", type=pathlib.Path)
  parser.add_argument("picture")
  parser.add_argument("--width", type=int, default=1280)
  parser.add_argument("--height", type=int, help="from the top; else all of it")
  parser.add_argument("--section", help="with this title; else the page")
  parser.add_argument("--dark", action="store_true")
  chosen = parser.parse_args()
  with started() as browser:
    window = browser.new_page(
      viewport={"width": chosen.width, "height": chosen.height or 900},
      color_scheme="dark" if chosen.dark else "light",
    )
    window.goto(chosen.page.absolute().as_uri())
    if chosen.section:
      section = window.locator("section").filter(has_text=chosen.section)
      section.first.screenshot(path=chosen.picture)
    else:
      window.screenshot(path=chosen.picture, full_page=not chosen.height)


if __name__ == "__main__":
  main()
