"""The package is cut into sub-packages, what each may import is fixed, and the public names are the meant ones."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl

import gradcam_callback

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradcam_callback"
LEAVES = {"maps", "probes", "measures", "drawing", "writers"}
# Files that every sub-package may import, since they import nothing of the package themselves.
SHARED = {"cells", "encoded_image", "exceptions", "formatting", "layer_names", "random_state", "whole_file"}
MAY_IMPORT = {
    **dict.fromkeys(SHARED, set()),
    **dict.fromkeys(LEAVES, SHARED),
    "saliency": SHARED,
    # Automatic masks are made where a probe set is.
    "probes": SHARED | {"saliency"},
    "run": LEAVES | SHARED,
    "trainers": LEAVES | SHARED | {"run"},
    "masking": SHARED | {"drawing", "probes", "saliency"},
    "callback": LEAVES | SHARED | {"run", "trainers"},
    "lightning": {"callback"},
    "offline": LEAVES | SHARED | {"run"},
    "__init__": LEAVES | SHARED | {"callback", "offline"},
    "__main__": LEAVES | SHARED | {"masking", "offline", "run"},
}
KNOW_LIGHTNING = {"callback.py", "lightning.py", "offline/checkpoints.py"}
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def name_of(path):
    return str(path.relative_to(PACKAGE))


def place_of(path):
    """The sub-package that a file lies in, or the file itself at the root."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path):
    """Pairs of a module and a name that is imported from it, or None."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def own_imports(path):
    """The same of this package: the sub-package or file, the module inside it, and the name."""
    for module, name in imports(path):
        if module == "gradcam_callback":
            yield name, None, None
        elif module.startswith("gradcam_callback."):
            _, place, *inside = module.split(".")
            yield place, ".".join(inside) or None, name


def test_every_file_has_its_place():
    assert {place_of(path) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sub_packages_import_only_what_they_may(path):
    own = place_of(path)
    imported = {place for place, _, _ in own_imports(path)} - {own}
    assert imported <= MAY_IMPORT[own]


@pytest.mark.parametrize("path", sorted((ROOT / "gradcam_focus").rglob("*.py")), ids=lambda path: path.name)
def test_the_plugin_imports_tensorboard_and_the_standard_library_only(path):
    """TensorBoard loads it at its start. Werkzeug is TensorBoard's own server."""
    allowed = {*sys.stdlib_module_names, "tensorboard", "werkzeug", "gradcam_focus"}
    assert {module.split(".")[0] for module, _ in imports(path)} <= allowed


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_sub_package_is_used_by_what_it_exports(path):
    """A name of another sub-package comes from its `__all__`; only `run.tags` is a list of names."""
    for place, inside, name in own_imports(path):
        if place == place_of(path) or place in SHARED or name is None:
            continue
        if (place, inside) == ("run", "tags"):
            continue
        assert inside is None, f"{place}.{inside}"
        module = __import__(f"gradcam_callback.{place}", fromlist=["__all__"])
        assert name in getattr(module, "__all__", [name]), f"{place} does not export {name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_uses_a_private_name_of_another(path):
    assert [name for _, _, name in own_imports(path) if name and name.startswith("_")] == []


def test_the_callback_only_delegates():
    source = (PACKAGE / "callback.py").read_text()
    lines = source.splitlines()
    assert len(lines) < 300
    (callback,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    hooks = [node for node in callback.body if isinstance(node, ast.FunctionDef) and hasattr(pl.Callback, node.name)]
    hooks = [hook for hook in hooks if hook.name.startswith("on_") or hook.name in ("setup", "teardown")]
    assert len(hooks) >= 9
    for hook in hooks:
        body = [line.strip() for line in lines[hook.body[0].lineno - 1 : hook.end_lineno]]
        assert len([line for line in body if line and not line.startswith("#")]) <= 6, hook.name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_few_files_know_lightning_and_drawing_knows_no_torch(path):
    roots = {module.split(".")[0] for module, _ in imports(path)}
    knows = bool({"pytorch_lightning", "lightning"} & roots)
    assert not knows or place_of(path) == "trainers" or name_of(path) in KNOW_LIGHTNING
    assert place_of(path) not in {"drawing", *SHARED - {"random_state"}} or "torch" not in roots


@pytest.mark.parametrize("name", sorted(LEAVES | {"masking", "run", "trainers", "offline"}))
def test_a_sub_package_says_in_a_few_lines_what_lives_there(name):
    tree = ast.parse((PACKAGE / name / "__init__.py").read_text())
    assert 2 <= len(ast.get_docstring(tree).splitlines()) <= 6
    module = __import__(f"gradcam_callback.{name}", fromlist=["__all__"])
    assert module.__all__ == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("from gradcam_callback import GradCAM, ProbeSet, lift", ["pytorch_lightning", "tensorboard", "matplotlib"]),
        ("from gradcam_callback import overlay, Style", ["pytorch_lightning", "lightning", "tensorboard", "torch"]),
    ],
)
def test_a_name_loads_only_what_it_needs(code, absent):
    check = f"import sys\n{code}\nprint([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_public_names_are_sorted_and_there():
    assert gradcam_callback.__all__ == sorted(gradcam_callback.__all__)
    assert {"GradCAM", "GradCAMCallback", "ProbeSet"} <= set(gradcam_callback.__all__) <= set(dir(gradcam_callback))
    for name in gradcam_callback.__all__:
        assert getattr(gradcam_callback, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'GradCam'"):
        getattr(gradcam_callback, "Grad" + "Cam")


def test_public_docstrings_name_the_formula_and_the_paper():
    assert "1610.02391" in gradcam_callback.GradCAM.__doc__ and "alpha_k" in gradcam_callback.GradCAM.__doc__


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("**/*.py"))],
    ids=lambda path: path.name,
)
def test_pages_and_examples_use_public_names_alone(path):
    text = path.read_text()
    code = text if path.suffix == ".py" else "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.S))
    used = set()
    for module, name in re.findall(r"^\s*from (gradcam_callback\S*) import \(?([^()]+?)\)?$", code, flags=re.M):
        assert module == "gradcam_callback", f"{module} is no public module"
        used |= {part.strip() for part in name.replace("\n", ",").split(",") if part.strip()}
    assert used <= set(gradcam_callback.__all__)
    assert "gradcam_callback as gc" not in text, "gc is a module that PyTorch users call"


def test_readme_code_is_python():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert blocks
    for block in blocks:
        ast.parse(block)


def test_readme_pictures_are_there_and_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 400_000
