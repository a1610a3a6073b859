"""The Focus tab: a page, and routes that serve it the records of the runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins.base_plugin import FrontendMetadata, TBPlugin
from werkzeug import Request, Response
from werkzeug.exceptions import BadRequest, HTTPException, NotFound

from gradcam_focus.loader import ENTRIES
from gradcam_focus.records import (
    PLUGIN,
    describe_log,
    describe_maps,
    entry_tag,
    maps_tag,
    newest,
    prefixes,
    start_tag,
)

PAGE = Path(__file__).parent / "page"
KINDS = {".js": "text/javascript", ".css": "text/css"}

# Answers a request with values for JSON.
Answer = Callable[["FocusPlugin", Request], Any]


def _as_json(answer: Answer) -> Callable[..., Any]:
    """Make a WSGI application of a method. Its errors are answers, too, which the page shows."""

    @functools.wraps(answer)
    def application(self: FocusPlugin, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        try:
            content, code = answer(self, request), 200
        except HTTPException as error:
            content, code = {"error": error.description}, error.code or 500
        except Exception as error:
            content, code = {"error": f"{type(error).__name__}: {error}"}, 500
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        return http_util.Respond(request, text, "application/json", code)(environ, start_response)

    return application


class FocusPlugin(TBPlugin):
    """The plugin behind the Focus tab.

    Args:
        context: of TensorBoard. All data come from its data provider.
    """

    plugin_name = PLUGIN

    def __init__(self, context: Any) -> None:
        self._data = context.data_provider

    def is_active(self) -> bool:
        """Return False: TensorBoard shows the tab by itself as soon as a run has our records."""
        return False

    def frontend_metadata(self) -> Any:
        """Return the name of the tab and its script."""
        return FrontendMetadata(es_module_path="/static/index.js", tab_name="Focus")

    def get_plugin_apps(self) -> dict[str, Any]:
        """Return the routes, which TensorBoard serves below ``data/plugin/gradcam_focus``."""
        return {"/static/*": self._serve_file, "/runs": self.runs, "/log": self.log, "/maps": self.maps}

    @_as_json
    def runs(self, request: Request) -> list[dict[str, Any]]:
        """List the runs: their names and prefixes, and the step of their last entry."""
        context, experiment = self._place(request)
        found = self._data.list_tensors(context, experiment_id=experiment, plugin_name=PLUGIN)
        runs = []
        for run, tags in sorted(found.items()):
            for prefix in prefixes(tags):
                entries = tags.get(entry_tag(prefix))
                last = None if entries is None else entries.max_step
                runs.append({"run": run, "prefix": prefix, "last": last})
        return runs

    @_as_json
    def log(self, request: Request) -> dict[str, Any]:
        """Return the description of a run, and its entries after a step."""
        prefix = _argument(request, "prefix")
        tags = [start_tag(prefix), entry_tag(prefix)]
        start, entries = (self._read(request, tag) for tag in tags)
        if not start:
            raise NotFound("TensorBoard has not read this run yet, or its files are gone.")
        return describe_log(list(start.values())[-1], entries, _after(request))

    @_as_json
    def maps(self, request: Request) -> dict[str, list[Any]]:
        """Return the maps of one layer after a step."""
        tag = maps_tag(_argument(request, "prefix"), _argument(request, "layer"))
        return describe_maps(self._read(request, tag), _after(request))

    def _serve_file(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        # Only names that lie in the folder are served, so no path can leave it.
        files = {path.name: path for path in PAGE.iterdir() if path.suffix in KINDS}
        path = files.get(request.path.rpartition("/static/")[2])
        if path is None:
            response: Response = http_util.Respond(request, "not found", "text/plain", 404)
        else:
            response = http_util.Respond(request, path.read_bytes(), KINDS[path.suffix])
        return response(environ, start_response)

    def _read(self, request: Request, tag: str) -> dict[int, bytes]:
        """Return step -> record of one tag of the run that is asked for."""
        context, experiment = self._place(request)
        run = _argument(request, "run")
        found = self._data.read_tensors(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN,
            downsample=ENTRIES,
            run_tag_filter=RunTagFilter(runs=[run], tags=[tag]),
        )
        return newest([(datum.step, datum.numpy.item()) for datum in found.get(run, {}).get(tag, ())])

    def _place(self, request: Request) -> tuple[Any, str]:
        if self._data is None:
            raise NotFound("This TensorBoard serves no data to plugins (--generic_data=false).")
        return plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)


def _argument(request: Request, name: str) -> str:
    value = request.args.get(name)
    if value is None:
        raise BadRequest(f"Expected the argument {name!r} in the address, but it is missing.")
    return value


def _after(request: Request) -> int:
    return request.args.get("after", -1, type=int)
