"""The way of the data through the files runs one way, and the public names are those that are meant."""

import ast
import re
from pathlib import Path

import gradcam_callback

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradcam_callback"
# Each file may import those above it.
ORDER = (
    "words",
    "notices",
    "state",
    "masks",
    "pictures",
    "datasets",
    "folders",
    "coco",
    "probe",
    "layers",
    "spatial",
    "methods",
    "chunks",
    "answers",
    "frozen",
    "activations",
    "gradcam",
    "metrics",
    "inpaint",
    "shortcut",
    "faithfulness",
    "verdict",
    "observation",
    "fonts",
    "heatmap",
    "canvas",
    "plots",
    "render",
    "evolution",
    "record",
    "panels",
    "sinks",
    "eventfile",
    "tensorboard",
    "trackers",
    "journal",
    "trainers",
    "callback",
    "photographs",
    "loading",
    "checkpoints",
    "report",
    "__init__",
    "__main__",
)
KNOW_LIGHTNING = {"trainers", "callback", "checkpoints"}
KNOW_NO_TORCH = {"words", "notices", "fonts", "heatmap", "canvas", "plots", "render"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_has_its_place():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ORDER)


def test_files_import_only_what_stands_above_them():
    for place, name in enumerate(ORDER):
        own = {part.split(".")[1] for part in imports(PACKAGE / f"{name}.py") if part.startswith("gradcam_callback.")}
        assert own & set(ORDER) <= set(ORDER[:place]), name


def test_only_the_last_files_know_lightning_and_pictures_know_no_torch():
    for name in ORDER[:-2]:
        roots = {part.split(".")[0] for part in imports(PACKAGE / f"{name}.py")}
        assert ("pytorch_lightning" in roots) == (name in KNOW_LIGHTNING), name
        assert "torch" not in roots or name not in KNOW_NO_TORCH, name


def test_public_names_are_sorted_and_there():
    assert gradcam_callback.__all__ == sorted(gradcam_callback.__all__)
    assert {"GradCAM", "GradCAMCallback", "ProbeSet"} <= set(gradcam_callback.__all__)
    for name in gradcam_callback.__all__:
        assert getattr(gradcam_callback, name).__doc__


def test_public_docstrings_name_the_formula_and_the_paper():
    assert "1610.02391" in gradcam_callback.GradCAM.__doc__ and "alpha_k" in gradcam_callback.GradCAM.__doc__


def test_readme_code_runs_on_what_the_package_offers():
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    assert blocks
    for block in blocks:
        ast.parse(block)
    used = set(re.findall(r"gc\.(\w+)", "".join(blocks)))
    assert used and used <= set(gradcam_callback.__all__)


def test_readme_pictures_are_there_and_small():
    readme = (ROOT / "README.md").read_text()
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 400_000
