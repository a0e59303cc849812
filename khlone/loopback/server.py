"""Which services does an agent program find on loopback? Messages, responses and tokens over HTTP, on 127.0.0.1 alone.

Programs that talk to fixed hosts over TLS reach the same services through the proxy that
is at the same port, with a certificate made for the day; every other host is refused, so
nothing leaves the machine. Kept in memory and bounded: nothing is written but that
certificate, nothing of a request's text is kept.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from khlone.loopback import answers
from khlone.loopback.accounts import Accounts
from khlone.loopback.answers import Answer, Event, Failure
from khlone.loopback.caching import Cache, Parts
from khlone.loopback.limits import Buckets, RateLimit
from khlone.values import dataclass, replace

#: The hosts that stand behind the proxy.
HOSTS = ("api.anthropic.com", "console.anthropic.com", "platform.claude.com", "claude.ai", "auth.openai.com")
_KEPT = 10_000
_MOST_BYTES = 64 << 20
_NO_PROXY = "127.0.0.1,localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request: `credential` is an account's name, or a key; `at` is `time.monotonic()`."""

    method: str
    path: str
    credential: str
    status: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one credential has asked for: answered requests, their tokens, and requests refused as too many or else."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    limited: int = 0
    failed: int = 0


class Loopback:
    """The services, from `with` to its end: `url` is where they are, `accounts` who may use them.

    `respond` is given the body of each request and returns what is said; `limit` is for
    each credential on its own, or with `shared_limit` for all of them together. With
    `caches` what a request of the Messages API marks to be kept is read for nothing later.
    """

    def __init__(
        self,
        *,
        accounts: Accounts | None = None,
        respond: Callable[[Mapping[str, Any]], Answer | Failure] = lambda _: Answer(),
        limit: RateLimit | None = None,
        shared_limit: bool = False,
        caches: bool = False,
    ) -> None:
        self.accounts = accounts or Accounts()
        self.respond = respond
        #: Hosts that programs asked the proxy for and did not get.
        self.refused_hosts: deque[str] = deque(maxlen=_KEPT)
        self._limit, self._is_shared, self._has_caches = limit, shared_limit, caches
        self._lock = threading.Lock()
        self._planned: deque[Answer | Failure] = deque()
        self._buckets: dict[str, Buckets] = {}
        self._caches: dict[str, Cache] = {}
        self._tallies: dict[str, Tally] = {}
        self._seen: deque[Seen] = deque(maxlen=_KEPT)
        self._tls: ssl.SSLContext | None = None
        self._certificate: Path | None = None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.loopback = self

    def __enter__(self) -> Loopback:
        """Serve, in a thread of its own."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self) -> dict[str, str]:
        """The variables under which an agent program talks to this server and to nothing else, and reports nothing."""
        found = {
            "ANTHROPIC_BASE_URL": self.url,
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "CODEX_REFRESH_TOKEN_URL_OVERRIDE": f"{self.url}/oauth/token",
            "FAKE_AGENT_TOKEN_URL": f"{self.url}/v1/oauth/token",
            "HTTPS_PROXY": self.url,
            "HTTP_PROXY": self.url,
            "NO_PROXY": _NO_PROXY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        }
        found |= {name.lower(): found[name] for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")}
        if self._certificate is not None:
            found |= {"NODE_EXTRA_CA_CERTS": str(self._certificate), "SSL_CERT_FILE": str(self._certificate)}
        return found

    def serve_hosts(self, folder: Path) -> None:
        """Stand behind the proxy for `HOSTS`: needed where a program refreshes tokens at a fixed address.

        Writes a key and a certificate into `folder`, with openssl, and names the certificate
        in `environment`. Raises CommandNotFound without openssl.
        """
        from khlone.loopback.certificates import make_certificate

        self._certificate, self._tls = make_certificate(folder, HOSTS)

    # -- what is going to be said ------------------------------------------------------------

    def plan(self, *said: Answer | Failure) -> None:
        """What the next requests for an answer get, one each, before `respond` is asked again."""
        with self._lock:
            self._planned.extend(said)

    def answer_to(self, body: Mapping[str, Any]) -> Answer | Failure:
        """What is said to a request now."""
        with self._lock:
            if self._planned:
                return self._planned.popleft()
        return self.respond(body)

    def limit(self, limit: RateLimit | None) -> None:
        """What is allowed in a minute from here on; the buckets are full again."""
        with self._lock:
            self._limit, self._buckets = limit, {}

    def buckets_of(self, owner: str) -> Buckets | None:
        """The buckets that a credential takes from."""
        if self._limit is None:
            return None
        with self._lock:
            return self._buckets.setdefault("" if self._is_shared else owner, Buckets(self._limit))

    def cache_of(self, owner: str) -> Cache | None:
        """What was read before of what a credential asks; the same for all that share their limit."""
        if not self._has_caches:
            return None
        with self._lock:
            return self._caches.setdefault("" if self._is_shared else owner, Cache())

    # -- what was asked ----------------------------------------------------------------------

    def tally(self, credential: str) -> Tally:
        """What an account, by its name, or a key has asked for so far."""
        with self._lock:
            return self._tallies.get(credential, Tally())

    def tallies(self) -> Mapping[str, Tally]:
        """The same of all that have asked."""
        with self._lock:
            return dict(self._tallies)

    def requests(self, path: str = "") -> list[Seen]:
        """The last 10,000 requests whose path begins so, in their order."""
        with self._lock:
            return [one for one in self._seen if one.path.startswith(path)]

    def note(self, seen: Seen) -> None:
        """Keep that something was asked."""
        with self._lock:
            self._seen.append(seen)

    def count(self, owner: str, **added: int) -> None:
        """Add to the tally of a credential."""
        with self._lock:
            before = self._tallies.get(owner, Tally())
            self._tallies[owner] = replace(before, **{name: getattr(before, name) + n for name, n in added.items()})

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What the proxy answers for `HOSTS` with."""
        return self._tls


