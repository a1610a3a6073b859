"""Trains in a process of its own, in which something gives out in the third epoch, and is back in the fifth.

    python outage.py FOLDER USER KIND...

The trainings run one after the other. KIND is what gives out: ``disk`` (no file grows any further), ``folder`` (the
log folder is deleted), ``permission`` (it may not be written to; by USER, who is not the administrator), ``memory``
(no more than there is), or ``nothing``. ``memory`` has to be the first, as later trainings find room that an earlier
one has left.
"""

import json
import os
import resource
import shutil
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from conftest import ThinVGG
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader
from toys import Toys

from gradcam_callback import GradCAMCallback, GradCAMWarning, ProbeSet


class Outage(pl.Callback):
    def __init__(self, kind, folder):
        self.kind, self.folder = kind, folder

    def on_train_epoch_start(self, trainer, pl_module):
        event_files = sorted(self.folder.glob("run/events*"))
        if trainer.current_epoch == 2:
            # TensorBoard writes in a thread. On a busy machine some of the last epoch would still wait, and be lost.
            trainer.logger.experiment.flush()
        if trainer.current_epoch == 2 and self.kind == "disk":
            # The next record is cut.
            resource.setrlimit(resource.RLIMIT_FSIZE, (event_files[0].stat().st_size + 5000, -1))
        if trainer.current_epoch == 2 and self.kind == "folder":
            shutil.rmtree(self.folder / "run")
            (self.folder / "run").write_text("nor can it be made again")
        if trainer.current_epoch == 2 and self.kind == "permission":
            self.lock(0o444, 0o555)
        if trainer.current_epoch == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
            if self.kind == "folder":
                (self.folder / "run").unlink()
            if self.kind == "permission":
                self.lock(0o644, 0o755)

    def lock(self, files, folders):
        for path in [self.folder / "run", *(self.folder / "run").rglob("*")]:
            path.chmod(0o755)
        for path in [*(self.folder / "run").rglob("*"), self.folder / "run"]:
            path.chmod(folders if path.is_dir() else files)

    def on_validation_batch_start(self, trainer, pl_module, *_batch):
        if self.kind == "memory" and trainer.current_epoch < 2:  # before any map has got itself room
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**22, -1))


class Relief(pl.Callback):
    """Behind the one that computes maps: what the validation itself needs is there."""

    def on_validation_batch_start(self, trainer, pl_module, *_batch):
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))


def train(folder, user, kind):
    folder.mkdir()
    if kind == "permission" and os.geteuid() == 0:
        os.chown(folder, user, user)
        os.seteuid(user)
    pl.seed_everything(0, verbose=False)
    toys = Toys(6, bias=1.0, seed=0, size=64)
    # Large images, so that their maps need more memory than the training.
    large = Toys(3, bias=1.0, seed=1, size=512 if kind == "memory" else 64)
    callback = GradCAMCallback(
        ProbeSet.from_dataset(large),
        ["block1", "block5"],
        views=["probe", "layer", "animation"],
        save_dir=folder / "run" / "focus",
    )
    module = ThinVGG()
    trainer = pl.Trainer(
        max_epochs=6,
        logger=TensorBoardLogger(folder, name="run", version=""),
        callbacks=[Outage(kind, folder), callback, Relief()],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "GradCAM: the probe images are unlike")
        trainer.fit(module, DataLoader(toys, batch_size=3), DataLoader(toys, batch_size=3))
    knows = {
        "said": [str(one.message) for one in caught if one.category is GradCAMWarning],
        "history": callback.history,
        "losses": module.losses,
        "weights": [float(p.detach().double().sum()) for p in module.parameters()],
        "random": torch.get_rng_state().tolist(),
    }
    (folder / "knows.json").write_text(json.dumps(knows))
    if kind == "permission" and os.getuid() == 0:
        os.seteuid(0)


def main():
    folder, user = Path(sys.argv[1]), int(sys.argv[2])
    for kind in sys.argv[3:]:
        train(folder / kind, user, kind)


if __name__ == "__main__":
    main()
