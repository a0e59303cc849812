"""The real programs of agents, installed from their packages, and a model on loopback that answers them."""

from __future__ import annotations

import fcntl
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: The newest version that these tests are known to pass with.
CLAUDE_NEWEST = "2.1.330"
DUMMY_KEY = "sk-ant-dummy-" + "0" * 20
ANSWER = "hello from loopback"

_INSTALL_S = 240
_USAGE = {"input_tokens": 3, "output_tokens": 1}
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "none", "content": [], "usage": _USAGE}
_EVENTS: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("message_start", {"message": _MESSAGE}),
    ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
    ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": ANSWER}}),
    ("content_block_stop", {"index": 0}),
    ("message_delta", {"delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 4}}),
    ("message_stop", {}),
)


def npm_install(folder: Path, package: str) -> Path:
    """The folder of a package's programs, installed once a run whoever asks."""
    place = folder / package.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            place.mkdir(exist_ok=True)
            words = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(place), package]
            subprocess.run(words, check=True, cwd=place, timeout=_INSTALL_S)
            (place / "done").touch()
    return place / "node_modules" / ".bin"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Answer every message with the same words."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for kind, content in _EVENTS:
            self.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode())

    def do_GET(self) -> None:
        """There is nothing to get."""
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def model() -> Iterator[dict[str, str | None]]:
    """The variables under which Claude Code talks to a server on loopback and to nothing else."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    nowhere = "http://127.0.0.1:9"
    try:
        yield {
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{server.server_port}",
            "HTTPS_PROXY": nowhere,
            "HTTP_PROXY": nowhere,
            "NO_PROXY": "127.0.0.1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
    finally:
        server.shutdown()
        server.server_close()
