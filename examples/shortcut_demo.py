"""The demo: a pretrained VGG16 is fine-tuned twice on one task, and learns the background in one of the runs.

The classes are stars, hearts and moons. In the first run every star lies on grass, every heart on brick and every moon
on gravel. This is so in the training and in the validation data, as happens in practice. In the second run the grounds
are random. The validation accuracy of both runs is the same. The panels and metrics of the callback show the
difference.

    python examples/shortcut_demo.py [--weights demo|torchvision|FILE] [--out runs/demo]
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from pretrained import VGG16, WeightsUnavailable, for_finetuning
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from toys import CLASSES, Item, Toys

from gradcam_callback import GradCAMCallback, ProbeSet

LAYER = "block5_conv3"
PROBE_PER_CLASS = 4


class FineTuning(pl.LightningModule):
    """Fine-tuning of a VGG16. Blocks 1 and 2 are frozen; the head learns faster than the other convolutions."""

    def __init__(self, network: VGG16) -> None:
        super().__init__()
        self.network = network
        # The first 10 of torchvision's feature modules are blocks 1 and 2.
        for module in list(network.features.children())[:10]:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, labels, _ = batch
        loss = functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, labels, _ = batch
        accuracy = (self(images).argmax(dim=1) == labels).float().mean()
        self.log("val_acc", accuracy, prog_bar=True, batch_size=len(images))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        slow = [p for p in self.network.features.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            [{"params": slow, "lr": 3e-5}, {"params": self.network.classifier.parameters(), "lr": 1e-3}]
        )


@dataclass(frozen=True)
class Result:
    """The metrics at the end of a run.

    Attributes:
        name: of the run.
        validation: accuracy on the validation data, 0..1.
        unbiased: accuracy on toys on random grounds, 0..1.
        control: accuracy on probe images with other grounds of the same class, 0..1.
        swapped: the same with the grounds of other classes.
        lift: at `LAYER`; 1 is chance.
        headlines: of the callback's verdicts, by what tells the toys from the ground.
    """

    name: str
    validation: float
    unbiased: float
    control: float
    swapped: float
    lift: float
    headlines: dict[str, str]


def train(name: str, bias: float, args: argparse.Namespace) -> Result:
    """Fine-tune a network, log the run, save the weights, and measure the network."""
    pl.seed_everything(args.seed, verbose=False)
    network = for_finetuning(args.weights, len(CLASSES))
    training, validation = Toys(args.images, bias, seed=1), Toys(args.images // 3, bias, seed=2)
    unbiased = Toys(args.images // 3, 0.0, seed=3)
    for earlier in (Path(args.out) / name).glob("events.out.tfevents.*"):
        earlier.unlink()  # TensorBoard shows two runs in one folder as one
    probe = ProbeSet.from_dataset(validation, PROBE_PER_CLASS)
    watch = GradCAMCallback(probe, log_before_training=True, views="all")
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        accelerator="auto",
        devices=1,
        callbacks=[watch],
        logger=TensorBoardLogger(args.out, name=name, version=""),
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    print(f"\n{name}: training on {len(training)} images, {bias:.0%} of them on the ground of their class")
    # Convolutions are faster in this memory format on a CPU.
    model = FineTuning(network).to(memory_format=torch.channels_last)
    trainer.fit(model, _loader(training, shuffle=True), _loader(validation))
    torch.save(network.state_dict(), Path(args.out) / name / "vgg16.pt")
    own = {} if watch.verdict is None else {watch.verdict.basis: watch.verdict.headline}
    return Result(
        name,
        float(trainer.callback_metrics["val_acc"]),
        _accuracy(model, unbiased),
        watch.history[-1]["gradcam/swap_control_accuracy"],
        watch.history[-1]["gradcam/swap_accuracy"],
        watch.history[-1][f"gradcam/lift/{LAYER}"],
        {**own, **judge_without_masks(model, probe, _loader(validation), name, args)},
    )


def judge_without_masks(
    model: FineTuning, probe: ProbeSet, validation: DataLoader[Item], name: str, args: argparse.Namespace
) -> dict[str, str]:
    """Judge a trained network as if nobody had drawn masks: by automatic masks, and by the frame of the images.

    This is logged in a folder of its own, so that TensorBoard compares the trainings alone.

    Returns:
        The headline of the verdict by each basis.
    """

    def watch(masks: str | None, prefix: str) -> GradCAMCallback:
        same = ProbeSet(probe.images, probe.labels, masks, probe.names, probe.class_names)
        return GradCAMCallback(same, LAYER, tag_prefix=prefix, views=["counterfactuals", "masks"])

    out = without_masks(args.out)
    for earlier in (Path(out) / name).glob("events.out.tfevents.*"):
        earlier.unlink()
    watches = [watch("auto", "automatic"), watch(None, "frame")]
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        callbacks=[*watches],
        logger=TensorBoardLogger(out, name=name, version=""),
        enable_progress_bar=False,
    )
    trainer.validate(model, validation, verbose=False)
    return {watch.verdict.basis: watch.verdict.headline for watch in watches if watch.verdict is not None}


def without_masks(out: str) -> str:
    """Return the folder of the runs that judge without masks, beside that of the trainings."""
    return f"{out.rstrip('/')}_without_masks"


def _loader(toys: Toys, shuffle: bool = False) -> DataLoader[Item]:
    return DataLoader(toys, batch_size=24, shuffle=shuffle)


@torch.inference_mode()
def _accuracy(model: FineTuning, toys: Toys) -> float:
    model.eval()
    n_correct = sum(
        int((model(images.to(model.device)).argmax(dim=1).cpu() == labels).sum()) for images, labels, _ in _loader(toys)
    )
    return n_correct / len(toys)


def report(shortcut: Result, clean: Result) -> str:
    """Format the results as a table, and say in a sentence what they mean."""
    lines = [
        f"{'run':<10}{'validation':>12}{'unbiased data':>16}{'ground of':>17}{'ground of':>17}{'lift at':>15}",
        f"{'':<38}{'own class':>17}{'other classes':>17}{LAYER:>15}",
        *(
            f"{r.name:<10}{r.validation:>12.0%}{r.unbiased:>16.0%}{r.control:>17.0%}{r.swapped:>17.0%}{r.lift:>15.2f}"
            for r in (shortcut, clean)
        ),
        "",
        "The callback's verdicts, from validation images alone:",
        *(f"  {r.name}, by {basis}: {words}" for r in (shortcut, clean) for basis, words in r.headlines.items()),
        "",
    ]
    if shortcut.unbiased < clean.unbiased - 0.15 and shortcut.lift < clean.lift:
        lines.append(
            f"Both networks look perfect in validation ({shortcut.validation:.0%} and {clean.validation:.0%}). But the "
            f"shortcut network looks less at the toy (lift {shortcut.lift:.2f}, the clean network {clean.lift:.2f}), "
            f"and its accuracy drops to {shortcut.unbiased:.0%} if the ground is random. It has learnt the ground, not "
            "the toy."
        )
    else:
        lines.append("In these runs the shortcut network has not learnt a shortcut: it still finds the toys.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", default="demo", help="demo (installed), torchvision (download) or a state dict")
    parser.add_argument("-o", "--out", default="runs/demo", help="folder for the TensorBoard runs")
    parser.add_argument("--images", type=int, default=192, help="training images per run")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    try:
        shortcut, clean = train("shortcut", 1.0, args), train("clean", 0.0, args)
    except WeightsUnavailable as error:
        sys.exit(str(error))
    print(f"\n{report(shortcut, clean)}\n\nOpen TensorBoard to compare the runs:\n")
    print(f"    tensorboard --logdir {shlex.quote(args.out)}\n")
    print(f"The verdicts without masks, with their images, are in {without_masks(args.out)}.\n")


if __name__ == "__main__":
    main()
