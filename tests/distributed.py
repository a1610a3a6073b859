"""Trainings of several processes, for test_distributed.py: python distributed.py FOLDER STRATEGY PROCESSES KIND...

The trainings run one after the other in the same processes. KIND is one of:

- ``still``: the weights stay what they are, so that runs of any number of processes have the same.
- ``fault``: the same, and the second process fails in the first epoch.
- ``watched`` and ``unwatched``: the weights change, with the callback or without it.
- ``stream`` and ``generator``: the automatic probe set of a validation stream, read ahead or as it passes.
- ``first empty``: the same stream, of which the first process has no item.
- ``given``: the second process has no item, and the probe set is given.
- ``skipped``: the same, and Lightning knows of it, so it skips the validation there.
- ``broken``: the user's code fails in the first process, with a stream that is read as it passes.
- ``refused``: the same with a stream that is read ahead, so the training is refused.

Each process leaves what it knows in ``FOLDER/KIND/<rank>.json``.
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
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate
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


class Shards(IterableDataset):
    """Each process has items of its own, as with WebDataset."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return iter(self.items[rank::2])


class One(IterableDataset):
    """One process has all items, the other one has none."""

    def __init__(self, items, rank):
        self.items, self.rank = items, rank

    def __iter__(self):
        return iter(self.items if torch.distributed.get_rank() == self.rank else [])


class Sized(Dataset):
    """The same with items by index, so that Lightning knows that the second process has none."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return 0 if torch.distributed.get_rank() else len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def fails_first(batch):
    """A batch_transform that fails in the first process."""
    if torch.distributed.get_rank() == 0:
        raise KeyError("broken")
    return batch[:2]


class OwnIterator:
    """A loader that is its own iterator, as with DALI: what is read ahead is lost."""

    def __init__(self, items):
        self.items, self.place = items, 0

    def __iter__(self):
        return self

    def __next__(self):
        batch = self.items[self.place : self.place + 6]
        if not batch:
            self.place = 0
            raise StopIteration
        self.place += 6
        return default_collate(batch)


class Leave(pl.Callback):
    """Writes down what the process knows."""

    def __init__(self, folder, said):
        self.folder, self.said = folder, said

    def on_train_end(self, trainer, pl_module):
        knows = {
            "metrics": sorted(name for name in trainer.callback_metrics if name.startswith("gradcam/")),
            "said": [str(warning.message) for warning in self.said if issubclass(warning.category, GradCAMWarning)],
            "weights": [value.double().sum().item() for value in pl_module.state_dict().values()],
            "random": torch.get_rng_state().tolist(),
        }
        for callback in trainer.callbacks:
            if isinstance(callback, GradCAMCallback):
                knows["history"] = callback.history
                knows["evidence"] = callback.verdict and callback.verdict.evidence
                images = callback.probe_set.images if callback.probe_set else []
                knows["images"] = [image.double().sum().item() for image in images]
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(knows))


def make_probe(toys):
    # Five images, of which four have masks: neither divides among two processes.
    chosen = ProbeSet.from_dataset(toys, 2)
    return ProbeSet(chosen.images[:5], chosen.labels[:5], [*chosen.masks[:4], None])


def train(folder, strategy, processes, kind):
    pl.seed_everything(0, verbose=False)
    toys = Toys(12, 1.0, 0, 64)
    items = Toys(24, 1.0, 1, 64).items
    streams = {
        "stream": DataLoader(Shards(items), batch_size=6),
        "generator": OwnIterator(items),
        "first empty": DataLoader(One(items, 1), batch_size=6),
        "broken": OwnIterator(items),
        "refused": DataLoader(Shards(items), batch_size=6),
    }
    others = {"given": DataLoader(One(items, 0), batch_size=6), "skipped": DataLoader(Sized(items), batch_size=6)}
    probe, validation = None if kind in streams else make_probe(toys), DataLoader(toys, batch_size=3)
    validation = {**streams, **others}.get(kind, validation)
    callbacks = []
    if kind != "unwatched":
        watch = (Faulty if kind == "fault" else GradCAMCallback)(
            probe,
            LAYERS,
            log_before_training=probe is not None,
            views="all" if kind == "still" else "layer",
            batch_transform=fails_first if kind in ("broken", "refused") else None,
        )
        # Without a validation no process could stop early, whatever it waits for.
        stops = [] if kind == "skipped" else [EarlyStopping("gradcam/lift/block5_conv3", mode="max", patience=9)]
        callbacks = [watch, *stops]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", GradCAMWarning)
        trainer = pl.Trainer(
            max_epochs=1 if kind in ("given", "skipped", "broken") or "empty" in kind else 2,
            callbacks=[*callbacks, Leave(folder, said)],
            logger=TensorBoardLogger(folder, name="run", version=""),
            accelerator="cpu",
            devices=processes,
            strategy=strategy,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0 if kind == "broken" else 2,
            use_distributed_sampler=kind != "skipped",
        )
        module = (Still if kind in ("still", "fault") else ThinVGG)(batch_norm=False)
        module.allow_zero_length_dataloader_with_multiple_devices = kind == "skipped"
        try:
            trainer.fit(module, DataLoader(toys, batch_size=3), validation)
        except ValueError as error:
            (folder / f"{trainer.global_rank}.json").write_text(json.dumps({"raised": str(error)}))


def main(folder, strategy, processes, *kinds):
    torch.set_num_threads(1)
    for kind in kinds:
        # The second process may be ahead of the first.
        (Path(folder) / kind).mkdir(parents=True, exist_ok=True)
        train(Path(folder) / kind, strategy, int(processes), kind)


if __name__ == "__main__":
    main(*sys.argv[1:])
