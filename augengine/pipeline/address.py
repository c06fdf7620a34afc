"""The address of a Ray cluster in; nothing, or one line that says why this machine cannot work there, out."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from augengine.errors import RunError

# For a cluster's first sign of life; Ray itself tries for 40 s.
ANSWER_S = 5.0
_ASKED = ("/ray.rpc.NodeInfoGcsService/GetClusterId", "/ray.rpc.RayletDriver/ClusterInfo")
"""What a head answers to everybody who has its token, and what Ray's client server does (`ray://`)."""


def check_answers(address: str) -> None:
    """Refuse an address at which nothing speaks Ray's protocol, and a head that refuses this machine's token.

    Ray itself waits long for either, repeats what its native code says of it, and names another cause.
    """
    if address in ("auto", "local"):
        return
    if address.startswith(("http://", "https://")):
        raise no_answer(address, "the dashboard's address; scripts take the head's, host:6379")
    found = re.fullmatch(r"(?:ray://)?(?P<host>[^/]+):(?P<port>\d{1,5})", address)
    if found is None:
        raise no_answer(address, "no address of the form host:port")
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise no_answer(address, str(error)) from None
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return  # the handshake needs the cluster's certificates
    import grpc

    with grpc.insecure_channel(f"{found['host']}:{found['port']}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_S)
        except grpc.FutureTimeoutError:
            raise no_answer(address, "something that is not Ray") from None
        if _mode() not in ("", "disabled", "token"):
            return  # the token is another system's, and Ray asks for it
        token = _token()
        if not (token.isascii() and token.isprintable()):
            raise token_refused(address, "a token that cannot be sent, since it holds more than plain letters")
        header = [("authorization", f"Bearer {token}")] if token else []
        for method in _ASKED:
            try:
                channel.unary_unary(method)(b"", timeout=ANSWER_S, metadata=header)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    raise token_refused(address) from None


def no_answer(address: str, found: str) -> RunError:
    """No cluster is there; `found` says what is."""
    return RunError(
        "no Ray cluster answers",
        found=found.strip().splitlines()[0],
        where=f"RAY_ADDRESS={address}",
        next_step="start one with `ray start --head`, or unset RAY_ADDRESS to work on this machine",
    )


def token_refused(address: str, found: str | None = None) -> RunError:
    """A cluster is there, and does not take what this machine sends; the token itself is not told."""
    if found is None:
        found = "another token than the head's" if _token() else "no token in what this machine sends"
        if _mode() != "token":
            found += f" (RAY_AUTH_MODE is {_mode() or 'not set'})"
    return RunError(
        "this Ray cluster asks for its token",
        found=found,
        where=f"RAY_ADDRESS={address}",
        next_step="export RAY_AUTH_MODE=token, with the head's ~/.ray/auth_token on this machine",
    )


def _mode() -> str:
    return os.environ.get("RAY_AUTH_MODE", "").lower()


def _token() -> str:
    """What Ray would send, found as Ray does; empty without one."""
    if _mode() != "token":
        return ""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray/auth_token")
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError):
        return ""
