"""A stand-in for W&B's server: it takes what `wandb sync` and an online run send, and keeps it."""

from __future__ import annotations

import gzip
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One run as the server has it.

    Attributes:
        lines: file name -> its lines, as the file stream has written them.
        upserts: what was sent of the run itself: name, group, tags, config.
        files: names of uploaded files.
        exits: exit codes, one a session.
    """

    lines: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    upserts: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines["wandb-history.jsonl"]]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.lines["wandb-summary.json"] or ["{}"])[-1])

    def upserted(self, key: str) -> Any:
        """The last value that was sent."""
        return next(given[key] for given in reversed(self.upserts) if given.get(key) is not None)


class Server(ThreadingHTTPServer):
    """Runs by their ids, and how to reach the server."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, Received] = defaultdict(Received)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.environment = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0" * 40}

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """What GraphQL's operations, known by a word in them, are answered."""
        if "upsertBucket" in query:
            run = self.runs[given["name"]]
            run.upserts.append(given)
            project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
            bucket = {
                "id": given["name"], "name": given["name"], "displayName": given["displayName"],
                "description": None, "config": given.get("config") or "{}", "sweepName": None,
                "project": project, "historyLineCount": len(run.rows),
            }  # fmt: skip
            return {"upsertBucket": {"bucket": bucket, "inserted": len(run.upserts) == 1}}
        if "missingOk" in query:
            found = {"id": "m", "name": given["project"], "entity": {"id": "e", "name": "me"}}
            return {"model": {**found, "bucket": self._bucket(given["name"])}}
        if "createArtifact(" in query:  # as tables are sent: it has it already
            artefact = {"id": "a", "digest": "d", "state": "COMMITTED",
                        "artifactSequence": {"id": "s", "latestArtifact": None}}  # fmt: skip
            return {"createArtifact": {"artifact": artefact}}
        if "createRunFiles" in query:
            home = f"{self.url}/{given['run']}"
            urls = [{"name": name, "uploadUrl": f"{home}/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": urls}}
        if "features" in query:
            return {"serverInfo": {"features": []}}
        viewer = {"id": "v", "entity": "me", "username": "me", "email": "", "flags": "{}",
                  "admin": False, "teams": {"edges": []}}  # fmt: skip
        return {"viewer": viewer, "serverInfo": {"cliVersionInfo": {}}}

    def _bucket(self, name: str) -> dict[str, Any] | None:
        if name not in self.runs:
            return None
        run = self.runs[name]
        history, events = run.lines["wandb-history.jsonl"], run.lines["wandb-events.jsonl"]
        return {
            "id": name, "name": name, "displayName": name, "tags": [], "notes": None,
            "summaryMetrics": json.dumps(run.summary), "config": run.upserted("config"),
            "logLineCount": len(run.lines["output.log"]), "historyLineCount": len(history),
            "eventsLineCount": len(events), "historyTail": json.dumps(history[-1:]),
            "eventsTail": json.dumps(events[-1:]), "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        raw = self._body()
        if self.path == "/graphql":
            body = json.loads(raw)
            given = body.get("variables") or {}
            self._reply({"data": self.server.answer(body["query"], given)})
            return
        if not self.path.endswith("/file_stream"):  # what it says of itself
            self._reply({})
            return
        body = json.loads(raw)
        run = self.server.runs[self.path.split("/")[-2]]
        for name, part in body.get("files", {}).items():
            begin, lines = part["offset"], part["content"]
            run.lines[name][begin : begin + len(lines)] = lines
        run.exits += [body["exitcode"]] if body.get("complete") else []
        self._reply({"exitcode": None, "limits": {}})

    def do_PUT(self) -> None:
        self._body()
        run, _, name = self.path.strip("/").partition("/")
        self.server.runs[run].files.append(name)
        self._reply({})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """A server, as long as the block lasts."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
