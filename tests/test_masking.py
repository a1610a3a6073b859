"""Masking photographs: what the command and its local server write, refuse and remember."""

import errno
import io
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from masking_server import (
    BOXES,
    Bright,
    Client,
    files_of,
    inside,
    overlap,
    picture,
    png,
    read_mask,
    save_toys,
    serving,
    statuses,
)
from PIL import Image

from gradcam_callback import ProbeSet
from gradcam_callback.__main__ import main
from gradcam_callback.masking import automatic, copy_photographs
from gradcam_callback.masking.automatic import SHEET
from gradcam_callback.masking.lazy_network import LazyNetwork
from gradcam_callback.masking.mask_files import RECORD
from gradcam_callback.masking.photographs import list_photographs


@pytest.fixture
def bright(monkeypatch):
    network = Bright()
    monkeypatch.setattr("gradcam_callback.masking.lazy_network.SaliencyNetwork", network)
    return network


@pytest.fixture
def folder(tmp_path):
    """Three photographs. The proposal of the last is doubtful, as its object is too small."""
    for name, box in BOXES.items():
        path = tmp_path / "probe" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(box).save(path, quality=95)
    return tmp_path / "probe"


@pytest.fixture
def client(bright, folder):
    with serving(folder) as (_, server):
        client = Client(server)
        client.wait()
        yield client


@pytest.fixture
def output_of(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradcam_callback", "masks", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def error_of(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradcam_callback", "masks", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return str(caught.value.code)

    return run


def test_a_caption_marks_nothing_and_an_annotation_does(tmp_path):
    for name, text in (("a", "a dog on the grass"), ("b", "0 0.5 0.5 0.2 0.2")):
        picture((5, 5, 20, 20)).save(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.txt").write_text(text)
    found = list_photographs(tmp_path)
    assert [photograph.other and photograph.other.name for photograph in found] == [None, "b.txt"]


def test_accept_all_takes_what_passed_and_undo_takes_it_back(client, folder):
    before = files_of(folder)
    assert statuses(client.wait()) == ["proposed", "proposed", "doubtful"]
    state = client.post("/accept", b"[1]")
    assert state["accepted"] == 1 and statuses(state) == ["done", "proposed", "doubtful"], "one was to be left"
    state = client.post("/accept", b"[]")
    assert state["done"] == 2 and files_of(folder) - before == {"cat/a.mask.png", "cat/b.mask.png"}
    assert overlap(read_mask(folder / "cat/a.mask.png"), inside(BOXES["cat/a.jpg"])) > 0.95
    assert statuses(client.post("/undo")) == ["done", "proposed", "doubtful"]
    state = client.post("/undo")
    assert state["done"] == 0 and state["undone"] == [0] and files_of(folder) == before
    assert client.post("/undo")["undone"] == []
    client.post("/accept", b"[]")
    assert client.post("/undo")["undone"] == [0, 1] and files_of(folder) == before


def test_two_servers_on_a_folder_keep_the_work_of_both(client, bright, folder):
    with serving(folder) as (_, server):
        late = Client(server)
        late.wait()
        client.post("/accept/0", png(inside((3, 3, 30, 30))))
        client.post("/nothing/2")
        assert late.post("/accept", b"[]")["accepted"] == 1 and (folder / "cat/b.mask.png").exists()
        assert np.array_equal(read_mask(folder / "cat/a.mask.png"), inside((3, 3, 30, 30)))
        late.post("/nothing/1")
        assert json.loads((folder / RECORD).read_text()) == {"no_object": ["cat/b.png", "dog/c.jpg"]}
        assert statuses(late.wait()) == ["done", "nothing", "doubtful"]
        late.get("/details/2")
        assert statuses(late.wait())[2] == "nothing", "opening it shows what the other server has written"


def test_a_decision_on_a_mask_that_nobody_has_seen_is_refused_once(client, folder):
    mine, path = png(inside((3, 3, 30, 30))), folder / "cat/a.mask.png"
    client.post("/accept/0", mine)
    for side, (way, body) in enumerate([("/accept/0", mine), ("/nothing/0", b""), ("/undo", b"")]):
        theirs = png(inside((5, 5, 50, 50 - side)))
        path.write_bytes(theirs)
        assert "'cat/a.jpg' as" in (said := client.post(way, body)["error"]) and "another program" in said
        assert path.read_bytes() == theirs and statuses(client.wait())[0] == "done"
    assert statuses(client.post("/nothing/0"))[0] == "nothing", "told once, it is done"
    path.write_bytes(mine)
    client.get("/details/0")
    assert statuses(client.post("/nothing/0"))[0] == "nothing" and not path.exists(), "seen, it is done"
    client.post("/accept/0", mine)
    path.unlink()
    client.get("/details/0")
    assert statuses(client.wait())[0] == "proposed", "a mask that is removed makes room for its proposal"


def test_a_tab_does_not_overwrite_the_mask_of_another_tab_unseen(client, folder):
    theirs, path = png(inside((5, 5, 50, 50))), folder / "cat/a.mask.png"
    before = json.loads(client.get("/details/0").content)["seen"]
    client.post("/accept/0", theirs)
    written = path.read_bytes()
    for way in ("/accept/0", "/nothing/0"):
        said = client.post(f"{way}?seen={before}", png(inside((3, 3, 30, 30))))["error"]
        assert "another program or tab has changed it" in said and path.read_bytes() == written
    now = json.loads(client.get("/details/0").content)["seen"]
    assert statuses(client.post(f"/nothing/0?seen={now}"))[0] == "nothing", "seen, it is done"
    assert "or tab" in client.post(f"/accept/0?seen={now}", theirs)["error"], "no object is a decision, too"


def test_what_else_marks_an_object_is_told_also_beside_a_mask(client, folder):
    """Without the mask, a probe set would read it."""
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[5, 5], [30, 30]]}
    (folder / "cat/a.json").write_text(json.dumps({"shapes": [shape], "imageWidth": 80, "imageHeight": 60}))
    with serving(folder) as (_, server):
        Client(server).post("/accept/0", png(inside((5, 5, 50, 50))))
        assert "'a.json' marks one" in Client(server).post("/nothing/0")["error"]
    with serving(folder) as (_, server):
        assert "'a.json' marks one" in Client(server).post("/nothing/0")["error"]
    assert (folder / "cat/a.mask.png").exists()


