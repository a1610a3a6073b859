"""The overview can be read in a card of TensorBoard, and says what the maps and the verdict say."""

import io
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_suspicion import ReadsTheGround
from test_verdict import FOCUS, SHORTCUT, found
from toys import CLASSES

from gradcam_callback import GradCAMCallback, ProbeSet, ShortcutWarning
from gradcam_callback.drawing import MOST_IMAGES, Caption, InputImage, Overview, Style, canvas, overview
from gradcam_callback.drawing import text as fonts
from gradcam_callback.drawing.canvas import CORRECT, FAINT, WRONG
from gradcam_callback.layer_names import pick_layers
from gradcam_callback.measures import judge, judge_without_swap
from gradcam_callback.measures.basis import BASES, MASKS
from gradcam_callback.measures.swaps import ClassGap
from gradcam_callback.run.album import choose_shown, tone_of

ALL = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
LAST = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]
# The width of a card in TensorBoard's tab Images, and the least size of letters in it, in pixels.
CARD, LEGIBLE = 350, 12
RIGHT = Caption("heart-1", "heart", "heart", True, 0.87, "heart", 0.87)
MISTAKE = Caption("heart-1", "heart", "moon", False, 0.91, "heart", 0.04)
SHAPES = {"square": (60, 60), "wide": (60, 120), "tall": (120, 60)}


@dataclass
class Seen:
    """The content of a sheet: images with their places, and texts with their sizes and colours."""

    images: list
    texts: list

    @property
    def words(self):
        return [text for text, *_ in self.texts]


@pytest.fixture
def seen(monkeypatch):
    record = Seen([], [])

    def put(sheet, pixels, place):
        put_there(sheet, pixels, place)
        record.images.append((pixels, place))

    def write_line(sheet, text, place, size, colour):
        fonts.write_line(sheet, text, place, size, colour)
        record.texts.append((text, place, size, colour))

    put_there = canvas.put
    monkeypatch.setattr(overview, "put", put)
    for module in (canvas, overview):
        monkeypatch.setattr(module, "write_line", write_line)
    return record


def grey(shape="square"):
    return InputImage(np.full((*SHAPES[shape], 3), 128, np.uint8))


def planted(count, layers):
    """Return layer -> maps ``(count, 7, 7)``, each hot in a cell of its own."""
    cells = np.eye(49).reshape(49, 7, 7)
    return {layer: cells[[(5 * i + 11 * number) % 49 for i in range(count)]] for number, layer in enumerate(layers)}


def draw(count=2, layers=ALL, shape="square", caption=RIGHT, title="NO SIGN: right.", judged=True, **options):
    sheet = Overview([grey(shape)] * count, layers, Style(), judged)
    return sheet.draw(planted(count, sheet.layers), [caption] * count, title, "epoch 3", **options)


def hottest_cell(pixels):
    """Return the number of the hottest cell of an overlay of 7 x 7 cells."""
    bright = pixels.sum(axis=2, dtype=int)
    row, column = (np.argwhere(bright == bright.max()).mean(axis=0) + 0.5) * 7 // bright.shape
    return 7 * int(row) + int(column)


@pytest.mark.parametrize("layers", [ALL, ALL[-1:], ALL[-4:], ["features.3", "features.8", "features.15"]])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_each_image_stands_beside_its_maps_which_are_bright_where_they_are_hot(seen, count, shape, layers):
    sheet = np.asarray(draw(count, layers, shape))
    shown = pick_layers(layers)
    hot = planted(count, shown)
    assert len(seen.images) == count * (1 + len(shown))
    rows = [seen.images[i : i + 1 + len(shown)] for i in range(0, len(seen.images), 1 + len(shown))]
    lefts = []
    for i, ((image, (left, top)), *overlays) in enumerate(rows):
        assert (image[8:-8, 8:-8] == 128).all()
        for layer, (overlay, place) in zip(shown, overlays, strict=True):
            height, width = overlay.shape[:2]
            assert (sheet[place[1] : place[1] + height, place[0] : place[0] + width] == overlay).all()
            assert width / height == pytest.approx(SHAPES[shape][1] / SHAPES[shape][0], rel=0.03)
            assert hottest_cell(overlay) == hot[layer][i].argmax()
            assert place[1] == top
        lefts.append([left, *(place[0] for _, place in overlays)])
    # The columns of all rows, and of both halves, are equally wide.
    assert len({tuple(np.diff(row)) for row in lefts}) == 1
    assert sheet.shape[0] * CARD / sheet.shape[1] < 1024, "TensorBoard's cards are not higher"


