"""All readers by name."""

from __future__ import annotations

from fuzz import image_readers, store_readers, text_readers

READERS = {**text_readers.READERS, **image_readers.READERS, **store_readers.READERS, **store_readers.FLIPS}