class _Server(ThreadingHTTPServer):
    # Thirty programs knock in the same moment.
    request_queue_size = 256
    daemon_threads = True
    loopback: Loopback

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that hung up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 300

    def do_CONNECT(self) -> None:
        """Be the host that is asked for, if it is one of ours."""
        tls, host = self.server.loopback.tls, self.path.rpartition(":")[0]
        if tls is None or host not in HOSTS:
            self.server.loopback.refused_hosts.append(host)
            self._say(403, {"error": f"{host} is not on loopback"})
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.wfile.flush()
        self.close_connection = True
        try:
            with tls.wrap_socket(self.connection, server_side=True) as inner:
                _Handler(inner, self.client_address, self.server)
        except (OSError, ssl.SSLError):
            return

    def do_POST(self) -> None:
        """Answer as the service whose path it is."""
        length = int(self.headers.get("content-length") or 0)
        if self._is_foreign() or length > _MOST_BYTES:
            self._say(403 if self._is_foreign() else 413, Failure(status=413).body())
            return
        path = urlsplit(self.path).path
        body = _parsed(self.rfile.read(length))
        if path.endswith("/oauth/token"):
            self._tokens(body)
        elif path.endswith("/oauth/revoke"):
            self.server.loopback.accounts.revoke(str(body.get("token")))
            self._say(200, {})
        elif path.endswith("/messages/count_tokens"):
            self._say(200, {"input_tokens": max(1, length // 4)})
        elif path.endswith(("/messages", "/responses")):
            self._generate(path, body, length)
        else:
            self._say(404, Failure(status=404, message=f"there is no {path}").body())

    def do_GET(self) -> None:
        """There is nothing to get but a list of models."""
        if self._is_foreign():
            self._say(403, {"error": "not on loopback"})
        elif urlsplit(self.path).path.endswith("/models"):
            self._say(200, {"data": [], "models": [], "has_more": False})
        else:
            self._say(404, Failure(status=404, message="there is nothing to get").body())

    def do_HEAD(self) -> None:
        """Programs look so whether the server is there."""
        self._say(404, {})

    def _is_foreign(self) -> bool:
        """Whether this is a call of another host through the proxy, without TLS."""
        host = urlsplit(self.path).hostname
        if host in (None, "127.0.0.1", "localhost"):
            return False
        self.server.loopback.refused_hosts.append(str(host))
        return True

    # -- tokens ------------------------------------------------------------------------------

    def _tokens(self, body: Mapping[str, Any]) -> None:
        made = self.server.loopback.accounts.refresh(str(body.get("refresh_token")))
        if made is None:
            self._say(400, {"error": "invalid_grant", "error_description": "Refresh token not found or invalid"})
        else:
            self._say(200, made.answer(), owner=made.account)

    # -- answers -----------------------------------------------------------------------------

    def _generate(self, path: str, body: Mapping[str, Any], length: int) -> None:
        loopback, credential = self.server.loopback, self._credential()
        owner = loopback.accounts.owner(credential)
        if owner is None or not credential:
            self._fail(Failure(status=401, message="invalid bearer token or key"), owner or "")
            return
        said = loopback.answer_to(body)
        tokens = length // 4 + 1
        parts = Parts(input=tokens)
        buckets, cache = loopback.buckets_of(owner), loopback.cache_of(owner)
        if isinstance(said, Answer) and said.input_tokens is not None:
            parts = Parts(input=said.input_tokens)
        elif cache is not None:
            parts = cache.split(body, tokens)
        wait = buckets.take(parts.input + parts.created) if buckets is not None else None
        headers = buckets.headers() if buckets is not None else {}
        if wait is not None:
            said = Failure(
                status=429, message="over the limit of a minute", retry_after_s=int(wait) + 1, headers=headers
            )
        if isinstance(said, Failure):
            loopback.count(owner, **{"limited" if said.status == 429 else "failed": 1})
            self._fail(said, owner)
            return
        if buckets is not None:
            buckets.spend(said.tokens)
        if cache is not None:
            cache.keep(parts)
        loopback.count(
            owner,
            requests=1,
            input_tokens=parts.input,
            output_tokens=said.tokens,
            cache_read_tokens=parts.read,
            cache_creation_tokens=parts.created,
        )
        model = str(body.get("model") or "none")
        is_messages = path.endswith("/messages")
        if body.get("stream"):
            events = (answers.message_events if is_messages else answers.response_events)(said, model, parts)
            self._stream(events, said.pause_s, headers, owner)
        else:
            whole = (answers.message if is_messages else answers.response)(said, model, parts)
            self._say(200, whole, headers, owner=owner)

    def _credential(self) -> str:
        """The key, or the token, of a request; empty without one."""
        kind, _, token = (self.headers.get("authorization") or "").partition(" ")
        return token.strip() if kind.lower() == "bearer" else (self.headers.get("x-api-key") or "")

    def _fail(self, failure: Failure, owner: str) -> None:
        headers = dict(failure.headers)
        if failure.retry_after_s is not None:
            headers["retry-after"] = str(failure.retry_after_s)
        self._say(failure.status, failure.body(), headers, owner=owner)

    def _stream(self, events: Iterator[Event], pause_s: float, headers: Mapping[str, str], owner: str) -> None:
        self._head(200, {"content-type": "text/event-stream", **headers}, owner)
        for kind, content in events:
            self.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode())
            self.wfile.flush()
            if pause_s and kind.endswith("delta"):
                time.sleep(pause_s)

    def _say(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] = {}, owner: str = "") -> None:
        content = json.dumps(body).encode()
        kept = {"content-type": "application/json", "content-length": str(len(content)), **headers}
        self._head(status, kept, owner)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: int, headers: Mapping[str, str], owner: str) -> None:
        seen = Seen(
            method=self.command, path=urlsplit(self.path).path, credential=owner, status=status, at=time.monotonic()
        )
        self.server.loopback.note(seen)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name it is called by)
        """Say nothing."""


def _parsed(content: bytes) -> Mapping[str, Any]:
    """A body as JSON or as a form; empty for anything else."""
    try:
        found = json.loads(content)
    except ValueError:
        found = dict(parse_qsl(content.decode(errors="replace")))
    return found if isinstance(found, dict) else {}
