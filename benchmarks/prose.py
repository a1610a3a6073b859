"""Measure the prose and the structure of a package: docstrings, comments, and the sizes of files and functions.

    python benchmarks/prose.py [FOLDER ...]

Without a folder it measures gradcam_callback. Another folder, such as ``site-packages/torchmetrics/functional/image``,
is measured in the same way, for comparison.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# The share of function docstrings that should open with an imperative verb.
GOAL = 0.8
# The verbs in the imperative that docstrings open with.
VERBS = frozenset(
    """
    accept add adjust aggregate allow analyse analyze announce append apply arrange ask assert assign average begin bind
    blend block blur borrow break bring build cache calculate call cast change check choose clamp clean clear clip close
    collect colour combine compare compile compute concatenate configure connect construct convert copy correct count
    cover create crop cut decide decode define delete deliver derive describe detach determine disable discard divide do
    download draw drop duplicate enable encode end ensure enter escape estimate evaluate exclude execute exit expand
    explain export extend extract fall fetch fill filter find fine-tune finish fit flatten flush follow force forget
    format forward free generate get give group guard halve handle hide hold identify ignore implement import include
    increase index infer initialise initialize insert inspect instantiate interpolate invert iterate join judge keep
    label launch lay leave let limit list load locate log look lower make map mark mask match measure merge mirror move
    multiply name normalise normalize note notify number open order overlay override pack pad paint parse pass paste
    patch perform pick place play plot point predict prepare preserve print process produce project protect provide pull
    put query quote raise rank read rebuild receive recompute record reduce refuse register reject release remember
    remove rename render repeat replace report request require resample rescale reset reshape resize resolve restore
    resume return reuse reverse revert round run sample save say scale search seed select send separate serialise set
    shift show shrink shuffle sign simulate skip smooth solve sort spell split stack start stop store stretch subtract
    suggest sum suppress swap take tell test throw tie tint toggle trace track train transform translate transpose treat
    trim try turn typeset undo unload unpack unwrap update upload upsample use validate verify visit wait walk warn
    watch weigh widen wrap write yield zip
    """.split()
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> list[Function]:
    """Return all functions of a module, with methods, nested and private functions."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and its functions."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text


def opens_with_verb(docstring: str) -> bool:
    """Return True if the first word of a docstring is an imperative verb."""
    first = re.match(r"[A-Za-z-]+(?=[\s,]|$)", docstring)
    return first is not None and first[0].lower() in VERBS


def comments(source: str) -> list[str]:
    """Return the comments of a module."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]


def prose(text: str) -> str:
    """Return a text without code in double backticks and without doctests."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith((">>>", "..."))]
    return re.sub(r"``.*?``", " ", "\n".join(lines), flags=re.DOTALL)


def measure(folder: Path) -> Iterator[str]:
    """Yield the lines of the report on a package."""
    sources = {path.relative_to(folder): path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
    if not sources:
        raise SystemExit(f"Expected a folder of Python files, but {str(folder)!r} has none. Correct the path.")
    trees = {path: ast.parse(source) for path, source in sources.items()}
    packages = Counter(path.parts[0] if len(path.parts) > 1 else "(root)" for path in sources)
    n_lines = {path: len(source.splitlines()) for path, source in sources.items()}
    file = max(sources, key=n_lines.__getitem__)
    found = [(path, function) for path, tree in trees.items() for function in functions(tree)]
    yield f"{folder}: {len(sources)} files, {sum(n_lines.values())} lines, {len(found)} functions"
    yield "files by sub-package: " + ", ".join(f"{name} {count}" for name, count in sorted(packages.items()))
    yield f"longest file: {file}, {n_lines[file]} lines"
    if found:
        path, longest = max(found, key=lambda pair: (pair[1].end_lineno or 0) - pair[1].lineno)
        length = (longest.end_lineno or 0) - longest.lineno + 1
        yield f"longest function: {longest.name} in {path}, {length} lines with its docstring"
    opening = [opens_with_verb(text) for _, function in found if (text := ast.get_docstring(function))]
    share = sum(opening) / max(len(opening), 1)
    yield f"function docstrings that open with a verb: {sum(opening)} of {len(opening)}, {share:.0%} (goal {GOAL:.0%})"
    notes = [note for source in sources.values() for note in comments(source)]
    texts = [prose(text) for tree in trees.values() for text in docstrings(tree)] + notes
    words = Counter(word.lower() for text in texts for word in re.findall(r"[A-Za-z']+", text))
    for word in ("where", "if"):
        yield f'"{word}" per 1,000 words of prose: {1000 * words[word] / max(words.total(), 1):.1f}'
    n_comment_lines = sum(line.lstrip().startswith("#") for source in sources.values() for line in source.splitlines())
    yield f"comment lines: {n_comment_lines / max(sum(n_lines.values()), 1):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = Path(__file__).parent.parent / "gradcam_callback"
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="default: gradcam_callback")
    print("\n\n".join("\n".join(measure(folder)) for folder in parser.parse_args().folders or [own]))


if __name__ == "__main__":
    main()
