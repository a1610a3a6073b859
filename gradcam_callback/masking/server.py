"""The local server of the page: its files, the photographs, and what a person decides."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from gradcam_callback.masking.background import Background
from gradcam_callback.masking.guard import Guard
from gradcam_callback.masking.mask_files import encode_mask
from gradcam_callback.masking.pixels import SHOWN, SMALL, draw_small, encode_photograph, fit, resize_mask
from gradcam_callback.masking.session import MaskingSession, Status

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_FILES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "sheet.js": "text/javascript; charset=utf-8",
    "editor.js": "text/javascript; charset=utf-8",
    "canvas.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
}
# A mask of black and white is far smaller, even of the largest photograph.
_MOST_BYTES = 64 * 2**20


class _Quiet(WSGIRequestHandler):
    """A handler that logs errors only: the terminal shows what the person has to do."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


class Server:
    """A server on 127.0.0.1 and a free port.

    Args:
        session: what it shows and changes.
        background: makes the proposals.
    """

    def __init__(self, session: MaskingSession, background: Background) -> None:
        self._session, self._background = session, background
        self._server: BaseWSGIServer = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self.port = self._server.server_port
        self._guard = Guard(self.port)
        read, write = ["GET"], ["POST"]
        self._routes = Map(
            [
                Rule("/", endpoint=lambda: self._file("page.html"), methods=read),
                *(Rule(f"/{name}", endpoint=lambda name=name: self._file(name), methods=read) for name in _FILES),
                Rule("/state", endpoint=self._state, methods=read),
                Rule("/details/<int:index>", endpoint=self._details, methods=read),
                Rule("/photograph/<int:index>", endpoint=self._photograph, methods=read),
                Rule("/small/<int:index>", endpoint=self._small, methods=read),
                Rule("/mask/<int:index>", endpoint=self._mask, methods=read),
                Rule("/box/<int:index>", endpoint=self._box, methods=write),
                Rule("/accept/<int:index>", endpoint=self._accept, methods=write),
                Rule("/accept", endpoint=self._accept_all, methods=write),
                Rule("/nothing/<int:index>", endpoint=self._nothing, methods=write),
                Rule("/undo", endpoint=self._undo, methods=write),
            ],
            strict_slashes=True,
            merge_slashes=False,
        )

    @property
    def address(self) -> str:
        """Return the address to open, with the token that lets a browser in."""
        return f"http://127.0.0.1:{self.port}/?token={self._guard.token}"

    def run(self) -> None:
        """Serve until Ctrl-C or `stop`."""
        self._server.serve_forever()

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.shutdown()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, as WSGI asks."""
        request = Request(environ)
        request.max_content_length = _MOST_BYTES
        response = self._guard.admit(request) or self._answer(request)
        return self._guard.protect(response)(environ, start_response)

    def _answer(self, request: Request) -> Response:
        try:
            answer, matched = self._routes.bind_to_environ(request.environ).match()
            arguments: dict[str, Any] = dict(matched)
            if arguments.get("index", 0) >= len(self._session):
                return Response(status=404)
            if request.method == "POST":
                arguments["request"] = request
            response: Response = answer(**arguments)
            return response
        except HTTPException:
            # Also a redirection, or a body that is too long: nothing that the page asks for.
            return Response(status=404)
        except (OSError, ValueError) as error:
            # A sentence for the person. The page is told by its content: browsers log other codes as errors.
            return _json({"error": str(error)})

    def _file(self, name: str) -> Response:
        return Response(files(__package__).joinpath(name).read_bytes(), content_type=_FILES[name])

    def _state(self, **more: Any) -> Response:
        # Without a network there are no proposals. It is loaded only by the background, never by this request.
        return _json(
            {
                **self._session.describe(),
                "missing": self._session.network.missing,
                "working": self._background.is_working,
                **more,
            }
        )

    def _details(self, index: int) -> Response:
        self._session.look_again(index)
        self._background.want(index)
        size = self._session.read(index).size
        has_mask = self._session.mask(index) is not None
        return _json({"width": size[0], "height": size[1], "mask": has_mask, "seen": self._session.seen(index)})

    def _photograph(self, index: int) -> Response:
        return Response(encode_photograph(self._session.read(index), SHOWN), content_type="image/jpeg")

    def _small(self, index: int) -> Response:
        photograph = self._session.read(index)
        drawn = draw_small(photograph, self._session.mask(index))
        return Response(encode_photograph(drawn, SMALL), content_type="image/jpeg")

    def _mask(self, index: int) -> Response:
        mask = self._session.mask(index)
        if mask is None:
            return Response(status=404)
        shown = resize_mask(mask, fit(mask.shape[::-1], SHOWN))
        return Response(encode_mask(shown), content_type="image/png")

    def _box(self, index: int, request: Request) -> Response:
        photograph = self._session.read(index)
        mask = self._session.network.mask_box(photograph, _read_box(request.get_data()))
        return Response(encode_mask(resize_mask(mask, fit(photograph.size, SHOWN))), content_type="image/png")

    def _accept(self, index: int, request: Request) -> Response:
        self._session.accept(index, request.get_data(), request.args.get("seen"))
        return self._state()

    def _accept_all(self, request: Request) -> Response:
        return self._state(accepted=self._session.accept_proposals(_read_indices(request.get_data())))

    def _nothing(self, index: int, request: Request) -> Response:
        self._session.reject(index, request.args.get("seen"))
        return self._state()

    def _undo(self, request: Request) -> Response:
        undone = self._session.undo()
        for index in undone:
            if self._session.progress(index).status is Status.WAITING:
                self._background.want(index)
        return self._state(undone=undone)


def _read_box(data: bytes) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = (float(side) for side in json.loads(data))
        if not all(abs(side) < 1e9 for side in (left, top, right, bottom)):
            raise ValueError("not finite")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"Expected the four sides of a box, but got {data[:80]!r} ({error}). Drag it again."
        ) from error
    return left, top, right, bottom


def _read_indices(data: bytes) -> set[int]:
    try:
        return {int(index) for index in json.loads(data)}
    except (ValueError, TypeError) as error:
        raise ValueError(f"Expected a list of photographs, but got {data[:80]!r}. Reload the page.") from error


def _json(content: Any) -> Response:
    return Response(json.dumps(content), content_type="application/json")