def test_undo_leaves_what_another_program_has_changed(client, folder):
    client.post("/accept", b"[]")
    theirs = png(inside((5, 5, 50, 50)))
    (folder / "cat/a.mask.png").write_bytes(theirs)
    state = client.post("/undo")
    assert state["undone"] == [1] and statuses(state) == ["done", "proposed", "doubtful"]
    assert (folder / "cat/a.mask.png").read_bytes() == theirs and not (folder / "cat/b.mask.png").exists()


def test_a_photograph_that_is_broken_or_removed_takes_no_decision(bright, folder):
    (folder / "cat/a.jpg").write_bytes(b"no image")
    with serving(folder) as (_, server):
        client = Client(server)
        client.wait()
        (folder / "cat/b.png").unlink()
        for way in ("/nothing/0", "/accept/1", "/nothing/1"):
            assert "Cannot read " in client.post(way, png(inside((5, 5, 50, 50))))["error"], way
        state = client.post("/accept", b"[]")
        assert state["accepted"] == 0 and statuses(state) == ["unreadable", "unreadable", "doubtful"]
        assert client.post("/undo")["undone"] == [] and not (folder / RECORD).exists()
    assert files_of(folder) == {"cat/a.jpg", "dog/c.jpg"}


def test_accept_all_leaves_a_photograph_that_is_removed(client, folder):
    (folder / "cat/b.png").unlink()
    state = client.post("/accept", b"[]")
    assert state["accepted"] == 1 and statuses(state) == ["done", "unreadable", "doubtful"]
    assert not (folder / "cat/b.mask.png").exists()


