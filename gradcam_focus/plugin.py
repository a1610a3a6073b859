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
    Record,
    by_number,
    describe_maps,
    describe_start,
    entry_tag,
    latest,
    maps_tag,
    newest,
    of_run,
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
        # The newest verdict of each run, by its place and the times of its records.
        self._verdicts: dict[tuple[str, ...], tuple[tuple[float | None, ...], dict[str, Any] | None]] = {}

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
        """List the runs: name, prefix, when it began and was last written to, and its newest entry in short."""
        context, experiment = self._place(request)
        found = self._data.list_tensors(context, experiment_id=experiment, plugin_name=PLUGIN)
        runs = []
        for run, tags in sorted(found.items(), key=lambda item: by_number(item[0])):
            for prefix in prefixes(tags):
                began, entries = tags[start_tag(prefix)].max_wall_time, tags.get(entry_tag(prefix))
                last = None if entries is None else entries.max_wall_time
                place, times = (experiment, run, prefix), (began, last)
                if place not in self._verdicts or self._verdicts[place][0] != times:
                    self._verdicts[place] = times, self._newest_verdict(request, run, prefix, began)
                runs.append(
                    {"run": run, "prefix": prefix, "began": began, "last": last, "newest": self._verdicts[place][1]}
                )
        return runs

    @_as_json
    def log(self, request: Request) -> dict[str, Any]:
        """Return the entries of a run that were written after a time; without a time, its description, too."""
        run, prefix, since = _argument(request, "run"), _argument(request, "prefix"), _since(request)
        start = self._start(request, run, prefix)
        found = self._read(request, run, entry_tag(prefix))
        entries = of_run(start, found).values()
        return {
            "began": start.time,
            "start": describe_start(start.content) if since is None else None,
            "entries": [json.loads(entry.content) for entry in entries if since is None or entry.time > since],
            "until": max((record.time for record in found), default=None),
        }

    @_as_json
    def maps(self, request: Request) -> dict[str, Any]:
        """Return the maps of one layer that were written after a time."""
        run, prefix, layer = (_argument(request, name) for name in ("run", "prefix", "layer"))
        since, records = _since(request), newest(self._read(request, run, maps_tag(prefix, layer)))
        context, experiment = self._place(request)
        # After the maps: if a new run has begun in the meantime, the page must not take its maps for those of the old.
        listed = self._data.list_tensors(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN,
            run_tag_filter=RunTagFilter(runs=[run], tags=[start_tag(prefix)]),
        )
        start = listed.get(run, {}).get(start_tag(prefix))
        fresh = {step: record.content for step, record in records.items() if since is None or record.time > since}
        return {
            "began": None if start is None else start.max_wall_time,
            **describe_maps(fresh),
            "until": max((record.time for record in records.values()), default=None),
        }

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

    def _newest_verdict(self, request: Request, run: str, prefix: str, began: float) -> dict[str, Any] | None:
        """Return the epoch of the newest entry of a run, and the headline and colour of its verdict.

        None if there is no entry, or if it cannot be read. The page says why as soon as somebody chooses the run.
        """
        try:
            return self._read_verdict(request, run, prefix, began)
        except (HTTPException, KeyError, TypeError, ValueError):
            return None

    def _read_verdict(self, request: Request, run: str, prefix: str, began: float) -> dict[str, Any] | None:
        newest_entry = latest(self._read(request, run, entry_tag(prefix), most=1))
        if newest_entry is not None and newest_entry.time < began:
            # A run that was resumed or started anew, and has logged nothing since then.
            left = list(of_run(self._start(request, run, prefix), self._read(request, run, entry_tag(prefix))).values())
            newest_entry = left[-1] if left else None
        if newest_entry is None:
            return None
        entry = json.loads(newest_entry.content)
        verdict = entry["verdict"] or {}
        return {"epoch": entry["epoch"], "headline": verdict.get("headline"), "tone": verdict.get("tone")}

    def _start(self, request: Request, run: str, prefix: str) -> Record:
        start = latest(self._read(request, run, start_tag(prefix)))
        if start is None:
            raise NotFound("TensorBoard has not read this run yet, or its files are gone.")
        return start

    def _read(self, request: Request, run: str, tag: str, most: int = ENTRIES) -> list[Record]:
        """Return the records of one tag of a run; if they are more than ``most``, the last and some of the others."""
        context, experiment = self._place(request)
        found = self._data.read_tensors(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN,
            downsample=most,
            run_tag_filter=RunTagFilter(runs=[run], tags=[tag]),
        )
        data = found.get(run, {}).get(tag, ())
        return [Record(datum.step, datum.wall_time, datum.numpy.item()) for datum in data]

    def _place(self, request: Request) -> tuple[Any, str]:
        if self._data is None:
            raise NotFound("This TensorBoard serves no data to plugins (--generic_data=false).")
        return plugin_util.context(request.environ), plugin_util.experiment_id(request.environ)


def _argument(request: Request, name: str) -> str:
    value = request.args.get(name)
    if value is None:
        raise BadRequest(f"Expected the argument {name!r} in the address, but it is missing.")
    return value


def _since(request: Request) -> float | None:
    return request.args.get("since", type=float)
