"""Mutation tests: do the tests notice small changes of the code? cosmic-ray makes the changes, the mutants.

    python benchmarks/mutation.py [GROUP ...] [--remaining] [--workers N] [--write docs/mutation.md]

``benchmarks/mutation.toml`` names the tests of each group of modules, and the reasons why some mutants may survive. A
survivor without a reason is a failure, and so is a listed mutant that does not survive. ``--remaining`` tries only the
mutants that were not killed the last time. This is enough if tests were added, or lines of a module changed. For Linux.

cosmic-ray's own runner starts Python anew for each mutant, and loading torch takes longer than most of the tests. So
each mutant runs in a fork of one process that has loaded everything but this repository. No file is changed: the fork
imports the mutant instead of the module. All of cosmic-ray's operators that need no choice are used, except for those
that ``left_out`` names. Mutants of annotations, which are never evaluated, and mutants that are not valid Python are
left out.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib.abc
import importlib.util
import json
import math
import os
import platform
import re
import resource
import signal
import sys
import time
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from reliability import write

ROOT = Path(__file__).parent.parent
REASONS = Path(__file__).with_suffix(".toml")
RESULTS = ROOT / "build" / "mutation"
# A mutant is killed if it takes this many times the processor time of the module and these seconds more. So is a mutant
# that waits this long, in seconds, for something that never comes.
PATIENCE, LEAST_PATIENCE, LONGEST_WAIT = 4, 10, 600
# The bytes that a mutant may take. Some mutants ask for images of any size.
MEMORY = 4 << 30

Position = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """A change of a module.

    Attributes:
        module: the path of the module below the package, without its ending.
        line: the number of the changed line.
        place: this line, with the replaced part between ``«`` and ``»``.
        to: the new part; empty if the part is deleted.
        source: the whole changed module.
    """

    module: str
    line: int
    place: str
    to: str
    source: str


def mutants(module: str, source: str, left_out: str | None) -> list[Mutant]:
    """Make all mutants of a module, each once, in the order of its lines.

    Args:
        module: its path below the package.
        source: of the module.
        left_out: a regular expression; the operators whose names it matches are not used.
    """
    lines = source.splitlines(keepends=True)
    tree = get_ast(source)
    unread = _annotations(source)
    found: dict[str, Mutant] = {}
    for name in operator_names():
        if get_operator(name).arguments() or (left_out and re.search(left_out, name)):
            continue
        operator = get_operator(name)()
        positions = [place for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(positions):
            if any(first <= start and end <= last for first, last in unread):
                continue
            mutated = mutate_code(source, operator, occurrence)
            if mutated is not None and _compiles(mutated):
                found.setdefault(mutated, _describe(module, lines, start, end, mutated))
    return sorted(found.values(), key=lambda mutant: (mutant.line, mutant.place, mutant.to))


def _describe(module: str, lines: Sequence[str], start: Position, end: Position, mutated: str) -> Mutant:
    before = sum(map(len, lines[: start[0] - 1])) + start[1]
    after = sum(map(len, lines[end[0] - 1 :])) - end[1]
    first = lines[start[0] - 1].rstrip("\n")
    stop = end[1] if end[0] == start[0] else len(first)
    place = f"{first[: start[1]]}«{first[start[1] : stop]}»{first[stop:]}".strip()
    return Mutant(module, start[0], place, " ".join(mutated[before : len(mutated) - after].split()), mutated)


def _annotations(source: str) -> list[tuple[Position, Position]]:
    """Find the start and the end of each annotation, as lines from 1 and columns in characters."""
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            annotation = getattr(node, name, None)
            if annotation is not None:
                ends = (annotation.lineno, annotation.col_offset), (annotation.end_lineno, annotation.end_col_offset)
                first, last = ((line, len(lines[line - 1].encode()[:column].decode())) for line, column in ends)
                found.append((first, last))
    return found


def _compiles(source: str) -> bool:
    try:
        _compile(source, "mutant")
    except SyntaxError:
        return False
    return True


def _compile(source: str, path: str) -> CodeType:
    with warnings.catch_warnings():
        # Python warns of `is` with a literal, and pytest makes an error of it. But the tests have to notice the mutant.
        warnings.simplefilter("ignore", SyntaxWarning)
        return compile(source, path, "exec", dont_inherit=True)


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An importer that gives the module ``name`` another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(_compile(self.source, str(self.path)), module.__dict__)


def load(tests: Sequence[str]) -> None:
    """Load all modules that the tests need, and unload those of this repository."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        code = pytest.main(["--collect-only", "-q", *tests])
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"Expected tests that run, but pytest cannot collect {' '.join(tests)}. Run them alone.")
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name != "__main__" and path and ROOT in Path(path).parents and Path(sys.prefix) not in Path(path).parents:
            del sys.modules[name]
    # The loaded modules stay. Frozen, they are left out of the ten garbage collections of each pytest run.
    gc.collect()
    gc.freeze()


