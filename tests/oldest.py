"""The oldest version of each dependency that pyproject.toml admits, as constraints for pip.

python tests/oldest.py > constraints.txt
"""

import re
from importlib.metadata import requires


def main() -> None:
    for requirement in requires("gradcam-callback") or ():
        # What the package itself and its users' extras need; the tests' own tools may be of any version.
        found = re.match(r"([\w.-]+)(?:\[.*?\])?>=([\w.]+)(?:; *(.*))?$", requirement)
        if found and "test" not in (found[3] or "") and "bench" not in (found[3] or ""):
            name, version, _ = found.groups()
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
