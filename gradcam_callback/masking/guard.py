"""Who may ask the local server: only the browser that was given its address."""

from __future__ import annotations

import secrets

from werkzeug.wrappers import Request, Response

# A page of another site cannot send it without asking first, and this server never allows that.
HEADER = "X-Masks"
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """The checks of a request, and the headers of an answer.

    Other users of the machine can reach the port, but know no token. Pages of other sites can send requests, but with
    their own ``Origin``, or under their own name as ``Host``.

    Args:
        port: of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        # Cookies do not know ports. Each server needs a name of its own.
        self._cookie = f"masks-{port}"

    def admit(self, request: Request) -> Response | None:
        """Return None for a request that may pass, else the answer to it."""
        origin = request.headers.get("Origin")
        if request.headers.get("Host") not in self._hosts:
            return Response(status=403)
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            return Response(status=403)
        if request.path == "/" and request.method == "GET" and "token" in request.args:
            return self._let_in(request)
        if not self._knows(request.cookies.get(self._cookie, "")):
            return Response(status=403)
        if request.method not in ("GET", "POST"):
            return Response(status=403)
        if request.method == "POST" and origin is None and HEADER not in request.headers:
            return Response(status=403)
        return None

    def protect(self, response: Response) -> Response:
        """Add the headers that keep a page from running or loading anything else."""
        for name, value in _POLICY.items():
            response.headers[name] = value
        return response

    def _let_in(self, request: Request) -> Response:
        """Turn the token of an address into a cookie, so that no address shows it."""
        if not self._knows(request.args["token"]):
            return Response(status=403)
        response = Response(status=303, headers={"Location": "/"})
        response.set_cookie(self._cookie, self.token, httponly=True, samesite="Strict", path="/")
        return response

    def _knows(self, token: str) -> bool:
        # In constant time. Only bytes may hold any character.
        return secrets.compare_digest(token.encode("utf-8", "surrogatepass"), self.token.encode())
