"""Who may ask the server, and how much: what is not allowed is refused before anything reads it."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: What is told to anyone who may connect: no word of a model.
_OPEN = ("/", "/favicon.ico", "/health")
#: What takes other bodies than JSON.
_UPLOADS = ("/reconstruct",)
_LOCAL = ("localhost", "127.0.0.1", "::1")
_BODY_S = 30.0  # between two parts of a body
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy",
     b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data: blob:; "
     b"media-src data: blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one request may ask for, and all together."""

    samples: int = 64
    tokens: int = 2048
    bytes: int = 8 * 2**20
    queue: int = 64
    seconds: float = 120.0


@dataclass
class Counts:
    """What ``/metrics`` tells."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: int = 0
    samples: int = 0
    waiting: int = 0  # requests that are at work, or wait for it


def refusal(status: int, message: str, hint: str = "", kind: str = "invalid_request_error") -> dict[str, Any]:
    """An error as OpenAI's clients read it; half a character, which JSON can hold and UTF-8 cannot, is escaped."""
    whole = (f"{message}; {hint}" if hint else message).encode("utf-8", "backslashreplace").decode()
    return {"error": {"message": whole, "type": kind, "code": status}}


class Guard:
    """Stands before the application.

    Args:
        app: The application.
        counts: Takes note of each answer.
        limits: Of bodies.
        host: Where the server listens; if that is this machine alone, no other name for it is answered to.
        token: Without it, of those who ask, none is answered; None needs none.
        hosts: Further names that the server goes by.
    """

    def __init__(
        self, app: Any, *, counts: Counts, limits: Limits, host: str, token: str | None, hosts: tuple[str, ...] = ()
    ) -> None:
        self.app, self.counts, self.limits, self.token = app, counts, limits, token
        self.local = host in _LOCAL
        self.names = {*_LOCAL, host.lower(), *(name.lower() for name in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, route = time.monotonic(), str(scope["path"])

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
                # Only what is there: paths that anyone can make up would fill the memory.
                known = getattr(scope.get("route"), "path", "refused")
                self.counts.answers[known, message["status"]] += 1
                self.counts.seconds[known] += time.monotonic() - began
            await send(message)

        refused = self._refused(scope, route)
        if refused is not None:
            status, message = refused
            await _answer(sending, status, message)
            return
        await self.app(scope, self._measured(receive), sending)

    def _refused(self, scope: Scope, route: str) -> tuple[int, str] | None:
        """The status and the reason that a request is refused with; None where it is not."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 421, "this server does not go by that name in Host; name it with hosts="
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "pages of other sites may not ask this server"
        if self.token is not None and route not in _OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
            if not hmac.compare_digest(given, self.token.encode()):
                return 401, "the token is missing or wrong: send Authorization: Bearer TOKEN"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limits.bytes:
            return 413, f"a body may have {self.limits.bytes:,} bytes"
        if scope["method"] == "POST" and route not in _UPLOADS:
            kind = headers.get("content-type", "").partition(";")[0].strip()
            if kind != "application/json":  # which a form of another site cannot send
                return 415, "send JSON, with Content-Type: application/json"
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a request that names this host is meant for this server, and did not come by a name of others."""
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        if name.lower() in self.names:
            return True
        if self.local:
            return False
        try:  # a page that was led here by its own name does not know the number
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _measured(self, receive: Receive) -> Receive:
        read, ended = 0, False

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal read, ended
            if ended:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), _BODY_S)
            except TimeoutError:
                raise HTTPException(408, "the body does not come") from None
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                ended = not message.get("more_body", False)
                if read > self.limits.bytes:
                    raise HTTPException(413, f"a body may have {self.limits.bytes:,} bytes")
            return message

        return receiving


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps(refusal(status, message)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    headers += [(b"connection", b"close")] if status == 413 else []  # what is left of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