def begin(module: str, source: str, tests: Sequence[str], limit: int) -> int:
    """Start the tests in a fork, on another source of a module.

    Args:
        module: its path below the package.
        source: the other source.
        tests: arguments of pytest.
        limit: the processor time of the fork in seconds.

    Returns:
        The id of the fork.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        sys.meta_path.insert(0, Replaced(f"gradcam_callback.{module.replace('/', '.')}", _path(module), source))
        # Nobody reads the messages of the tests, and preparing them takes longer than most tests.
        quick = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--tb=no"]
        code = int(pytest.main([*quick, *tests]))
    finally:
        os._exit(code)


def survived(sources: Sequence[tuple[str, str]], tests: Sequence[str], limit: int, workers: int) -> Iterator[bool]:
    """Run the tests on each source.

    Args:
        sources: the path of a module below the package, and another source of this module.
        tests: arguments of pytest.
        limit: the processor time of each run in seconds.
        workers: the number of runs at a time.

    Yields:
        True if all tests pass; in the order of the sources.
    """
    waiting = list(enumerate(sources))[::-1]
    running: dict[int, tuple[int, float]] = {}
    done: dict[int, bool] = {}
    given = 0
    while given < len(sources):
        while waiting and len(running) < workers:
            i, (module, source) = waiting.pop()
            running[begin(module, source, tests, limit)] = i, time.monotonic() + LONGEST_WAIT
        for pid, (i, deadline) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                ended, status = os.waitpid(pid, 0)
            if ended:
                done[i] = os.waitstatus_to_exitcode(status) == 0
                del running[pid]
        while given in done:
            yield done[given]
            given += 1
        time.sleep(0.01)


def check(name: str, choice: dict[str, Any], only_remaining: bool, workers: int) -> dict[str, Any]:
    """Try the mutants of a group of modules.

    Args:
        name: of the group.
        choice: its modules, its tests and its reasons.
        only_remaining: True tries only the mutants that were not killed the last time.
        workers: the number of mutants at a time.

    Returns:
        ``"mutants"``, their number; ``"seconds"``; ``"survivors"``, with module, line, place and change; and
        ``"killed"``, with place and change.
    """
    tests: list[str] = choice["tests"]
    sources = {module: _path(module).read_text() for module in choice["modules"]}
    load(tests)
    start, used = time.monotonic(), _seconds_of_forks()
    if not all(survived(list(sources.items())[:1], tests, LONGEST_WAIT, 1)):
        raise SystemExit(f"Expected tests that pass on the unchanged code, but {' '.join(tests)} fail. Run them alone.")
    alone = _seconds_of_forks() - used
    result = RESULTS / f"{name}.json"
    before: dict[str, Any] = json.loads(result.read_text()) if only_remaining else {"killed": [], "seconds": 0.0}
    every = [one for module, source in sources.items() for one in mutants(module, source, choice.get("left_out"))]
    tried = [mutant for mutant in every if [mutant.place, mutant.to] not in before["killed"]]
    limit = LEAST_PATIENCE + math.ceil(PATIENCE * alone)
    survivors = []
    outcomes = survived([(mutant.module, mutant.source) for mutant in tried], tests, limit, workers)
    for i, (mutant, lives) in enumerate(zip(tried, outcomes, strict=True), 1):
        if lives:
            survivors.append((mutant.module, mutant.line, mutant.place, mutant.to))
        if lives or i % 100 == 0:
            done = f"{name}: {i} of {len(tried)} in {time.monotonic() - start:.0f} s, {len(survivors)} alive"
            where = f"{mutant.module}, line {mutant.line}"
            print(f"{done}; {where}, {mutant.place} -> {mutant.to}" if lives else done, flush=True)
    alive = {(place, to) for _, _, place, to in survivors}
    found = {
        "mutants": len(every),
        "seconds": before["seconds"] + time.monotonic() - start,
        "survivors": survivors,
        "killed": [(mutant.place, mutant.to) for mutant in every if (mutant.place, mutant.to) not in alive],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(found, indent=1))
    return found


def _path(module: str) -> Path:
    return ROOT / "gradcam_callback" / f"{module}.py"


def _seconds_of_forks() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def listed(reasons: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return the places and changes that have a reason to survive."""
    return {(place, to) for reason in reasons for place, changes in reason["mutants"].items() for to in changes}


