"""Whether the tests notice small changes of the code: cosmic-ray's mutants of the pure modules, each under its tests.

    python benchmarks/mutation.py [MODULE ...] [--remaining] [--workers N] [--write docs/mutation.md]

``benchmarks/mutation.toml`` says which tests are to hold each module, and why the mutants that they do not kill are let
live. A survivor that is not listed there, or one that is and does not survive, is a failure. ``--remaining`` tries only
what was not killed the last time, which is enough after tests were added or lines of a module changed. For Linux.

cosmic-ray makes the mutants. Its own runner starts Python anew for each, and loading torch takes longer than most of
the tests; so here each mutant runs in a fork of one process that has loaded everything but this repository. Nothing on
the disk is changed: the fork imports the mutant in place of the module. All of cosmic-ray's operators that need no
choice are used, but for those that ``left_out`` names. Left out are mutants of annotations, which are never evaluated,
and those that are no Python.
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
# A mutant that takes this many times the processor's time that the module takes, and some seconds, will not end; nor
# will one that waits this long, in seconds, for something that never comes.
PATIENCE, LEAST_PATIENCE, LONGEST_WAIT = 4, 10, 600
# What a mutant may take beyond what is there before it, as some ask for pictures of any size.
MEMORY = 4 << 30

Position = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Attributes:
        line: where it is; ``place``: that line with what is replaced between ``«`` and ``»``.
        to: what stands there instead, empty where nothing does.
        source: the whole module.
    """

    line: int
    place: str
    to: str
    source: str


def mutants(source: str, left_out: str | None) -> list[Mutant]:
    """All mutants of a module, in the order of its lines, each once, but for operators of names like ``left_out``."""
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
                found.setdefault(mutated, _described(lines, start, end, mutated))
    return sorted(found.values(), key=lambda mutant: (mutant.line, mutant.place, mutant.to))


def _described(lines: Sequence[str], start: Position, end: Position, mutated: str) -> Mutant:
    before = sum(map(len, lines[: start[0] - 1])) + start[1]
    after = sum(map(len, lines[end[0] - 1 :])) - end[1]
    first = lines[start[0] - 1].rstrip("\n")
    stop = end[1] if end[0] == start[0] else len(first)
    place = f"{first[: start[1]]}«{first[start[1] : stop]}»{first[stop:]}".strip()
    return Mutant(start[0], place, " ".join(mutated[before : len(mutated) - after].split()), mutated)


def _annotations(source: str) -> list[tuple[Position, Position]]:
    """Where annotations stand, as lines from 1 and columns in characters."""
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
        _compiled(source, "mutant")
    except SyntaxError:
        return False
    return True


def _compiled(source: str, path: str) -> CodeType:
    with warnings.catch_warnings():
        # Of `is` with a literal; pytest would make an error of it, and a test is to notice what it does.
        warnings.simplefilter("ignore", SyntaxWarning)
        return compile(source, path, "exec", dont_inherit=True)


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports ``source`` as the module ``name``."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(_compiled(self.source, str(self.path)), module.__dict__)


def load(tests: Sequence[str]) -> None:
    """Load what the tests need, and forget what of it is this repository's."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        code = pytest.main(["--collect-only", "-q", *tests])
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"pytest could not collect {' '.join(tests)}. Expected tests that run.")
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name != "__main__" and path and ROOT in Path(path).parents and Path(sys.prefix) not in Path(path).parents:
            del sys.modules[name]
    # What is loaded stays; no fork need go through it, as pytest makes each do ten times.
    gc.collect()
    gc.freeze()


def begin(name: str, source: str, tests: Sequence[str], limit: int) -> int:
    """The tests on a module in place of another, in a process of its own with ``limit`` seconds: its id."""
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
        path = ROOT / "gradcam_callback" / f"{name}.py"
        sys.meta_path.insert(0, Replaced(f"gradcam_callback.{name}", path, source))
        # Nobody reads what a test says, and its words would take longer to prepare than most tests.
        quick = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--tb=no"]
        code = int(pytest.main([*quick, *tests]))
    finally:
        os._exit(code)


def survived(name: str, sources: Sequence[str], tests: Sequence[str], limit: int, workers: int) -> Iterator[bool]:
    """Whether each of the modules passes the tests within ``limit`` seconds of the processor's, in their order."""
    waiting = list(enumerate(sources))[::-1]
    running: dict[int, tuple[int, float]] = {}
    done: dict[int, bool] = {}
    given = 0
    while given < len(sources):
        while waiting and len(running) < workers:
            i, source = waiting.pop()
            running[begin(name, source, tests, limit)] = i, time.monotonic() + LONGEST_WAIT
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
    """Try the mutants of a module: how many there are, how many died, in what time, and those that live."""
    tests: list[str] = choice["tests"]
    source = (ROOT / "gradcam_callback" / f"{name}.py").read_text()
    load(tests)
    start, used = time.monotonic(), _seconds_of_forks()
    if not all(survived(name, [source], tests, LONGEST_WAIT, 1)):
        raise SystemExit(f"The tests {' '.join(tests)} fail on {name}.py as it is. Expected tests that pass.")
    alone = _seconds_of_forks() - used
    result = RESULTS / f"{name}.json"
    before: dict[str, Any] = json.loads(result.read_text()) if only_remaining else {"killed": [], "seconds": 0.0}
    every = mutants(source, choice.get("left_out"))
    tried = [mutant for mutant in every if [mutant.place, mutant.to] not in before["killed"]]
    limit = LEAST_PATIENCE + math.ceil(PATIENCE * alone)
    survivors = []
    outcomes = survived(name, [mutant.source for mutant in tried], tests, limit, workers)
    for i, (mutant, lives) in enumerate(zip(tried, outcomes, strict=True), 1):
        if lives:
            survivors.append((mutant.line, mutant.place, mutant.to))
        if lives or i % 100 == 0:
            done = f"{name}: {i} of {len(tried)} in {time.monotonic() - start:.0f} s, {len(survivors)} alive"
            print(f"{done}; line {mutant.line}, {mutant.place} -> {mutant.to}" if lives else done, flush=True)
    alive = {(place, to) for _, place, to in survivors}
    found = {
        "mutants": len(every),
        "seconds": before["seconds"] + time.monotonic() - start,
        "survivors": survivors,
        "killed": [(mutant.place, mutant.to) for mutant in every if (mutant.place, mutant.to) not in alive],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(found, indent=1))
    return found


