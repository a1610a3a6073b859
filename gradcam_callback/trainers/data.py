"""The way of the validation data to the model: the loader, the Trainer's hooks, and the probe set taken from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from functools import partial
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset

from gradcam_callback.exceptions import GradCAMWarning, UserCodeError
from gradcam_callback.maps import GradCAM, as_input, borrowed
from gradcam_callback.probes import (
    SPARE,
    BatchTransform,
    ClassNames,
    Collector,
    CountClasses,
    Feed,
    Item,
    NoImagesError,
    ProbeSet,
    Quota,
    Sample,
    choose_from_batches,
    choose_items,
    choose_masked,
    fill_row,
    find_class_names,
    find_label_place,
    make_probe_set,
    set_apart,
    to_classes,
)
from gradcam_callback.random_state import preserved_generators, preserved_random_state
from gradcam_callback.run import BatchForward, blame_forward, warn_lost
from gradcam_callback.trainers.loaders import untouched
from gradcam_callback.trainers.samplers import drawn_indices
from gradcam_callback.trainers.trainer import gather, validating

# The automatic probe set: images at most, and images at most that are read for their labels, from a dataset by index or
# from the batches of a loader.
AUTO_IMAGES, AUTO_SCANNED, AUTO_STREAMED = 16, 2048, 512
# The verdict rests on so many images at most. Each class has two at least, as one has no control.
VERDICT_IMAGES, VERDICT_LEAST = 64, 2
# Items that tell what the images and labels of the data are like.
EXAMPLES = 16


class ValidationData:
    """The validation data of a Trainer, or in ``trainer.test`` the test data, as the model gets them.

    Args:
        trainer: its data are set up.
        module: the model.
        batch_transform: the user's ``(images, labels)`` or ``(images, labels, masks)`` of a batch.
        needs_labels: False takes images without labels.
        automatic_masks: True gives images without a mask an automatic one.

    Attributes:
        loader: the first of the Trainer's loaders.
        has_several: True if there are others, which are not looked at.
        dataset: of the loader, in the order in which it draws the items.
        feed: the way of the items to the model.
        automatic_masks: as given.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        batch_transform: BatchTransform | None,
        needs_labels: bool,
        automatic_masks: bool = False,
    ) -> None:
        self._trainer, self._module, self.automatic_masks = trainer, module, automatic_masks
        is_test = trainer.state.fn == TrainerFn.TESTING
        loaders = trainer.test_dataloaders if is_test else trainer.val_dataloaders
        self.loader, self.has_several = _first(loaders), _are_several(loaders)
        self.dataset = set_apart(getattr(self.loader, "dataset", None))
        self.feed = Feed(
            name="your test data" if is_test else "your validation data",
            collate=getattr(self.loader, "collate_fn", None),
            transfer=self._transfer,
            batch_transform=batch_transform,
            needs_labels=needs_labels,
            shows_progress=trainer.progress_bar_callback is not None,
        )
        indices = drawn_indices(self.loader) if self.can_be_indexed and isinstance(self.loader, DataLoader) else None
        if indices is not None:
            self.dataset = Subset(self.dataset, indices)

    @property
    def can_be_indexed(self) -> bool:
        """Return True if single items can be read without a run through the loader."""
        dataset = self.dataset
        if isinstance(self.loader, DataLoader) and self.loader.batch_sampler is None:
            return False  # the dataset makes the batches itself
        has_items = isinstance(dataset, Sized) and hasattr(dataset, "__getitem__")
        return has_items and not isinstance(dataset, IterableDataset) and self.feed.collate is not None

    @property
    def pass_by_only(self) -> bool:
        """Return True if the loader or its data are their own iterator: what is read is lost to the validation."""
        if self.can_be_indexed:
            return False
        if hasattr(self.loader, "__next__"):
            return True
        with untouched(self.loader):
            return _is_used_up(getattr(self.loader, "dataset", None))

    def without_labels(self) -> ValidationData:
        """Return the same data, of which no labels are needed."""
        return ValidationData(self._trainer, self._module, self.feed.batch_transform, False, self.automatic_masks)

    def take_probe_set(self, cam: GradCAM, forward: BatchForward | None, seed: int) -> ProbeSet:
        """Choose up to 64 images evenly over the classes, of which up to 16 are watched.

        Raises:
            ValueError: images and labels cannot be told for certain.
            UserCodeError: the dataset, the collate function, a hook or ``batch_transform`` failed.
        """
        count = partial(count_classes, cam, forward)

        def read_batches() -> ProbeSet:
            with untouched(self.loader):
                items = choose_from_batches(self.loader, self.feed, self._quota, AUTO_STREAMED, count, self._spare)
            return self._choose(items, self._certain_names(), count)

        if not self.can_be_indexed:
            return self._share(read_batches)
        chosen = choose_items(self.dataset, self.feed, self._quota, seed, AUTO_SCANNED, count, self.automatic_masks)
        return self._choose(chosen.items, chosen.class_names, count, is_certain=chosen.is_certain)

    def collector(self, cam: GradCAM, forward: BatchForward | None) -> Collector:
        """Return a collector for batches that pass by."""
        return Collector(self.feed, self._quota, partial(count_classes, cam, forward), self._spare)

    def finish(self, collector: Collector, error: Exception | None) -> ProbeSet:
        """Return the probe set of a collector, or raise the error that ended it."""

        def choose() -> ProbeSet:
            if error is not None:
                raise error
            return self._choose(collector.items(), self._certain_names(), collector.count_classes)

        return self._share(choose)

    def load_examples(self) -> list[tuple[int, Any]]:
        """Load a few items, with their numbers."""
        n = len(self.dataset)
        numbers = range(0, n, max(1, math.ceil(n / EXAMPLES)))
        loaded = [(number, self.feed.load(self.dataset, number, seed=number)) for number in numbers]
        return [(number, item) for number, item in loaded if item is not None]

    def find_other_label(self, found: ClassNames, examples: Sequence[tuple[int, Any]]) -> int | None:
        """Return the number of an item to whose label the names of the classes do not belong; None without any."""
        for number, item in examples if found.labels is not None else ():
            classes = to_classes(self.feed.label_of(item, number), f"the label of item {number}", self.feed.name)
            if not found.fit(number, classes):
                return number
        return None

    def warn_of_other_classes(self, probe: ProbeSet) -> None:
        """Warn of a probe set whose classes have other numbers than those of the same names in the data.

        A folder that lacks the first class gives such a set.
        """
        theirs = (self._certain_names() if probe.has_labels and probe.class_names else None) or []
        for label in sorted(set(probe.labels.tolist())) if theirs else []:
            name = probe.class_name(label)
            # Several classes may have the same name, as the two cranes of ImageNet.
            if name in theirs and theirs[label : label + 1] != [name]:
                warn_lost(
                    f"accuracies and verdict may be of the wrong classes, since {name!r} is class {label} in the probe "
                    f"set and class {theirs.index(name)} in the validation data; pass class_names={theirs} to the "
                    "probe set"
                )
                return

    def _certain_names(self) -> list[str] | None:
        """Return the names of the classes of the data, None if they may belong to other labels."""
        found = find_class_names(self.dataset)
        if found is None or found.labels is None:
            return found and found.names
        if not self.can_be_indexed:
            return None
        with preserved_random_state(), preserved_generators([self.dataset]):
            try:
                return found.names if self.find_other_label(found, self.load_examples()) is None else None
            except ValueError:
                return None  # the labels of the items cannot be told, and are not needed

    @property
    def _spare(self) -> int:
        """Return how many times as many images are read from batches as are wanted."""
        return SPARE if self.automatic_masks else 1

    @property
    def _quota(self) -> Quota:
        # Without labels there is no verdict.
        return Quota(None, VERDICT_IMAGES, VERDICT_LEAST) if self.feed.needs_labels else Quota(None, AUTO_IMAGES)

    def _choose(
        self, items: list[Item], class_names: list[str] | None, count: CountClasses, is_certain: bool = False
    ) -> ProbeSet:
        """Make a probe set of items; with automatic masks, of those with a good mask if there are enough.

        Args:
            class_names: as in `make_probe_set`.
            count: the classes of the network.
            is_certain: True if something else than the items says that these are their labels.
        """
        if class_names and len(class_names) > _count(items, count):
            class_names = None  # a dataset around this one may give other labels
        make = partial(self.make, class_names=class_names)
        if self.automatic_masks:
            everything = choose_masked(items, self._quota, make, self.feed.shows_progress)
        else:
            everything = make(items, automatic=False)
        everything.n_classes = len(everything.class_names) if everything.class_names else None
        if self.feed.needs_labels:
            everything.label_hint = self._say_which_labels(items, count, is_certain)
        return everything.watch(AUTO_IMAGES)

    def _say_which_labels(self, items: Sequence[Item], count: CountClasses, is_certain: bool) -> str:
        """Say where the labels come from, and what to do if they are wrong. Warn of what may be the labels, too."""
        if self.feed.batch_transform is not None:
            return "The labels come from your batch_transform."
        batches = [fill_row(item.row, item.image[None]) for item in items if item.row is not None]
        place = find_label_place(batches) if batches else None
        if place is None or not place.labels:
            return ""
        rivals = {} if is_certain else place.rivals
        n_classes = _count(items, count) if rivals else 0
        others = [other for other, largest in rivals.items() if largest < n_classes]
        where = f"{place.labels} of {self.feed.name}"
        if not others:
            return f"The labels are {where}; for others, pass batch_transform=lambda batch: (images, labels)."
        choice = f"batch_transform=lambda batch: ({place.images}, {{}})"
        # Labels that are no classes of the network are refused, with what is returned here.
        if max(item.label for item in items) < n_classes:
            rank_zero_warn(
                f"GradCAM: {where} is taken as the label, but {others[0]} may be the label, too. If it is, maps, "
                f"accuracies and verdict are of wrong classes: pass {choice.format(others[0])}. If it is not, "
                f"{choice.format(place.labels)} says so.",
                category=GradCAMWarning,
            )
        return f"The labels are {where}; if {others[0]} holds them, pass {choice.format(others[0])}."

    def make(self, items: Sequence[Item], *, class_names: list[str] | None, automatic: bool) -> ProbeSet:
        """Make a probe set of items that have gone the way of the data; see `make_probe_set`."""
        data_module = getattr(self._trainer, "datamodule", None)
        return make_probe_set(
            items,
            class_names=class_names,
            sources=[self.dataset, self.feed.collate],
            # A hook may normalise with a transform that one of these holds. The module may do so in its forward, too.
            other_sources=[data_module and vars(data_module), self._module, data_module],
            labelled=self.feed.needs_labels,
            automatic=automatic,
        )

    def _share(self, choose: Callable[[], ProbeSet]) -> ProbeSet:
        """Choose one probe set for all processes, each of which reads a part of its own of the data.

        It is that of the first process that has images. If this one fails, its error is raised in all of them.
        """
        trainer, error = self._trainer, None
        if trainer.world_size == 1:
            return choose()
        found: ProbeSet | Exception
        try:
            found = choose()
        except Exception as failure:
            error, found = failure, _to_send(failure)
        # Every process comes here, also one that has failed. Otherwise the others would wait for it.
        has_images = gather(trainer, not isinstance(error, NoImagesError))
        source = has_images.index(True) if any(has_images) else 0
        shared: ProbeSet | Exception = trainer.strategy.broadcast(found, source)
        if error is not None and trainer.global_rank == source:
            raise error
        if isinstance(shared, Exception):
            raise shared
        return shared

    def _transfer(self, batch: Any) -> Any:
        """Do with a batch what the loop of a validation does before its step."""
        trainer, module = self._trainer, self._module
        with validating(trainer), borrowed(module), torch.no_grad():
            batch = trainer.precision_plugin.convert_input(batch)
            batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
            return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def _count(items: Sequence[Item], count: CountClasses) -> int:
    first = items[0]
    return count(Sample(first.image, None, None, first.row))


