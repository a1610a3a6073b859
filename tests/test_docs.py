"""The site's pages lead somewhere, name all that is public, and what they show can be run. `make docs` builds them."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import gradcam_callback

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def nav(entries):
    for entry in entries:
        for target in entry.values():
            yield from nav(target) if isinstance(target, list) else [target]


def anchors(page):
    """The anchors that GitHub and the site make of a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shown():
    """What api.md shows: a dotted name, the object, and of a class the members that are listed there."""
    for name, options in re.findall(r"^::: (\S+)((?:\n {4}.*)*)", (DOCS / "api.md").read_text(), flags=re.M):
        module, _, last = name.rpartition(".")
        thing = getattr(importlib.import_module(module), last)
        yield name, thing
        members = re.search(r"members: \[(.+)\]", options)
        for member in members[1].split(", ") if members else []:
            yield f"{name}.{member}", inspect.getattr_static(thing, member)


def test_every_page_is_in_the_navigation_once():
    excluded = SITE.get("exclude_docs", "").split()
    assert sorted(nav(SITE["nav"])) == sorted(page.name for page in PAGES if page.name not in excluded)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target
        # The site holds nothing but what lies in docs/.
        assert page not in PAGES or linked.resolve().is_relative_to(DOCS), target


def test_pictures_are_used_and_small():
    used = {
        Path(name).name
        for page in (ROOT / "README.md", *PAGES)
        for name in re.findall(r"\]\((\S+)\)", page.read_text())
    }
    for picture in (DOCS / "pictures").iterdir():
        assert picture.name in used and picture.stat().st_size < 400_000, picture


def test_every_public_name_is_in_the_api():
    names = {name for name, _ in shown()}
    assert {f"gradcam_callback.{name}" for name in gradcam_callback.__all__} <= names
    makers = {name for name, value in vars(gradcam_callback.ProbeSet).items() if isinstance(value, classmethod)}
    public = {name for name in makers if not name.startswith("_")}
    assert {f"gradcam_callback.ProbeSet.{name}" for name in public} <= names


@pytest.mark.parametrize(("name", "thing"), list(shown()), ids=lambda value: value if isinstance(value, str) else "")
def test_examples_of_the_api_run(name, thing):
    if isinstance(thing, property):
        assert thing.__doc__, "shown in the example of its class"
        return
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(thing, "__func__", thing), name, globs={})
    assert len(found.examples) > 1
    said = []
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.DocTestRunner(optionflags=options).run(found, out=said.append)
    assert not failed, "".join(said)


def test_the_pages_code_runs():
    pages = [page for page in PAGES if "```python\n" in page.read_text()]
    assert pages
    command = [sys.executable, Path(__file__).parent / "readme.py", *pages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for page in pages:
        assert re.search(rf"^[1-9] blocks of {page.name} run with ", done.stdout, flags=re.M)