def test_masks_are_black_and_white_and_a_probe_set_reads_them(client, folder):
    soft = np.zeros((60, 80, 4), np.uint8)
    soft[..., 3] = 255
    soft[10:40, 20:50, :3] = 200
    soft[5:10, 20:50, :3] = 100
    client.post("/accept/0", png(soft))
    with Image.open(folder / "cat/a.mask.png") as image:
        assert image.size == (80, 60) and set(np.unique(np.asarray(image.convert("L")))) == {0, 255}
    client.post("/accept/1", png(inside((1, 2, 3, 4))))
    client.post("/nothing/2")
    probe = ProbeSet.from_folder(folder)
    assert probe.has_mask.tolist() == [True, True, False]
    assert np.array_equal(probe.masks[0].numpy(), inside((20, 10, 50, 40)))
    assert np.array_equal(probe.masks[1].numpy(), inside((1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (png(np.zeros((60, 80), bool)), "marks nothing. Press N if there is no object"),
        (
            png(np.ones((80, 60), bool)),
            "Expected a mask of 80 x 60 pixels, as the photograph is shown, but got 60 x 80",
        ),
        (b"GIF89a", "Expected a mask as PNG, but it cannot be read"),
        (png(np.ones((60, 80), bool))[:-30], "Expected a mask as PNG, but it cannot be read"),
        (b"", "Expected a mask as PNG"),
    ],
    ids=["empty", "turned", "GIF", "cut off", "nothing"],
)
def test_another_mask_is_refused_in_a_sentence(client, folder, body, said):
    before = files_of(folder)
    assert said in client.post("/accept/0", body)["error"]
    assert files_of(folder) == before and client.wait()["done"] == 0


def test_no_object_is_remembered_and_removes_a_mask_until_it_is_undone(client, folder):
    drawn = png(inside((3, 3, 30, 30)))
    client.post("/accept/0", drawn)
    written = (folder / "cat/a.mask.png").read_bytes()
    assert statuses(client.post("/nothing/0")) == ["nothing", "proposed", "doubtful"]
    assert not (folder / "cat/a.mask.png").exists()
    assert json.loads((folder / RECORD).read_text()) == {"no_object": ["cat/a.jpg"]}
    with serving(folder) as (session, _):
        assert session.done == 1
    assert statuses(client.post("/undo"))[0] == "done"
    assert (folder / "cat/a.mask.png").read_bytes() == written
    assert json.loads((folder / RECORD).read_text()) == {"no_object": []}
    client.post("/nothing/0")
    client.post("/accept/0", drawn)
    assert json.loads((folder / RECORD).read_text()) == {"no_object": []}, "a mask says that there is an object"


def test_a_box_runs_the_network_on_its_crop(client, bright, folder):
    bright.crops.clear()
    answer = client.ask("POST", "/box/0", b"[24, 14, 44, 34]")
    assert answer.headers["Content-Type"] == "image/png" and bright.crops == [(30, 30)]
    (folder / "box.png").write_bytes(answer.content)
    found = read_mask(folder / "box.png")
    # The network sees a quarter more on each side. Its mask leaves the box by a tenth at most.
    assert np.array_equal(found, inside(BOXES["cat/a.jpg"]) & inside((22, 12, 46, 36)))
    for wrong in (b"[1, 2, 3]", b"[5, 5, 5, 5]", b"[90, 5, 95, 9]", b"{}", b'["a", 1, 2, 3]', b"[1e400, 0, 3, 3]"):
        assert json.loads(client.ask("POST", "/box/0", wrong).content)["error"].startswith("Expected "), wrong


def test_without_onnxruntime_a_box_fills_its_rectangle(monkeypatch, folder, error_of):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with serving(folder) as (_, server):
        client = Client(server)
        state = client.wait()
        assert statuses(state) == ["open"] * 3 and "pip install 'gradcam-callback[masks]'" in state["missing"]
        assert client.get("/mask/0").status == 404
        (folder / "box.png").write_bytes(client.ask("POST", "/box/0", b"[15, 5, 45, 45]").content)
        assert np.array_equal(read_mask(folder / "box.png"), inside((15, 5, 45, 45)))
    (folder / "box.png").unlink()
    assert "Expected --auto to find the network, but there is none." in error_of(folder, "--auto")


def test_a_photograph_is_masked_as_it_is_shown(bright, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    (tmp_path / "cat").mkdir()
    picture((10, 20, 40, 50)).save(tmp_path / "cat/a.jpg", exif=exif)
    with serving(tmp_path) as (_, server):
        client = Client(server)
        client.wait()
        details = json.loads(client.get("/details/0").content)
        assert (details["width"], details["height"], details["mask"]) == (60, 80, True)
        assert "60 x 80" in client.post("/accept/0", png(np.ones((60, 80), bool)))["error"]
        client.post("/accept", b"[]")
    mask = read_mask(tmp_path / "cat/a.mask.png")
    # Rows count from the left edge of the file, columns from its bottom.
    assert overlap(mask, inside((10, 10, 40, 40), (60, 80))) > 0.9
    assert ProbeSet.from_folder(tmp_path).has_mask.all()


def test_a_large_photograph_is_shown_smaller_and_masked_in_full(bright, tmp_path):
    picture((1000, 200, 2000, 1200), (3000, 1500)).save(tmp_path / "a.jpg")
    with serving(tmp_path) as (_, server):
        client = Client(server)
        client.wait()
        for path in ("/photograph/0", "/mask/0"):
            (tmp_path / "shown.png.part").write_bytes(client.get(path).content)
            with Image.open(tmp_path / "shown.png.part") as shown:
                assert shown.size == (2048, 1024)
        assert client.post("/accept", b"[]")["done"] == 1
    # The last that was shown is the mask, which is 2048 / 3000 as large.
    assert overlap(read_mask(tmp_path / "shown.png.part"), inside((683, 137, 1365, 819), (2048, 1024))) > 0.98
    assert overlap(read_mask(tmp_path / "a.mask.png"), inside((1000, 200, 2000, 1200), (3000, 1500))) > 0.98


def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_all_as_it_was_and_is_told(client, folder, monkeypatch):
    client.post("/accept/0", png(inside((3, 3, 30, 30))))
    before = {name: (folder / name).read_bytes() for name in files_of(folder)}
    monkeypatch.setattr("os.replace", fail)
    for path, body in (("/accept/0", png(inside((1, 1, 9, 9)))), ("/accept", b"[]"), ("/nothing/1", b"")):
        said = client.post(path, body)["error"]
        assert said.startswith("Cannot write '") and "(No space left on device). Nothing was changed." in said
        assert {name: (folder / name).read_bytes() for name in files_of(folder)} == before, path
    assert statuses(client.wait()) == ["done", "proposed", "doubtful"]
    monkeypatch.undo()
    assert client.post("/accept", b"[]")["done"] == 2


def test_broken_photographs_and_masks_are_named_and_do_not_stop_the_others(bright, folder):
    (folder / "cat/a.jpg").write_bytes(b"no image")
    Image.new("1", (9, 9), 1).save(folder / "dog/c.mask.png")
    with serving(folder) as (_, server):
        client = Client(server)
        state = client.wait()
        assert statuses(state) == ["unreadable", "proposed", "doubtful"]
        assert "cat/a.jpg" in state["photographs"][0]["reason"]
        assert "the mask that is there cannot be used: Expected a mask of 80 x 60" in state["photographs"][2]["reason"]
        for path in ("/details/0", "/photograph/0", "/small/0"):
            assert "Repair or remove the file" in json.loads(client.get(path).content)["error"]
        assert client.post("/accept", b"[]")["done"] == 1
        with Image.open(folder / "dog/c.mask.png") as kept:
            assert kept.size == (9, 9), "accept all overwrites nothing"


@pytest.mark.parametrize("kind", ["white on transparent", "colours", "palette", "0 and 1", "16 bits"])
def test_a_mask_that_is_there_is_shown_as_a_probe_set_reads_it(bright, folder, kind):
    marked = inside((5, 5, 30, 30))
    levels, grey = marked.astype(np.uint8), np.full((*marked.shape, 3), 255, np.uint8)
    mask = {
        "white on transparent": Image.fromarray(np.dstack([grey, levels * 255])),
        "colours": Image.fromarray(levels[..., None] * np.array([200, 0, 0], np.uint8)),
        "palette": Image.fromarray(levels * 3),
        "0 and 1": Image.fromarray(levels),
        "16 bits": Image.fromarray(levels.astype(np.uint16) * 60_000),
    }[kind]
    if kind == "palette":
        mask.putpalette([0, 0, 0, *[90, 20, 20] * 4])
    mask.save(folder / "cat/a.mask.png")
    assert np.array_equal(ProbeSet.from_folder(folder).masks[0].numpy(), marked)
    with serving(folder) as (_, server):
        client = Client(server)
        assert statuses(client.wait())[0] == "done"
        with Image.open(io.BytesIO(client.get("/mask/0").content)) as shown:
            assert np.array_equal(np.asarray(shown.convert("L")) > 127, marked)


def test_what_else_marks_an_object_counts_as_done_and_stays(bright, folder):
    picture((1, 1, 9, 9)).convert("L").save(folder / "cat/a_mask.png")
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[5, 5], [30, 30]]}
    (folder / "cat/b.json").write_text(json.dumps({"shapes": [shape], "imageWidth": 80, "imageHeight": 60}))
    cut = picture((10, 10, 40, 40)).convert("RGBA")
    cut.putalpha(cut.convert("L"))
    cut.save(folder / "dog/d.png")
    with serving(folder) as (_, server):
        client = Client(server)
        state = client.wait()
        assert [photograph["name"] for photograph in state["photographs"]] == [*BOXES, "dog/d.png"]
        assert statuses(state) == ["done", "done", "doubtful", "done"]
        said = [photograph["reason"] for photograph in state["photographs"]]
        assert said[0] == "by a_mask.png" and said[1] == "by b.json" and said[3] == "its background is transparent"
        for index, marked in ((0, inside((1, 1, 9, 9))), (1, inside((5, 5, 30, 30))), (3, inside((10, 10, 40, 40)))):
            with Image.open(io.BytesIO(client.get(f"/mask/{index}").content)) as shown:
                assert np.array_equal(np.asarray(shown.convert("L")) > 127, marked), index
        assert "'a_mask.png' marks one. Remove or change this file first." in client.post("/nothing/0")["error"]
        assert client.post("/accept/0", png(inside((5, 5, 50, 50))))["done"] == 3
        assert client.get("/small/1").headers["Content-Type"] == "image/jpeg"
    assert np.array_equal(ProbeSet.from_folder(folder).masks[0].numpy(), inside((5, 5, 50, 50))), "the new one is read"


