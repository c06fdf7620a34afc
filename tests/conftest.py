"""Shared fixtures: real MRI (optional), Ray, an object store, and a folder on each kind of storage."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import BUCKET

# Before numpy and torch load: threads change the last bits and fight over small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers would else wait for whatever else the machine does, such as the other half of the tests.
os.environ.setdefault("RAY_worker_niceness", "0")
# Tests make no file of the user's.
os.environ.setdefault("AUGENGINE_PSEUDONYM_KEY", "of the tests, and no secret")

ROOT = Path(__file__).resolve().parents[1]
STORAGE = ("local", "memory", "s3")


@pytest.fixture(autouse=True)
def console_as_before() -> Iterator[None]:
    """A command in this process that was given `--json` or `--quiet` leaves the next test's console alone."""
    yield
    if (module := sys.modules.get("augengine.report.console")) is not None:
        module.console.stderr, module.console.quiet = False, False


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real MRI, DICOM and tables; tests that need them skip where they are absent."""
    folder = Path(os.environ.get("AUGENGINE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real-data folder is absent (set AUGENGINE_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests that need it: 4 logical CPUs, no dashboard."""
    from augengine.pipeline.cluster import connect

    connect(num_cpus=4)
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, Any]]:
    """Storage options of an S3 server on this machine, which holds the bucket `BUCKET`."""
    import fsspec
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = {"region_name": "us-east-1"}
    options = {
        "key": "test-key",
        "secret": "test-secret",
        "endpoint_url": f"http://{host}:{port}",
        "client_kwargs": client,
    }
    fsspec.filesystem("s3", **options).call_s3("create_bucket", Bucket=BUCKET)
    yield options
    server.stop()


@pytest.fixture(params=STORAGE)
def storage(request: pytest.FixtureRequest) -> str:
    """Kind of storage: `local`, `memory` (of this process) or `s3`."""
    return str(request.param)


@pytest.fixture
def base(storage: str, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An empty folder on each kind of storage, as a `Store`."""
    from augengine.io.store import Store

    name = uuid.uuid4().hex
    if storage == "s3":
        return Store(f"s3://{BUCKET}/{name}", request.getfixturevalue("s3_options"))
    return Store(str(tmp_path / "out") if storage == "local" else f"memory://{name}/out")


@pytest.fixture
def store(base: Any) -> Any:
    """As `base`, under the name that tests of one folder use."""
    return base
