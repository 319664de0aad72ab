"""Report pages: safe, self-contained and visible in a browser."""

import re
import types

from hypothesis import given, strategies
import pytest

from nao_jax.report import comparison_page, search_page
from nao_jax.report.page import Page, Section, Table, Tile, render
from tests import browser as browsers
from tests.report_searches import EVIL, Reader, text_of


def test_nothing_leaves_the_page(page):
  for tag, name, value in page.attributes:
    assert not name.startswith("on"), (tag, name)
    if name in ("href", "src", "xlink:href", "action", "srcset", "data"):
      assert value.startswith("#"), (tag, name, value)
  assert {"script", "link", "img", "iframe", "object", "base"}.isdisjoint(
    page.tags
  )
  assert "@import" not in page.text
  assert set(re.findall(r"url\((.)", page.text)) <= {"#"}
  # Names of XML, which nobody fetches.
  assert set(re.findall(r"https?://[^\"' ]*", page.text)) <= {
    "http://www.w3.org/2000/svg",
    "http://www.w3.org/1999/xlink",
  }


def test_names_within_the_page_are_unique_and_used(page):
  names = [value for _, name, value in page.attributes if name == "id"]
  assert len(set(names)) == len(names)
  wanted = re.findall(r'(?:url\(|href=")#([^")]+)', page.text)
  assert wanted
  assert {*wanted} == {*names}


def test_colours_are_those_of_the_page(page):
  drawn = re.findall(r"<svg.*?</svg>", page.text, re.DOTALL)
  used = {name for svg in drawn for name in re.findall(r"var\(--([\w-]+)", svg)}
  light, dark = re.findall(r":root \{(.*?)\}", page.text, re.DOTALL)
  for mode in (light, dark):
    assert used <= {*re.findall(r"--([\w-]+):", mode)}
  assert not any(re.search(r"#[0-9a-f]{6}\b", svg) for svg in drawn)


def test_a_whole_search_has_all_sections(page):
  for title in (
    "The winner",
    "Searched and random cells",
    "Scores by round",
    "Proposals",
    "Quality of the predictor",
    "Gradient steps",
    "Operations of the best",
    "Ancestors of the winner",
    "Costs and time",
    "How to run it again",
  ):
    assert title in page.shown
  # Two cells, trainings, 3 of scores, proposals, 2 of the predictor, 2 of
  # steps, ops.
  assert page.tags.count("svg") == 2 + 1 + 3 + 1 + 2 + 2 + 1
  assert "What is missing" not in page.shown


def test_the_name_of_a_data_set_is_text(page):
  assert EVIL in page.shown
  assert "<script" not in page.text
  assert "<b>digits" not in page.text


def test_the_page_names_the_signals_of_a_search():
  settings = {"proxies": "parameters,synaptic_flow", "signals": ["mine"]}
  run = types.SimpleNamespace(settings=settings)
  named = ", signals: parameters, synaptic_flow, mine"
  assert search_page._signals(run) == named
  settings.clear()
  assert not search_page._signals(run)


def test_missing_baselines_are_named(page, uniform):
  assert "One search with one seed" in page.shown
  assert "Scores are measured with shared weights" in page.shown
  assert "No random search was run beside this one" in page.shown
  other = text_of(uniform).shown
  assert "No random baseline was run" in other
  assert "random search itself" in other
  assert "uses no predictor" in other


def test_reading_leaves_everything_as_it_is(nao):
  def contents():
    return {
      file: file.read_bytes()
      for file in nao.rglob("*")
      if file.is_file() and file.name != "report.html"
    }

  before = contents()
  search_page.write(nao)
  assert contents() == before


def test_the_same_directory_gives_the_same_page(nao):
  first, second = (search_page.write(nao).read_bytes() for _ in range(2))
  assert first == second


@pytest.fixture(scope="module")
def browser():
  with browsers.started() as browser:
    yield browser


@pytest.fixture(scope="module", params=["one search", "recurrent", "several"])
def file(request, nao, uniform, other, recurrent, searches):
  """A page, as it is on disk."""
  if request.param == "one search":
    return search_page.write(nao, [uniform, other])
  if request.param == "recurrent":
    return search_page.write(recurrent)
  return comparison_page.write([nao, uniform, other], searches / "several.html")


@pytest.fixture(scope="module")
def opened(browser, file):
  """The page in a browser, and all that it said or asked for."""
  events, window = [], browser.new_page()
  for name in ("console", "pageerror", "request", "dialog", "websocket"):
    window.on(name, lambda event, name=name: events.append((name, event)))
  window.goto(file.as_uri())
  yield window, events
  window.close()


def test_a_browser_opens_a_page_and_nothing_else(opened, file):
  window, events = opened
  window.emulate_media(media="print")
  assert window.pdf().startswith(b"%PDF")
  window.emulate_media(media="screen")
  ((name, request),) = events
  assert (name, request.url) == ("request", file.as_uri())


# Where figures are on the page, and whether anything is drawn in them.
_FIGURES = """() => [...document.querySelectorAll("figure svg")].map(svg => {
  const box = svg.getBoundingClientRect();
  return {
    shown: svg.checkVisibility(), width: box.width, height: box.height,
    left: box.left, right: box.right,
    drawn: [...svg.querySelectorAll("path, use, text")].some(
      part => part.getBoundingClientRect().width > 0),
  };
})"""
_TEXT_SIZES = """() => [...document.querySelectorAll("figure svg text")].map(
  text => text.getBoundingClientRect().height)"""


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_visible(opened, file, width):
  window, _ = opened
  window.set_viewport_size({"width": width, "height": 900})
  figures = window.evaluate(_FIGURES)
  assert len(figures) == file.read_text().count("<svg")
  for figure in figures:
    assert figure["shown"]
    assert figure["drawn"]
    assert figure["width"] > 150
    assert figure["height"] > 100
    assert 0 <= figure["left"] < figure["right"] <= width
  # Nobody has to scroll the page sideways; wide tables scroll by themselves.
  assert window.evaluate("document.documentElement.scrollWidth") == width
  assert min(window.evaluate(_TEXT_SIZES)) > 5


def test_a_page_is_dark_where_the_system_is(opened):
  window, _ = opened
  colours = {}
  for scheme in ("light", "dark"):
    window.emulate_media(color_scheme=scheme)
    for part in ("body", "figure svg text"):
      colours[scheme, part] = window.evaluate(
        """part => {
          const style = getComputedStyle(document.querySelector(part));
          const colour = part == "body" ? style.backgroundColor : style.fill;
          return colour.match(/[0-9.]+/g).slice(0, 3).map(Number);
        }""",
        part,
      )
  assert min(colours["light", "body"]) > 200 > max(colours["dark", "body"])
  assert max(colours["light", "figure svg text"]) < 100
  assert min(colours["dark", "figure svg text"]) > 150


_TEXT = strategies.text(
  strategies.characters(exclude_categories=("C",)), min_size=1
)


@given(_TEXT, _TEXT)
def test_any_text_stays_text(title, cell):
  table = Table(["a"], [[cell]], cell)
  page = Page(
    title,
    cell,
    [Tile(cell, cell, cell)],
    [Section(cell, [cell], tables=[table])],
  )
  text = render(page)
  assert Reader(text).tags == Reader(render(_plain(page))).tags
  assert cell in Reader(text).cells


def _plain(page):
  """Makes the page without the text."""
  table = Table(["a"], [["x"]], "x")
  section = Section("x", ["x"], tables=[table])
  return Page("x", "x", [Tile("x", "x", "x")], [section])