def test_only_the_browser_that_has_the_address_is_answered(client, folder):
    port = client.server.port
    (folder.parent / "secret.txt").write_text("secret")
    mask = png(np.ones((60, 80), bool))
    refused = [
        client.ask("GET", "/state", Cookie=None),
        client.ask("GET", "/", Cookie=None),
        client.ask("GET", "/?token=", Cookie=None),
        client.ask("GET", "/?token=%ed%a0%80", Cookie=None),
        client.ask("GET", f"/?token={client.server.address[-20:]}", Cookie=None),
        client.ask("GET", "/state", Cookie=f"masks-{port}=guess"),
        client.ask("GET", "/state", Host="evil.example"),
        client.ask("GET", "/state", Host=f"evil.example:{port}"),
        client.ask("GET", "/state", Host="127.0.0.1"),
        client.ask("GET", "/state", Host=None),
        client.ask("GET", "/state", Origin="http://evil.example"),
        client.ask("GET", "/state", Origin="null"),
        client.ask("GET", "/state", Origin=f"https://127.0.0.1:{port}"),
        client.ask("POST", "/accept/0", mask, Origin="http://evil.example"),
        client.ask("POST", "/accept/0", mask, Origin=None),
        client.ask("POST", "/accept/0", mask, Cookie=None),
        client.ask("OPTIONS", "/accept/0"),
        client.ask("PUT", "/accept/0", mask),
    ]
    assert [(answer.status, answer.content) for answer in refused] == [(403, b"")] * len(refused)
    paths = ["/photograph/-1", "/photograph/3", "/photograph/1.5", "/photograph/../../etc/passwd", "/../../etc/passwd"]
    paths += [
        "/photograph/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/page.html/",
        "/session.py",
        "/photograph/99999999999",
    ]
    paths += ["/cat/a.jpg", "/../secret.txt", "/accept/0", "/undo", "/photograph/99999999999"]
    missing = [client.get(path) for path in paths] + [client.ask("POST", "/state", b"")]
    assert [(answer.status, answer.content) for answer in missing] == [(404, b"")] * len(missing)
    assert client.ask("POST", "/accept/-1", mask).status == client.ask("POST", "/accept/3", mask).status == 404
    assert client.wait()["done"] == 0