def unexplained(survivors: Sequence[tuple[str, int, str, str]], reasons: Sequence[dict[str, Any]]) -> list[str]:
    """Return the survivors that have no reason, as lines for the list, and the listed mutants that do not survive."""
    lives = {(place, to) for _, _, place, to in survivors}
    known = listed(reasons)
    lacking: dict[str, list[str]] = {}
    for _, _, place, to in survivors:
        if (place, to) not in known:
            lacking.setdefault(place, []).append(to)
    return [
        *(f"not listed: {json.dumps(place, ensure_ascii=False)} = {json.dumps(to)}" for place, to in lacking.items()),
        *(f"listed, but it does not survive: {place} -> {to or 'nothing'}" for place, to in sorted(known - lives)),
    ]


def table(found: dict[str, dict[str, Any]], config: dict[str, Any]) -> str:
    """Format the results in Markdown, with the survivors below their reasons."""
    lines = [
        "| modules | tests | mutants | killed | survived | minutes |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, result in found.items():
        modules = ", ".join(f"`{module}`" for module in config[name]["modules"])
        tests = ", ".join(f"`{Path(test).name}`" for test in config[name]["tests"] if not test.startswith("-"))
        count, alive = result["mutants"], len(result["survivors"])
        lines.append(f"| {modules} | {tests} | {count} | {count - alive} | {alive} | {result['seconds'] / 60:.0f} |")
    lines.append("")
    lines.append(f"cosmic-ray {version('cosmic-ray')}, Python {platform.python_version()}, {os.cpu_count()} CPU cores.")
    for name, result in found.items():
        several = len(config[name]["modules"]) > 1
        numbers: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for module, line, place, to in result["survivors"]:
            numbers.setdefault((place, to), []).append((Path(module).name if several else "", line))
        for reason in config[name]["survivors"]:
            lines += ["", f"### `{name}`: {reason['what']}", "", reason["why"].strip(), ""]
            lines += ["| line | replaced part | by |", "|---:|---|---|"]
            for place, changes in reason["mutants"].items():
                found_at = sorted({at for to in changes for at in numbers.get((place, to), [])})
                at = ", ".join(f"{module} {line}".strip() for module, line in found_at)
                by = " ".join(_code(to) if to else "nothing" for to in changes)
                lines.append(f"| {at} | {_code(place)} | {by} |")
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def main() -> None:
    config = tomllib.loads(REASONS.read_text())
    parser = argparse.ArgumentParser(description="Find small changes of the code that the tests do not notice.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"some of {', '.join(config)}; default: all")
    parser.add_argument("--remaining", action="store_true", help="try only the mutants that were not killed last time")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="mutants at a time (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between its <!-- mutation --> marks")
    args = parser.parse_args()
    wrong = sorted(set(args.groups) - set(config))
    if wrong:
        parser.error(f"Expected some of {', '.join(config)}, but got {', '.join(wrong)}. Correct the name.")
    found, complaints = {}, []
    for name in args.groups or config:
        found[name] = check(name, config[name], args.remaining, args.workers)
        complaints += [f"{name}: {text}" for text in unexplained(found[name]["survivors"], config[name]["survivors"])]
    text = table(found, config)
    print(text)
    if args.write:
        write(args.write, "mutation", text)
    if complaints:
        raise SystemExit("\n".join([*complaints, f"Expected exactly the survivors in {REASONS.name}. Update it."]))


if __name__ == "__main__":
    main()
