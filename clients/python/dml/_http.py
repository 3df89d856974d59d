"""Requests to whichever worker answers.

Every request may be sent twice, since doing a thing twice does it once: so when a worker is silent the next one is asked.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import ssl
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

PIECE = 1 << 18
"""How much of a file is sent or read at a time."""


class Problem(Exception):
    """The cluster refuses: what, where, and how to mend it (RFC 9457)."""

    def __init__(self, status: int, body: dict[str, Any]):
        self.status = status
        self.code: str = body.get("code", "no-words")
        self.detail: str = body.get("detail", "")
        self.row: int | None = body.get("row")
        self.column: str | None = body.get("column")
        super().__init__(f"{self.detail} ({self.code}, {status})")


class NoAnswer(Exception):
    """No worker answers."""


class Workers:
    """The workers of a cluster, as addresses."""

    def __init__(self, addresses: str | Iterable[str], token: str | None, ca: str | None, timeout: float):
        if isinstance(addresses, str):
            addresses = addresses.split(",")
        self._workers = [_parse(address.strip()) for address in addresses if address.strip()]
        if not self._workers:
            raise ValueError("no address: write http://HOST:PORT")
        self._token = token if token is not None else os.environ.get("DML_TOKEN")
        self._timeout = timeout
        self._tls = ssl.create_default_context(cafile=ca) if any(tls for tls, _, _ in self._workers) else None

    def json(self, method: str, path: str, body: Any = None, timeout: float | None = None) -> Any:
        """Sends JSON and takes JSON."""
        sent = None if body is None else json.dumps(body).encode()
        with self.send(method, path, sent, "application/json", "application/json", timeout) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def send(
        self,
        method: str,
        path: str,
        body: bytes | BinaryIO | None = None,
        content_type: str | None = None,
        accept: str = "*/*",
        timeout: float | None = None,
    ) -> Answer:
        """Asks the workers in turn until one answers. What one does not find another may: those of a split network know things of
        their own."""
        headers = {"accept": accept}
        if body is not None and content_type:
            headers["content-type"] = content_type
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        silent: list[str] = []
        refused: Problem | None = None
        for tls, host, port in self._workers:
            if isinstance(body, io.IOBase):
                body.seek(0)
            try:
                answer = self._ask(tls, host, port, method, path, body, headers, timeout or self._timeout)
            except (OSError, http.client.HTTPException) as error:
                silent.append(f"{host}:{port}: {error or type(error).__name__}")
                continue
            if answer.status < 400:
                return answer
            problem = _problem(answer)
            if problem.status == 503 or (problem.status == 404 and method == "GET"):
                refused = refused or problem
                continue
            raise problem
        if refused:
            raise refused
        raise NoAnswer("; ".join(silent))

    def _ask(
        self,
        tls: bool,
        host: str,
        port: int,
        method: str,
        path: str,
        body: bytes | BinaryIO | None,
        headers: dict[str, str],
        timeout: float,
    ) -> Answer:
        connection: http.client.HTTPConnection
        if tls:
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        chunked = isinstance(body, io.IOBase)
        pieces = iter(lambda: body.read(PIECE), b"") if chunked else body  # type: ignore[union-attr]
        try:
            connection.request(method, path, pieces, headers, encode_chunked=chunked)
            return Answer(connection, connection.getresponse())
        except (BrokenPipeError, ConnectionResetError):
            # It may have said why before it hung up.
            try:
                return Answer(connection, connection.getresponse())
            except (OSError, http.client.HTTPException):
                connection.close()
                raise
        except BaseException:
            connection.close()
            raise


class Answer:
    """An answer that is being read; closes its connection in the end."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse):
        self._connection, self._response = connection, response
        self.status = response.status

    def read(self) -> bytes:
        """The whole body."""
        return self._response.read()

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes."""
        return iter(lambda: self._response.read(PIECE), b"")

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _parse(address: str) -> tuple[bool, str, int]:
    url = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
    if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/"):
        raise ValueError(f"'{address}' is not the address of a worker: write http://HOST:PORT")
    return url.scheme == "https", url.hostname, url.port or 7300


def _problem(answer: Answer) -> Problem:
    with answer:
        text = answer.read()
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {"detail": text.decode("utf-8", "replace")[:200]}
    return Problem(answer.status, body)


def segment(text: str) -> str:
    """A name as one segment of a path."""
    return urllib.parse.quote(text, safe="")


def left(deadline: float | None) -> float:
    """The seconds until then."""
    return 3600.0 if deadline is None else max(deadline - time.monotonic(), 0.0)