def test_an_own_request_is_answered_with_strict_headers(client):
    port = client.server.port
    assert "HttpOnly" in client.said and "SameSite=Strict" in client.said
    page = client.ask("GET", "/", Origin=None, Host=f"localhost:{port}")
    assert page.status == 200
    policy = page.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= set(policy)
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff" and page.headers["Cache-Control"] == "no-store"
    assert client.ask("POST", "/undo", b"", Origin=None, X_Masks="1").status == 200
    with pytest.raises(ConnectionRefusedError):
        # Only this machine's own address is bound, not the others of its network.
        import socket

        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_auto_writes_what_passes_names_the_rest_and_serves_nothing(bright, folder, output_of, monkeypatch):
    monkeypatch.setattr("werkzeug.serving.make_server", None)
    mine = png(inside((5, 5, 20, 20)))
    (folder / "cat/a.mask.png").write_bytes(mine)
    printed = output_of(folder, "--auto")
    assert "left out: dog/c.jpg: the object fills 0 %, less than 2 %" in printed
    assert "Accepted 1 of 2 automatic masks." in printed and "2 of 3 photographs are done." in printed
    assert f'GradCAMCallback(probe="{folder}")' in printed
    assert (folder / "cat/a.mask.png").read_bytes() == mine and not (folder / "dog/c.mask.png").exists()
    assert overlap(read_mask(folder / "cat/b.mask.png"), inside(BOXES["cat/b.png"])) > 0.95
    assert str(folder / SHEET) in printed
    with Image.open(folder / SHEET) as sheet:
        assert sheet.width > 300
    assert ProbeSet.from_folder(folder).has_mask.tolist() == [True, True, False], "the sheet is no photograph"


