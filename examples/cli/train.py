"""The same as ``finetune_vgg16.py``, from a YAML file: LightningCLI.

    python examples/cli/train.py fit --config examples/cli/config.yaml --data.folder PHOTOGRAPHS

Anything in the file can be given on the command line, too; ``fit --help`` lists what there is. What was run is written
to ``config.yaml`` beside TensorBoard's files, and does the same again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

sys.path.insert(0, str(Path(__file__).parent.parent))

from finetune_vgg16 import FineTuning, Photographs  # from the folder above


class CLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")


if __name__ == "__main__":
    CLI(FineTuning, Photographs)