def test_a_vgg_is_shown_by_the_last_layer_of_each_block():
    assert pick_layers(ALL) == LAST
    assert pick_layers(["block3_conv1", "block3_conv2", "block5_conv1"]) == ["block3_conv2", "block5_conv1"]
    two = [
        f"{side}.{layer}" for side in ("left", "right") for layer in ("block4_conv3", "block5_conv1", "block5_conv3")
    ]
    assert pick_layers(two) == [two[0], two[2], two[3], two[5]]


@pytest.mark.parametrize("count", [1, 4, 5, 6, 7, 16, 53])
def test_of_other_layers_five_are_shown_evenly_spread(count):
    layers = [f"features.{i}" for i in range(count)]
    shown = [layers.index(layer) for layer in pick_layers(layers)]
    assert len(shown) == min(count, 5) and shown[-1] == count - 1 and shown[0] == 0
    distances = np.diff(shown)
    assert count < 2 or distances.max() - distances.min() <= 1 and distances.min() > 0


def test_columns_are_named_by_their_blocks(seen):
    draw()
    assert seen.words[:6] == ["input", "block 1", "block 2", "block 3", "block 4", "block 5"]
    lefts = [place[0] for _, place, *_ in seen.texts[:6]]
    assert lefts == [place[0] for _, place in seen.images[:6]]


LONG = "encoder_backbone.stage_number_{}_of_the_residual_pyramid.1"


@pytest.mark.parametrize(
    ("layers", "headings"),
    [
        (["layer1.0", "layer1.1", "layer4.2"], ["layer1.0", "layer1.1", "layer4.2"]),
        ([LONG.format(word) for word in ("one", "two", "six")], ["…one…", "…two…", "…six…"]),
        ([LONG.format(f"{'x' * 90}{i}{'x' * 90}") for i in range(9)], [f"layer {i}" for i in (1, 3, 5, 7, 9)]),
    ],
)
@pytest.mark.parametrize("count", [1, 4])
def test_no_two_columns_have_the_same_heading(seen, layers, headings, count):
    draw(count, layers)
    end = seen.words.index("NO SIGN:")
    names = {}
    for text, (left, _), *_ in seen.texts[:end]:
        names.setdefault(left, []).append(text)
    columns = ["".join(lines) for lines in names.values() if lines != ["input"]]
    assert columns == headings * (len(columns) // len(headings))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param({}, id="usual"),
        pytest.param({"count": 1}, id="one image"),
        pytest.param({"count": 8}, id="many images"),
        pytest.param({"count": 8, "layers": ALL[-1:]}, id="one layer"),
        pytest.param({"layers": ["layer1.2.conv3", "layer4.2.denselayer16.conv3"]}, id="dotted layers"),
        pytest.param({"caption": Caption("x" * 200, "y" * 200, "z" * 200, False, 0.5, "", None)}, id="long names"),
        pytest.param({"caption": Caption("企鹅", "企鹅", "企鹅", True, 0.5, "", None)}, id="Chinese names"),
        pytest.param({"title": "epoch 3", "judged": False}, id="no verdict"),
    ],
)
def test_every_text_is_legible_in_a_card_and_within_it(seen, case):
    sheet = draw(**case)
    assert len(seen.texts) > 5
    for text, (left, top), size, _ in seen.texts:
        assert size * CARD / sheet.width >= LEGIBLE, text
        assert left + fonts.line_width(text, size) <= sheet.width and top + size <= sheet.height, text


def test_empty_maps_say_so_in_legible_letters(seen):
    sheet = Overview([grey()], ALL, Style(), True)
    sheet.draw({layer: np.zeros((1, 7, 7)) for layer in sheet.layers}, [RIGHT], "NO SIGN: right.", "epoch 3")
    sizes = [size for text, _, size, _ in seen.texts if text == "empty"]
    assert len(sizes) == 5 and min(sizes) * CARD / overview.WIDTH >= LEGIBLE


