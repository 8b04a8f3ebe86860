"""An S3 endpoint that misbehaves on purpose: it forwards to a real one, and spoils chosen requests.

A rule names the requests it is for (method and a part of the path) and which of them it spoils, counted from 1. The real
endpoint decides everything else, so that what a client sees is what a broken network or a lesser store would show it.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Literal
from urllib.parse import unquote, urlparse

Action = Literal["lose", "reset", "answer", "unconditional", "corrupt", "pages"]
ALWAYS: Final = 0
PAGE_KEYS: Final = 3
_HOP: Final = frozenset({"connection", "transfer-encoding", "keep-alive", "expect", "content-length"})


@dataclass
class Rule:
    """Spoil requests.

    Attributes:
        action: ``lose`` forwards and drops the answer; ``reset`` drops the connection and forwards nothing; ``answer``
            answers `status` and forwards nothing; ``unconditional`` forwards without ``If-None-Match``; ``corrupt``
            forwards the body with its last byte changed; ``pages`` ends each page of a listing after `PAGE_KEYS` keys.
        method: of the requests it is for; empty = any.
        path: a part of their decoded path.
        first: the first matching request that is spoiled, from 1.
        count: how many from there on; `ALWAYS` = all.
        conditional: only requests with ``If-None-Match``.
        status: for ``answer``.
        code: the S3 error code of an answer.
    """

    action: Action
    method: str = ""
    path: str = ""
    first: int = 1
    count: int = 1
    conditional: bool = False
    status: int = 500
    code: str = "InternalError"
    seen: int = 0

    def spoils(self, method: str, path: str, conditional: bool) -> bool:
        """Count a request and say whether it is one to spoil."""
        if (self.method and method != self.method) or self.path not in path or (self.conditional and not conditional):
            return False
        self.seen += 1
        return self.seen >= self.first and (self.count == ALWAYS or self.seen < self.first + self.count)

    @property
    def spoiled(self) -> int:
        """How many requests were spoiled so far."""
        most = self.seen - self.first + 1
        return max(0, most if self.count == ALWAYS else min(most, self.count))


@dataclass
class Proxy:
    """A running proxy: where it listens, and its rules, which may be changed at any time."""

    url: str
    rules: list[Rule] = field(default_factory=list)

    def rule(self, action: Action, **matching: object) -> Rule:
        """Add a rule and return it."""
        made = Rule(action, **matching)  # type: ignore[arg-type]
        self.rules.append(made)
        return made


@contextmanager
def s3_proxy(target: str) -> Iterator[Proxy]:
    """A proxy in front of the endpoint at URL `target`, in threads of this process."""
    server = _Server(target)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.server.rule_for(self.command, unquote(self.path), "If-None-Match" in self.headers)
        action = rule.action if rule is not None else ""
        if rule is not None and action == "answer":
            self._reply(rule.status, [("Content-Type", "application/xml")], _error(rule.code))
            return
        if action != "reset":
            answer = self._forward(body, action)
            if action != "lose":
                self._reply(*answer)
                return
        # Drop the connection with a RST, as a broken network does.
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _forward(self, body: bytes, action: str) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        path = self.path
        if action == "unconditional":
            headers.pop("If-None-Match", None)
        if action == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if action == "pages":
            path = f"{re.sub('&?max-keys=[0-9]+', '', path)}&max-keys={PAGE_KEYS}"
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            connection.request(self.command, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value if self.command == "HEAD" else length
            elif name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlparse(target).netloc
        self.proxy = Proxy(f"http://127.0.0.1:{self.server_address[1]}")
        self._lock = threading.Lock()

    def rule_for(self, method: str, path: str, conditional: bool) -> Rule | None:
        with self._lock:
            return next((rule for rule in self.proxy.rules if rule.spoils(method, path, conditional)), None)

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news here."""


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made by a test</Message></Error>".encode()