def _seconds_of_forks() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def listed(reasons: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    """The places and changes that have a reason to live."""
    return {(place, to) for reason in reasons for place, changes in reason["mutants"].items() for to in changes}


def unexplained(survivors: Sequence[tuple[int, str, str]], reasons: Sequence[dict[str, Any]]) -> list[str]:
    """What the list of reasons lacks, ready to be put there, and what it has too much."""
    lives = {(place, to) for _, place, to in survivors}
    known = listed(reasons)
    lacking: dict[str, list[str]] = {}
    for _, place, to in survivors:
        if (place, to) not in known:
            lacking.setdefault(place, []).append(to)
    return [
        *(f"not listed: {json.dumps(place, ensure_ascii=False)} = {json.dumps(to)}" for place, to in lacking.items()),
        *(f"listed, but it does not survive: {place} -> {to or 'nothing'}" for place, to in sorted(known - lives)),
    ]


def table(found: dict[str, dict[str, Any]], config: dict[str, Any]) -> str:
    """The results in Markdown, survivors under their reasons."""
    lines = [
        "| module | tests | mutants | killed | survived | minutes |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, result in found.items():
        tests = ", ".join(f"`{Path(test).name}`" for test in config[name]["tests"] if not test.startswith("-"))
        count, alive = result["mutants"], len(result["survivors"])
        lines.append(f"| `{name}` | {tests} | {count} | {count - alive} | {alive} | {result['seconds'] / 60:.0f} |")
    lines.append("")
    lines.append(f"cosmic-ray {version('cosmic-ray')}, Python {platform.python_version()}, {os.cpu_count()} CPU cores.")
    for name, result in found.items():
        numbers: dict[tuple[str, str], list[int]] = {}
        for line, place, to in result["survivors"]:
            numbers.setdefault((place, to), []).append(line)
        for reason in config[name]["survivors"]:
            lines += ["", f"### `{name}`: {reason['what']}", "", reason["why"].strip(), ""]
            lines += ["| line | what is replaced | by |", "|---:|---|---|"]
            for place, changes in reason["mutants"].items():
                at = ", ".join(str(n) for n in sorted({n for to in changes for n in numbers.get((place, to), [])}))
                by = " ".join(_code(to) if to else "nothing" for to in changes)
                lines.append(f"| {at} | {_code(place)} | {by} |")
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def main() -> None:
    config = tomllib.loads(REASONS.read_text())
    parser = argparse.ArgumentParser(description="Which small changes of the code the tests do not notice.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(config)}; all unless named")
    parser.add_argument("--remaining", action="store_true", help="only what was not killed the last time")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="mutants at a time (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between its <!-- mutation --> marks")
    args = parser.parse_args()
    wrong = sorted(set(args.modules) - set(config))
    if wrong:
        parser.error(f"unknown: {', '.join(wrong)}. Expected some of {', '.join(config)}.")
    found, complaints = {}, []
    for name in args.modules or config:
        found[name] = check(name, config[name], args.remaining, args.workers)
        complaints += [f"{name}: {text}" for text in unexplained(found[name]["survivors"], config[name]["survivors"])]
    text = table(found, config)
    print(text)
    if args.write:
        write(args.write, "mutation", text)
    if complaints:
        raise SystemExit("\n".join([*complaints, f"Expected each survivor in {REASONS.name}, and no other."]))


if __name__ == "__main__":
    main()
