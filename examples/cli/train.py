"""Run ``finetune_vgg16.py`` from a YAML file, with LightningCLI.

    python examples/cli/train.py fit --config examples/cli/config.yaml --data.folder PHOTOGRAPHS

Options of the command line replace those of the file; ``fit --help`` lists all. LightningCLI saves the configuration
as ``config.yaml`` in the folder of the run. This file repeats the run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

sys.path.insert(0, str(Path(__file__).parent.parent))

from finetune_vgg16 import FineTuning, Photographs  # in the folder above


class CLI(LightningCLI):
    """A command line that gives the number of classes in the data to the model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")


if __name__ == "__main__":
    CLI(FineTuning, Photographs)