def test_auto_leaves_cut_outs_alone_and_does_not_call_them_left_out(bright, folder, output_of):
    cut = picture((10, 10, 40, 40)).convert("RGBA")
    cut.putalpha(cut.convert("L"))
    cut.save(folder / "dog/d.png")
    printed = output_of(folder, "--auto")
    assert "dog/d.png" not in printed and "Accepted 2 of 3 automatic masks." in printed
    assert "3 of 4 photographs are done." in printed


def test_auto_counts_no_photograph_that_cannot_be_read(bright, folder, output_of):
    (folder / "cat/a.jpg").write_bytes(b"no image")
    printed = output_of(folder, "--auto")
    assert "left out: Cannot read " in printed and "Accepted 1 of 2 automatic masks." in printed


def test_a_sheet_that_cannot_show_all_says_so(bright, folder, output_of, monkeypatch):
    monkeypatch.setattr(automatic, "_MOST_CELLS", 2)
    assert f"Look at them; the first 2 are shown: {folder / SHEET}" in output_of(folder, "--auto")


def test_each_sheet_of_accepted_masks_stays(bright, folder, output_of):
    output_of(folder, "--auto")
    first = (folder / SHEET).read_bytes()
    printed = output_of(folder, "--auto")
    assert "Accepted 0 of 1" in printed and "Look at them" not in printed, "the doubtful one alone"
    assert [path.name for path in folder.glob(".masks-sheet*")] == [SHEET] and (folder / SHEET).read_bytes() == first
    for number in (2, 3):
        picture((10 + number, 10, 50, 40)).save(folder / f"dog/{number}.jpg")
        second = folder / f".masks-sheet-{number}.jpg"
        assert f"Look at them: {second}" in output_of(folder, "--auto") and second.exists()
    assert (folder / SHEET).read_bytes() == first and len(ProbeSet.from_folder(folder)) == 5