def count_classes(cam: GradCAM, forward: BatchForward | None, sample: Sample) -> int:
    """Return the number of classes of a network, from its outputs for one image."""
    image = as_input(cam.model, sample.image[None])

    def run(model: nn.Module, images: Tensor, _indices: Tensor) -> Any:
        assert forward is not None
        return forward(model, fill_row(sample.row, images))

    own = None if forward is None or sample.row is None else run
    with blame_forward(image, forward):
        return max(2, cam.predict(image, forward=own).shape[1])


def _to_send(error: Exception) -> Exception:
    """Return an error with the same text, and of a kind that every process can read."""
    kind = next((kind for kind in (UserCodeError, ValueError) if isinstance(error, kind)), RuntimeError)
    return kind(str(error))


def _is_used_up(dataset: Any) -> bool:
    """Return True if an iterable dataset gives the same iterator each time."""
    if not isinstance(dataset, IterableDataset):
        return False
    try:
        return iter(dataset) is iter(dataset)
    except Exception:
        return False  # it may need a worker


def _first(loader: Any) -> Any:
    # Several loaders come as a list or a dict, perhaps nested. The first one counts.
    while isinstance(loader, (list, tuple, dict)) and loader:
        loader = next(iter(loader.values())) if isinstance(loader, dict) else loader[0]
    return loader


def _are_several(loaders: Any) -> bool:
    if not isinstance(loaders, (list, tuple, dict)):
        return False
    inside = list(loaders.values()) if isinstance(loaders, dict) else loaders
    return len(inside) > 1 or any(map(_are_several, inside))
