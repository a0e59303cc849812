"""A GitHub on loopback for the real gh: the few GraphQL questions that it asks about pull requests.

The host `github.localhost` is one that gh speaks plain HTTP with, and a proxy on 127.0.0.1 is
where everything that it asks goes, whatever name is asked for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "github.localhost"
TOKEN = "gho_0123456789abcdefghijklmnopqrstuvwxyz"


class Hub:
    """What it holds, was asked, and answers: `status` other than 200 fails every question."""

    def __init__(self) -> None:
        self.pulls: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.status = 200
        self._lock = threading.Lock()
        self.port = 0

    @property
    def environment(self) -> dict[str, str]:
        """Where programs find it."""
        return {"HTTP_PROXY": f"http://127.0.0.1:{self.port}", "HTTPS_PROXY": f"http://127.0.0.1:{self.port}"}

    def answer(self, query: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The document for one question."""
        with self._lock:
            return self._answer(query, given)

    def _answer(self, query: str, given: Mapping[str, Any]) -> dict[str, Any]:
        repository: dict[str, Any]
        if "mutation PullRequestCreate" in query:
            self.asked.append("create")
            wanted = given["input"]
            head = wanted["headRefName"]
            if any(one["headRefName"] == head and one["baseRefName"] == wanted["baseRefName"] for one in self.pulls):
                return {"errors": [{"message": f"A pull request already exists for {head}."}]}
            return {"data": {"createPullRequest": {"pullRequest": self._opened(wanted)}}}
        if "query PullRequestByNumber" in query:
            self.asked.append("view")
            found = [one for one in self.pulls if one["number"] == given["pr_number"]]
            if not found:
                return {
                    "data": None,
                    "errors": [{"type": "NOT_FOUND", "message": "Could not resolve to a PullRequest"}],
                }
            repository = {"pullRequest": found[0]}
        elif "pullRequests(" in query:
            self.asked.append("list")
            head = given.get("headBranch") or given.get("headRefName")
            page = {"hasNextPage": False, "endCursor": ""}
            nodes = [one for one in self.pulls if one["headRefName"] == head]
            repository = {"pullRequests": {"totalCount": len(nodes), "nodes": nodes, "pageInfo": page}}
        else:
            self.asked.append("repository")
            repository = _PROJECT
        return {"data": {"repository": repository}}

    def _opened(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        number = len(self.pulls) + 1
        pull = {
            "id": f"P{number}",
            "number": number,
            "url": f"https://{HOST}/team/project/pull/{number}",
            "state": "OPEN",
            "title": wanted["title"],
            "body": wanted["body"],
            "isDraft": wanted["draft"],
            "baseRefName": wanted["baseRefName"],
            "headRefName": wanted["headRefName"],
            "isCrossRepository": ":" in wanted["headRefName"],
            "headRepositoryOwner": {"id": "U1", "login": "team"},
        }
        self.pulls.append(pull)
        return pull


_PROJECT: dict[str, Any] = {
    "id": "R1",
    "name": "project",
    "owner": {"login": "team"},
    "hasIssuesEnabled": True,
    "description": "",
    "hasWikiEnabled": False,
    "viewerPermission": "WRITE",
    "defaultBranchRef": {"name": "main"},
    "parent": None,
    "mergeCommitAllowed": True,
    "rebaseMergeAllowed": True,
    "squashMergeAllowed": True,
}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers until the block is left."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["content-length"])))
            hub.tokens.add(str(self.headers["authorization"]))
            found = hub.answer(given["query"], given.get("variables") or {}) if hub.status == 200 else {"message": "no"}
            body = json.dumps(found).encode()
            self.send_response(hub.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing on the test's stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