def test_auto_without_classes_says_that_they_are_needed(bright, tmp_path, output_of):
    picture((10, 10, 40, 40)).save(tmp_path / "a.jpg")
    picture((10, 10, 40, 40), (60, 90)).save(tmp_path / "b.jpg")
    printed = output_of(tmp_path, "--auto")
    assert "2 of 2 photographs are done." in printed and "make one folder per class" in printed
    assert files_of(tmp_path) == {"a.jpg", "a.mask.png", "b.jpg", "b.mask.png", SHEET}


def test_masks_of_auto_are_automatic_until_a_person_accepts_or_changes_them(bright, folder, output_of):
    (folder / "dog/c.mask.png").write_bytes(png(inside((5, 5, 20, 20))))
    assert "Masks of --auto cannot acquit a network until they are accepted on the page: 2." in output_of(
        folder, "--auto"
    )
    probe = ProbeSet.from_folder(folder)
    assert set(probe.proposals) == {0, 1} and probe.has_automatic_masks and probe.has_mask.all()
    assert np.array_equal(probe.masks[0].numpy(), read_mask(folder / "cat/a.mask.png"))
    assert probe.watch(2).has_automatic_masks
    # Most programs keep no texts.
    with Image.open(folder / "cat/a.mask.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "cat/a.mask.png")
    assert set(ProbeSet.from_folder(folder).proposals) == {1}
    with serving(folder) as (_, server):
        client = Client(server)
        state = client.wait()
        assert statuses(state) == ["done"] * 3
        assert [photograph["unseen"] for photograph in state["photographs"]] == [False, True, False]
        assert state["photographs"][1]["reason"] == "made by --auto, not looked at yet"
        state = client.post("/accept/1", client.get("/mask/1").content)
        assert not any(photograph["unseen"] for photograph in state["photographs"])
        assert ProbeSet.from_folder(folder).proposals is None
        assert client.post("/undo")["photographs"][1]["unseen"] and ProbeSet.from_folder(folder).has_automatic_masks


def test_photographs_are_picked_evenly_and_copied_once(tmp_path, bright, output_of):
    dataset, folder = tmp_path / "data", tmp_path / "probe"
    for name, count in (("cat", 9), ("dog", 2), ("empty", 0)):
        (dataset / name).mkdir(parents=True)
        for i in range(count):
            picture((10, 10, 40 + i, 40)).save(dataset / name / f"{i}.jpg")
    (dataset / "dog/0.mask.png").write_bytes(png(inside((1, 1, 9, 9))))
    printed = output_of(folder, "--from", dataset, "--per-class", "3", "--auto")
    assert "cat: copied 3 of 9 photographs\ndog: copied 2 of 2 photographs\nempty: copied 0" in printed
    cats = {path.name for path in (folder / "cat").glob("*.jpg")}
    assert len(cats) == 3 and (folder / "empty").is_dir()
    assert all((folder / "cat" / name).read_bytes() == (dataset / "cat" / name).read_bytes() for name in cats)
    assert np.array_equal(read_mask(folder / "dog/0.mask.png"), inside((1, 1, 9, 9))), "its mask comes along"
    changed = folder / "cat" / min(cats)
    changed.write_bytes(b"mine")
    assert "cat: copied 0 of 9 photographs, 3 were there" in "\n".join(copy_photographs(dataset, folder, 3))
    assert changed.read_bytes() == b"mine" and len(list((folder / "cat").glob("*.jpg"))) == 3
    others = {tuple(sorted(p.name for p in seeded(dataset, tmp_path, seed).glob("cat/*.jpg"))) for seed in range(6)}
    assert len(others) > 1, "another seed takes others"


def test_whatever_marks_an_object_is_copied_with_its_photograph(tmp_path, bright):
    dataset, folder = tmp_path / "data", tmp_path / "probe"
    (dataset / "cat").mkdir(parents=True)
    beside = ("a_mask.png", "b.mask.jpg", "c-mask.png", "d.MASK.PNG", "e.json", "f.txt", "g.xml", "classes.txt")
    for name in beside:
        (dataset / "cat" / name).write_bytes(png(inside((1, 1, 9, 9))))
    for name in "abcdefg":
        picture((10, 10, 40, 40)).save(dataset / "cat" / f"{name}.jpg")
    (dataset / "obj.names").write_text("cat")
    (dataset / "cat" / "notes.md").write_text("mine")
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "f.txt").write_text("drawn anew")
    list(copy_photographs(dataset, folder, 9))
    copied = {path.name for path in (folder / "cat").iterdir()}
    assert copied == {*beside, *(f"{name}.jpg" for name in "abcdefg")} and (folder / "obj.names").exists()
    assert (folder / "cat" / "f.txt").read_text() == "drawn anew", "a file that is there stays"


