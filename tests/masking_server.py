"""The server of the masks, started in a thread, photographs with known masks, and a network that finds the masks."""

import contextlib
import http.client
import io
import json
import threading

import numpy as np
from conftest import Toys
from PIL import Image, ImageDraw

from gradcam_callback.masking.background import Background
from gradcam_callback.masking.server import Server
from gradcam_callback.masking.session import MaskingSession
from gradcam_callback.saliency import judge_proposal


@contextlib.contextmanager
def serving(folder):
    """The session and the server of a folder, until the block ends."""
    session = MaskingSession(folder)
    with Background(session) as background:
        server = Server(session, background)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield session, server
        finally:
            server.stop()
            thread.join()


def save_toys(folder, count=16, size=160):
    """Save toys as JPEG in folders of classes, and return the mask of each by the path of its photograph."""
    toys, masks = Toys(count, bias=1.0, seed=5, size=size), {}
    for i, (image, label, mask) in enumerate(toys.items):
        path = folder / toys.classes[label] / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path, quality=95)
        masks[path] = mask.numpy()
    return masks


def mask_of(path):
    return path.with_name(f"{path.stem}.mask.png")


def read_mask(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L")) > 127


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def png(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


class Client:
    """A client that has the cookie of a server, as a browser has it."""

    def __init__(self, server):
        self.server = server
        self.own = {"Host": f"127.0.0.1:{server.port}", "Origin": f"http://127.0.0.1:{server.port}"}
        answer = self.ask("GET", server.address.partition(str(server.port))[2])
        self.said = answer.headers["Set-Cookie"]
        self.own["Cookie"] = self.said.partition(";")[0]

    def ask(self, method, path, body=None, **headers):
        """Send a request; a header that is None is left out. The answer has its body in `content`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        sent = {name: value for name, value in (self.own | headers).items() if value is not None}
        connection.putrequest(method, path, skip_host=True)
        for name, value in sent.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        answer.content = answer.read()
        connection.close()
        return answer

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body=b""):
        return json.loads(self.ask("POST", path, body).content)

    def wait(self):
        """Until all proposals are made."""
        while True:
            state = json.loads(self.get("/state").content)
            if not state["working"]:
                return state


class Bright:
    """A network that marks what is brighter than half, and is sure of it."""

    def __init__(self):
        self.crops = []

    def __call__(self):
        return self

    def saliency(self, photograph):
        self.crops.append(photograph.size)
        return (np.asarray(photograph.convert("L")) > 127).astype(np.float32)

    def propose(self, photograph):
        return judge_proposal(self.saliency(photograph))


def picture(box, size=(80, 60)):
    """Return a black photograph with a white box."""
    image = Image.new("RGB", size)
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), "white")
    return image


def inside(box, size=(80, 60)):
    mask = np.zeros(size[::-1], bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


BOXES = {"cat/a.jpg": (20, 10, 50, 40), "cat/b.png": (30, 20, 60, 50), "dog/c.jpg": (0, 0, 4, 4)}


def statuses(state):
    return [photograph["status"] for photograph in state["photographs"]]


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
