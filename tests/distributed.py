"""A training of several processes, for test_distributed.py: python distributed.py FOLDER STRATEGY PROCESSES [KIND]

Its weights stay what they are, unless KIND is ``watched`` or ``unwatched``, that is with the callback or without it;
``fault`` makes the second process fail.

Each process leaves what it knows in ``FOLDER/<rank>.json``.
"""

import json
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader
from toys import Toys

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet

LAYERS = ["block3_conv3", "block5_conv3"]


class Still(ThinVGG):
    """Its weights stay what they are, so that runs of any number of processes have the same."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Faulty(GradCAMCallback):
    """Cannot compute its share in the second process, in the first epoch."""

    def on_validation_batch_start(self, trainer, *arguments):
        faulty = trainer.global_rank == 1 and trainer.current_epoch == 0 and not trainer.sanity_checking
        if faulty:
            self._session.evaluator.cam.chunk_size = "none"
        super().on_validation_batch_start(trainer, *arguments)
        if faulty:
            self._session.evaluator.cam.chunk_size = None


class Leave(pl.Callback):
    """Writes down what the process knows."""

    def __init__(self, folder):
        self.folder, self.said = folder, []

    def on_fit_start(self, trainer, pl_module):
        warnings.showwarning = lambda message, category, *_: (
            self.said.append(str(message)) if issubclass(category, GradCAMWarning) else None
        )
        warnings.simplefilter("always", GradCAMWarning)

    def on_train_end(self, trainer, pl_module):
        knows = {
            "metrics": sorted(name for name in trainer.callback_metrics if name.startswith("gradcam/")),
            "said": self.said,
            "weights": [value.double().sum().item() for value in pl_module.state_dict().values()],
            "random": torch.get_rng_state().tolist(),
        }
        for callback in trainer.callbacks:
            if isinstance(callback, GradCAMCallback):
                knows["history"] = callback.history
                knows["evidence"] = callback.verdict and callback.verdict.evidence
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(knows))


def main(folder, strategy, processes, fault=""):
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    toys = Toys(12, 1.0, 0, 64)
    kind = Faulty if fault == "fault" else GradCAMCallback
    # Five images, of which four have masks: neither divides among two processes.
    chosen = ProbeSet.from_dataset(toys, 2)
    masks = [*chosen.masks[:4], None]
    watch = kind(ProbeSet(chosen.images[:5], chosen.labels[:5], masks), LAYERS, log_before_training=True)
    stop = EarlyStopping("gradcam/lift/block5_conv3", mode="max", patience=9)
    trainer = pl.Trainer(
        max_epochs=2,
        callbacks=[*([] if fault == "unwatched" else [watch, stop]), Leave(Path(folder))],
        logger=TensorBoardLogger(folder, name="run", version=""),
        accelerator="cpu",
        devices=int(processes),
        strategy=strategy,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    module = (ThinVGG if fault.endswith("watched") else Still)(batch_norm=False)
    trainer.fit(module, DataLoader(toys, batch_size=3), DataLoader(toys, batch_size=3))


if __name__ == "__main__":
    main(*sys.argv[1:])
