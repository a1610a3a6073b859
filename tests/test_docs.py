"""The links and names of the pages exist, the API page is complete, and all code runs. `make docs` builds the pages."""

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
    """Return the anchors that GitHub and the site make of a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shown():
    """Yield the dotted name and the object of each entry of api.md, and of the members that it lists of a class."""
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
def test_links_and_images_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target
        # The site holds only the files of docs/.
        assert page not in PAGES or linked.resolve().is_relative_to(DOCS), target


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: page.name)
def test_named_files_exist(page):
    for name in re.findall(r"\b(?:tests|examples|benchmarks|gradcam_callback)/[\w/]+\.\w+", page.read_text()):
        assert (ROOT / name).is_file(), name


def test_images_are_used_and_small():
    used = {
        Path(name).name
        for page in (ROOT / "README.md", *PAGES)
        for name in re.findall(r"\]\((\S+)\)", page.read_text())
    }
    for image in (DOCS / "pictures").iterdir():
        assert image.name in used and image.stat().st_size < 400_000, image


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
    pages = [page for page in (ROOT / "README.md", *PAGES) if "```python\n" in page.read_text()]
    assert len(pages) > 1
    command = [sys.executable, Path(__file__).parent / "readme.py", *pages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for page in pages:
        assert re.search(rf"^[1-9] blocks of {page.name} run with ", done.stdout, flags=re.M)
