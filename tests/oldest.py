"""The oldest version of each dependency that pyproject.toml admits, as constraints for pip.

python tests/oldest.py > constraints.txt
"""

import re
from importlib.metadata import requires


def main() -> None:
    for requirement in requires("gradcam-callback") or ():
        # What the package itself and its users' extras need; the developers' tools may be of any version.
        found = re.match(r"([\w.-]+)>=([\w.]+)(?:; extra == '(?:coco|demo)')?$", requirement)
        if found:
            print(f"{found[1]}=={found[2]}")

    # TensorBoard before 2.21 imports pkg_resources, which setuptools no longer has since version 82.
    print("setuptools<82")


if __name__ == "__main__":
    main()