def test_the_word_empty_stands_on_a_dark_ground_above_the_outline_of_the_mask(seen):
    mask = np.zeros((60, 60), np.uint8)
    mask[:, 30:] = 1  # its outline runs through the word
    sheet = Overview([InputImage(grey().pixels, mask)], ALL, Style(), True)
    sheet.draw({layer: np.zeros((1, 7, 7)) for layer in sheet.layers}, [RIGHT], "NO SIGN: right.", "epoch 3")
    word = fonts.line_width("empty", overview.TEXT)
    for pixels, _ in seen.images[1:]:
        middle = pixels.shape[0] // 2
        edge = pixels[middle - overview.TEXT // 2 + 1, (pixels.shape[1] - word) // 2 : (pixels.shape[1] + word) // 2]
        assert (edge == 0).all(), "around the letters there is no white"


def test_masks_are_outlined_on_every_overlay_so_that_a_card_shows_it(seen):
    mask = np.zeros((60, 60), np.uint8)
    mask[15:45, 20:60] = 1
    sheet = Overview([InputImage(grey().pixels, mask)], ALL, Style(), True)
    sheet.draw({layer: np.ones((1, 7, 7)) for layer in sheet.layers}, [RIGHT], "NO SIGN: right.", "epoch 3")
    assert len(seen.images) == 6
    for number, (pixels, _) in enumerate(seen.images):
        white = (pixels == 255).all(axis=2)
        size = len(white) / 60
        # Half of the pixels are left in a card, here those of every second row and column.
        card = white[::2, ::2]
        assert card.any() == (number > 0), "the input is shown as it is"
        if number:
            rows, columns = (2 * np.flatnonzero(card.any(axis=axis)) for axis in (1, 0))
            assert [rows[0], rows[-1]] == pytest.approx([15 * size, 45 * size], abs=3)
            assert columns[0] == pytest.approx(20 * size, abs=3)
            middle = card[card.shape[0] // 2]
            assert middle.sum() == 1, "only its left side: the edge of the image is none of the object"


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("layers", [ALL, ALL[-1:]])
@pytest.mark.parametrize(("caption", "sign"), [(RIGHT, "87 % ✓"), (MISTAKE, "91 % ✗")])
def test_predictions_are_told_right_or_wrong_by_a_sign_and_a_colour(seen, caption, sign, layers, count):
    draw(count, layers, caption=caption)
    ends = [colour for text, _, _, colour in seen.texts if text.endswith(f" {sign}")]
    assert len(ends) == count
    assert all((colour == WRONG) == (caption is MISTAKE) for colour in ends)
    for pixels, _ in seen.images[:: 1 + len(pick_layers(layers))]:
        assert tuple(pixels[0, 0]) == caption.frame_colour


def test_long_names_leave_room_for_the_sign(seen):
    draw(caption=Caption("x" * 200, "heart", "y" * 200, False, 0.91, "", None))
    assert sum(text.startswith("y") and text.endswith("y 91 % ✗") for text in seen.words) == 2
    assert sum(text.startswith("xx") and "…" in text for text in seen.words) == 2


def of_basis(basis):
    """Yield verdicts of all kinds."""
    no_gap = found(0.98, 0.97, 0.97, low=-0.02)
    for swap in (SHORTCUT, no_gap, found(1.0, 0.98, 0.7, low=-0.02), found(0.98, 0.3, 0.28, low=-0.1)):
        for confirmed in (True, False):
            yield judge(swap, [FOCUS], confirmed, basis)
    yield judge(found(1.0, 1.0, 1.0), [FOCUS], True, basis)
    yield judge(found(0.3, 0.3, 0.3), [FOCUS], True, basis)
    few = replace(no_gap, gap_interval=(-0.5, 0.5))
    falls = replace(no_gap, worst_class=ClassGap(0, 1.0, 0.2))
    for swap, in_part in ((few, False), (few, True), (falls, False)):
        yield judge(swap, [FOCUS], True, basis, in_part=in_part, name_class=lambda _: "a class with a long name")
    yield judge(no_gap, [FOCUS], True, basis, n_classes=1000)
    yield judge(no_gap, [FOCUS], True, basis, n_all=128)
    yield judge_without_swap(1.0, "A reason.", [FOCUS], basis)
    yield judge_without_swap(1.0, "A reason.", [FOCUS], basis, counted=(100, 128))


@pytest.mark.parametrize("basis", BASES)
def test_every_headline_fits_and_has_the_colour_of_its_verdict(seen, basis):
    sizes = set()
    colours = {MASKS: {WRONG, CORRECT, FAINT}}.get(basis, {WRONG, FAINT})
    used = set()
    for verdict in of_basis(basis):
        seen.texts.clear()
        sizes.add(draw(title=verdict.headline, tone=tone_of(verdict)).size)
        written = [(text, colour) for text, _, size, colour in seen.texts if size >= overview.TEXT][6:]
        headline = ""
        while headline != verdict.headline and written:
            text, colour = written.pop(0)
            if ":" not in headline:
                used.add(colour)
                expected = FAINT
                if verdict.suspected:
                    expected = WRONG
                elif verdict.acquits:
                    expected = CORRECT
                assert colour == expected, verdict.headline
            headline = f"{headline} {text}".strip()
        assert headline == verdict.headline, "whole, and in order"
    assert used == colours
    assert len(sizes) == 1, "the slider moves through images of one size"


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ([0], [0]),
        ([0, 0], [0, 1]),
        ([2, 0, 1], [1, 2, 0]),
        ([i % 3 for i in range(16)], [0, 3, 1, 4, 2, 5]),
        ([i // 8 for i in range(16)], [0, 1, 2, 3, 8, 9, 10, 11]),
        (list(range(16)), [0, 2, 4, 6, 9, 11, 13, 15]),
        (None, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_up_to_eight_images_are_shown_evenly_over_the_classes(labels, chosen):
    probe = ProbeSet(torch.rand(len(labels or range(16)), 3, 8, 8), labels)
    shown = choose_shown(probe)
    assert shown == chosen and len(shown) <= MOST_IMAGES


def test_a_run_shows_the_same_images_at_each_entry_with_the_answers_of_its_weights(thin, fit, events, toys, seen):
    probe = ProbeSet.from_dataset(toys, 4)
    callback = GradCAMCallback(probe)
    fit(thin, callback)
    steps = [int(entry["step"]) for entry in callback.history]
    assert [event.step for event in events().Images("gradcam/overview")] == steps and len(steps) == 2
    captions = [text for text in seen.words if text.endswith(":  ")]
    names = [f"{kind}-{number}:  " for kind in CLASSES for number in (1, 2)]
    assert captions == names * 2
    shown = [probe.names.index(name.removesuffix(":  ")) for name in names]
    with torch.no_grad():
        probabilities = thin.eval()(probe.images[shown]).softmax(dim=1)
    answers = [
        f"{CLASSES[answer]} {100 * float(share[answer]):.0f} % {'✓' if answer == probe.labels[i] else '✗'}"
        for i, share in zip(shown, probabilities, strict=True)
        for answer in [int(share.argmax())]
    ]
    assert [text for text in seen.words if text.endswith(("✓", "✗"))][-6:] == answers


@pytest.mark.parametrize("case", ["masks", "no masks", "no labels"])
def test_a_run_is_headed_by_its_verdict_or_without_labels_by_its_epoch(thin, fit, toys, seen, case):
    images, labels, masks = zip(*toys.items[:6], strict=True)
    probe = ProbeSet(
        torch.stack(images),
        None if case == "no labels" else labels,
        torch.stack(masks) if case == "masks" else None,
    )
    callback = GradCAMCallback(probe, "block5", target="predicted")
    fit(thin, callback, max_epochs=1)
    words = " ".join(seen.words)
    note = "Bright: evidence. White line: object" if case == "masks" else "Bright: where the evidence lies"
    if case == "no labels":
        assert callback.verdict is None and {"epoch 0", note} <= set(seen.words)
        assert not any(text.endswith(("✓", "✗")) for text in seen.words) and "right in" not in words
    else:
        assert callback.verdict.headline in words and f"epoch 0. {note}" in seen.words


def test_a_suspicion_is_red_in_the_events_of_its_run(fit, events, toys):
    torch.manual_seed(0)
    with pytest.warns(ShortcutWarning):
        fit(ReadsTheGround(toys), GradCAMCallback(ProbeSet.from_dataset(toys, 4), "block5_conv3"))
    red = []
    for event in events().Images("gradcam/overview"):
        headline = Image.open(io.BytesIO(event.encoded_image_string)).crop((0, 0, overview.WIDTH, 90))
        pixels = np.asarray(headline).astype(int)
        red.append(int((pixels[..., 0] - pixels[..., 1] > 100).sum()))
    assert red[0] == 0 and red[1] > 500, "POSSIBLE SHORTCUT is grey, SHORTCUT SUSPECTED is red"
