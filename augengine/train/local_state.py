"""What a training in this process resumes from: folders of files in, the last of them out; Ray Train keeps none there.

`state/local.json` names the folder below `state/` that counts. It is written after the folder's files and before the
folder that it named before is deleted, so that a process killed at any moment leaves a whole one.
"""

from __future__ import annotations

from pathlib import Path

from augengine.io.store import Store

STATE, LAST = "state", "state/local.json"


class LocalState:
    """The state of a run in the folder `out`."""

    def __init__(self, out: Store) -> None:
        self.out = out

    def save(self, folder: Path, step: int) -> None:
        """Keep the files of `folder`, the state after `step`, in the place of former ones."""
        former, name = self._named(), f"{STATE}/local-{step:07d}"
        for file in sorted(folder.iterdir()):
            self.out.write(f"{name}/{file.name}", file.read_bytes())
        self.out.write_json(LAST, {"folder": name})
        if former not in (None, name):
            self.out.folder(str(former)).remove_all()

    def load(self, folder: Path) -> bool:
        """Put the last state's files into an empty `folder`; False if there is none."""
        name = self._named()
        if name is None:
            return False
        for file in self.out.sizes(name):
            (folder / Path(file).name).write_bytes(self.out.read(file))
        return True

    def remove(self) -> None:
        """Forget it: the run has its result."""
        name = self._named()
        self.out.remove(LAST)
        if name is not None:
            self.out.folder(name).remove_all()

    def _named(self) -> str | None:
        return str(self.out.read_json(LAST)["folder"]) if self.out.exists(LAST) else None