def seeded(dataset, tmp_path, seed):
    assert list(copy_photographs(dataset, tmp_path / f"seed {seed}", 3, seed))
    return tmp_path / f"seed {seed}"


def test_wrong_arguments_end_in_a_sentence(error_of, folder, tmp_path):
    assert "holds photographs, but" not in error_of(tmp_path / "nowhere")
    assert "Expected FOLDER to hold photographs, but" in error_of(tmp_path / "nowhere")
    assert "is not a folder" in error_of(folder / "cat/a.jpg")
    (tmp_path / "empty").mkdir()
    assert "holds no photographs. Their names have to end in .bmp, .jpeg" in error_of(tmp_path / "empty")
    assert "Add --from DATASET_FOLDER" in error_of(folder, "--per-class", "3")
    assert "Expected --per-class to be 1 or more, but got 0" in error_of(
        tmp_path / "new", "--from", folder, "--per-class", "0"
    )
    assert "holds the other. Choose another FOLDER" in error_of(folder / "probe", "--from", folder)
    assert "Expected --from to be a folder with one folder per class" in error_of(tmp_path / "x", "--from", "/nowhere")
    picture((1, 1, 9, 9)).save(folder / "d.jpg")
    assert "holds both, such as 'd.jpg' and 'cat/a.jpg'" in error_of(folder)
    (folder / "d.jpg").unlink()
    picture((1, 1, 9, 9)).save(folder / "cat/a.png")
    assert "'a.png' would share the mask 'a.mask.png'. Rename one of them." in error_of(folder)
    (folder / "cat/a.png").unlink()
    (folder / RECORD).write_text("[")
    assert "Delete it, and mark these photographs again" in error_of(folder)


def test_ctrl_c_ends_with_what_is_done_and_what_to_do_next(folder):
    (folder / "cat/a.mask.png").write_bytes(png(inside((5, 5, 20, 20))))
    # A shell that runs tests in the background lets them ignore Ctrl-C.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from gradcam_callback.__main__ import main; main()"
    command = [sys.executable, "-c", code, "masks", str(folder), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and errors == ""
    assert said[0].startswith("1 of 3 photographs in ") and said[1].startswith("http://127.0.0.1:")
    assert "1 of 3 photographs are done. Go on with: python -m gradcam_callback masks " in rest
    assert f'Use the masks with: GradCAMCallback(probe="{folder}")' in rest


def test_the_server_is_loaded_by_this_command_alone():
    code = "import sys, gradcam_callback.masking; print('werkzeug' in sys.modules, 'onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"] * 2


def test_the_network_masks_toys_from_their_boxes(tmp_path):
    network, overlaps = LazyNetwork(), []
    for path, mask in save_toys(tmp_path, 6).items():
        rows, columns = np.nonzero(mask)
        box = (columns.min() - 4, rows.min() - 4, columns.max() + 4, rows.max() + 4)
        with Image.open(path) as photograph:
            overlaps.append(overlap(network.mask_box(photograph, box), mask))
    assert np.mean(overlaps) > 0.85
