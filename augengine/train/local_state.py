"""What a training in this process resumes from: folders of files in, the last good one out; Ray Train keeps none there.

`state/local.json` names the folders below `state/` that count, the newest last. It is written after the newest one's
files and before the oldest is deleted, so that a process killed at any moment leaves a whole one, and a damaged one has
another before it.
"""

from __future__ import annotations

import re
from pathlib import Path

from augengine.errors import DataError
from augengine.io.store import Store
from augengine.train.state import damage

STATE, LAST = "state", "state/local.json"
_FOLDER = re.compile(rf"{STATE}/local-\d{{7,}}")


class LocalState:
    """The state of a run in the folder `out`."""

    def __init__(self, out: Store) -> None:
        self.out = out

    def save(self, folder: Path, step: int) -> None:
        """Keep the files of `folder`, the state after `step`, in the place of former ones."""
        name = f"{STATE}/local-{step:07d}"
        former = [folder for folder in self._named() if folder != name]
        for file in sorted(folder.iterdir()):
            self.out.write(f"{name}/{file.name}", file.read_bytes())
        self.out.write_json(LAST, {"folders": [*former[-1:], name]})
        for old in former[:-1]:
            self.out.folder(old).remove_all()

    def load(self, folder: Path) -> tuple[bool, list[str]]:
        """Put the last good state's files into an empty `folder`.

        Returns:
            False if there is none, and what is wrong with newer ones.
        """
        wrong: list[str] = []
        for name in reversed(self._named()):
            for file in self.out.sizes(name):
                (folder / Path(file).name).write_bytes(self.out.read(file))
            problem = damage(folder)
            if problem is None:
                return True, wrong
            wrong.append(f"{self.out.path(name)}: {problem}")
            for file_ in folder.iterdir():
                file_.unlink()
        return False, wrong

    def remove(self) -> None:
        """Forget them: the run has its result. So go states that a killed process left unnamed, half written."""
        self.out.remove(LAST)
        for name in self._there():
            self.out.folder(name).remove_all()

    def _named(self) -> list[str]:
        """The folders that count; where their list is damaged, those that lie there."""
        if not self.out.exists(LAST):
            return []
        try:
            told = self.out.read_json(LAST)
            found = told["folders"] if "folders" in told else [told["folder"]]  # older versions named one
            if all(_FOLDER.fullmatch(name) for name in found):
                return [str(name) for name in found]
        except (DataError, KeyError, TypeError, AttributeError):
            pass
        return self._there()

    def _there(self) -> list[str]:
        return [name for name in self.out.folders(STATE) if _FOLDER.fullmatch(name)]
