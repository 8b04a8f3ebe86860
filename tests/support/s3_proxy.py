"""An S3 endpoint that misbehaves on purpose: it forwards to a real one, and spoils chosen requests.

A rule names the requests it is for (method and a part of the path) and which of them it spoils, counted from 1. The real
endpoint decides everything else, so that what a client sees is what a broken network or a lesser store would show it.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Final, Literal
from urllib.parse import unquote, urlparse

Action = Literal[
    "lose", "reset", "answer", "unconditional", "corrupt", "pages",
    "timeout", "reset-request", "reset-answer", "truncate", "flip", "flip-request", "stale", "reorder",
]  # fmt: skip
Answer = tuple[int, list[tuple[str, str]], bytes]
ALWAYS: Final = 0
PAGE_KEYS: Final = 3
_HOP: Final = frozenset({"connection", "transfer-encoding", "keep-alive", "expect", "content-length"})


@dataclass
class Rule:
    """Spoil requests.

    Attributes:
        action: ``lose`` forwards and drops the answer; ``reset`` drops the connection and forwards nothing; ``answer``
            answers `status` and forwards nothing; ``unconditional`` forwards without ``If-None-Match``; ``corrupt``
            forwards the body with its last byte changed; ``pages`` ends each page of a listing after `PAGE_KEYS` keys;
            ``timeout`` answers nothing for `seconds`; ``reset-request`` and ``reset-answer`` drop the connection in the
            middle of a body; ``truncate`` and ``flip`` spoil the answer's body, ``flip-request`` the request's (a store
            that checks the signed digest refuses it); ``stale`` answers a listing as it was answered at first, ``reorder``
            the other way round.
        method: of the requests it is for; empty = any.
        path: a part of their decoded path.
        first: the first matching request that is spoiled, from 1.
        count: how many from there on; `ALWAYS` = all.
        conditional: only requests with ``If-None-Match``.
        status: for ``answer``.
        code: the S3 error code of an answer.
        seconds: for ``timeout``.
        share: of the matching requests after the first that is spoiled, drawn from `chance`.
        spoiled: how many requests were spoiled so far.
    """

    action: Action
    method: str = ""
    path: str = ""
    first: int = 1
    count: int = 1
    conditional: bool = False
    status: int = 500
    code: str = "InternalError"
    seconds: float = 2.0
    share: float = 1.0
    chance: Random = field(default_factory=lambda: Random(0))  # noqa: S311
    seen: int = 0
    spoiled: int = 0

    def spoils(self, method: str, path: str, conditional: bool) -> bool:
        """Count a request and say whether it is one to spoil."""
        if (self.method and method != self.method) or self.path not in path or (self.conditional and not conditional):
            return False
        self.seen += 1
        chosen = self.seen >= self.first and (self.count == ALWAYS or self.seen < self.first + self.count)
        chosen = chosen and (self.seen == self.first or self.share == 1 or self.chance.random() < self.share)
        self.spoiled += chosen
        return chosen


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
        length = int(self.headers.get("Content-Length") or 0)
        rule = self.server.rule_for(self.command, unquote(self.path), "If-None-Match" in self.headers)
        action = rule.action if rule is not None else ""
        if rule is not None and action == "reset-request":
            self.rfile.read(length // 2)
            self._drop()
            return
        body = self.rfile.read(length)
        if rule is not None and action == "answer":
            self._reply(rule.status, [("Content-Type", "application/xml")], _error(rule.code))
        elif rule is not None and action == "timeout":
            time.sleep(rule.seconds)
            self._drop()
        elif action == "reset":
            self._drop()
        else:
            self._spoil(rule, *self._answer(body, rule))

    def _answer(self, body: bytes, rule: Rule | None) -> Answer:
        action = rule.action if rule is not None else ""
        if rule is not None and action == "flip-request" and body:
            body = _flipped(body, rule.chance)
            signed = self.headers.get("x-amz-content-sha256", "")
            if len(signed) == 64 and hashlib.sha256(body).hexdigest() != signed:
                return 400, [("Content-Type", "application/xml")], _error("XAmzContentSHA256Mismatch")
        if "If-None-Match" not in self.headers:
            return self._forward(body, action)
        with self.server.lock_of(self.path):  # moto has let two conditional puts of one key win
            return self._forward(body, action)

    def _spoil(self, rule: Rule | None, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        action = rule.action if rule is not None else ""
        if self.command == "GET" and "list-type=2" in self.path and status == 200:
            first = self.server.first_listing(self.path, body)
            body = first if action == "stale" else _reordered(body) if action == "reorder" else body
        if rule is not None and action == "flip" and body:
            body = _flipped(body, rule.chance)
        if action == "truncate":
            body = body[: len(body) // 2]
        if action == "lose":
            self._drop()
        elif action == "reset-answer":
            self._reply(status, headers, body[: len(body) // 2], length=len(body) + 1)
            self._drop()
        else:
            self._reply(status, headers, body)

    def _drop(self) -> None:
        """Drop the connection with a RST, as a broken network does."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _forward(self, body: bytes, action: str) -> Answer:
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

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes, *, length: int = -1) -> None:
        self.send_response_only(status)
        said = str(len(body) if length < 0 else length)
        for name, value in headers:
            if name.lower() == "content-length":
                said = value if self.command == "HEAD" else said
            elif name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", said)
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
        self._locks: dict[str, threading.Lock] = {}
        self._listings: dict[str, bytes] = {}

    def lock_of(self, path: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(path, threading.Lock())

    def first_listing(self, path: str, body: bytes) -> bytes:
        """How a listing was answered when it was first asked for."""
        with self._lock:
            return self._listings.setdefault(path, body)

    def rule_for(self, method: str, path: str, conditional: bool) -> Rule | None:
        with self._lock:
            return next((rule for rule in self.proxy.rules if rule.spoils(method, path, conditional)), None)

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news here."""


def _flipped(body: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << chance.randrange(8)]) + body[at + 1 :]


def _reordered(body: bytes) -> bytes:
    """A page of a listing with its keys the other way round."""
    found = re.findall(b"<Contents>.*?</Contents>", body, re.DOTALL)
    turned = iter(reversed(found))
    return re.sub(b"<Contents>.*?</Contents>", lambda _: next(turned), body, flags=re.DOTALL)


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made by a test</Message></Error>".encode()
