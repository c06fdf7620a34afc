"""All readers by name."""

from __future__ import annotations

from fuzz import image_readers, row_consumers, run_files, store_readers, text_readers

READERS = {
    **text_readers.READERS,
    **image_readers.READERS,
    **store_readers.READERS,
    **row_consumers.READERS,
    **run_files.READERS,
    **store_readers.FLIPS,
}
