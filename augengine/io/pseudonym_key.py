"""The place of a secret in, or none; the key of pseudonyms out.

A pseudonym without a secret key can be turned back by whoever can list the names: all patient numbers of eight digits
are hashed in minutes. So there is always a key. It never stands on a command line, in an output or in a message.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from augengine.errors import ConfigError
from augengine.io.store import Store

KEY, KEY_FILE = "AUGENGINE_PSEUDONYM_KEY", "AUGENGINE_PSEUDONYM_KEY_FILE"
LEAST_BYTES = 16


def pseudonym_key(file: Path | None = None) -> str:
    """64 hex digits made from the secret of a file, of the environment, or of the user's own file.

    That file, `augengine/pseudonym.key` of the user's configuration folder, is made at first use. Who ingests one data
    set on several machines, or adds to one later, gives all of them the same file.

    Args:
        file: of `--pseudonym-key-file`; without it the variable `AUGENGINE_PSEUDONYM_KEY`, then the file that
            `AUGENGINE_PSEUDONYM_KEY_FILE` names, then the user's own.

    Raises:
        ConfigError: a secret that cannot be read, or of less than 16 bytes.
    """
    told = os.environ.get(KEY) if file is None else None
    if told is not None:
        return _key(told.encode(), KEY)
    named = file or (Path(os.environ[KEY_FILE]) if os.environ.get(KEY_FILE) else None)
    path = named.expanduser() if named is not None else own_file()
    if named is None and not path.exists():
        _make(path)
    try:
        return _key(path.read_bytes().strip(), str(path))
    except OSError as error:
        raise ConfigError(
            "the key of pseudonyms cannot be read",
            found=error.strerror,
            where=str(path),
            next_step="give --pseudonym-key-file FILE with 16 secret bytes or more",
        ) from None


def own_file() -> Path:
    """The user's own file, outside of every output."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "augengine" / "pseudonym.key"


def _make(path: Path) -> None:
    """A new secret that its owner alone may read; of two processes at once one makes it."""
    Store(path.parent).create(path.name, (secrets.token_hex(32) + "\n").encode())
    path.chmod(0o600)


def _key(secret: bytes, where: str) -> str:
    if len(secret) < LEAST_BYTES:
        raise ConfigError(
            f"the key of pseudonyms has {LEAST_BYTES} bytes or more",
            found=f"{len(secret)} bytes",
            where=where,
            next_step='make one, for example with python -c "import secrets; print(secrets.token_hex(32))"',
        )
    return hashlib.blake2b(secret, digest_size=32, person=b"augengine-pseudo").hexdigest()
