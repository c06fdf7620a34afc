"""What tests on an object store share: the bucket of the server that `tests/conftest.py` starts."""

BUCKET = "augengine"
