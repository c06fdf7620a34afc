"""A built wheel and a new environment in; in it the wheel, with links to what the wheel needs and to nothing else, out.

Installing PyTorch and Ray anew takes minutes and gigabytes. Here the packages that the wheel's metadata ask for, and
what these need, are linked from the environment that runs this; the checkout and what only tests need are not.
"""

from __future__ import annotations

import importlib.metadata as metadata
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from augengine.errors import AugengineError, ConfigError
from supply.installed import reached


def link(names: Iterable[str], site: Path) -> None:
    """Link the files of installed packages into a folder of packages; scripts and `.pth` files are left out."""
    for name in names:
        package = metadata.distribution(name)
        if package.files is None:
            raise ConfigError("an installed package lists its files", found=name, next_step="install it anew by pip")
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            source, target = Path(str(package.locate_file(top))), site / top
            if source.suffix != ".pth" and not target.exists():
                target.symlink_to(source)


def main(wheel: str, environment: str) -> int:
    """Install the wheel alone, and link its dependencies; 2 if one is not installed here."""
    python = Path(environment) / "bin/python"
    pip = [str(python), "-I", "-m", "pip"]  # of the checkout, which is on the path here, pip would find the metadata
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    (site,) = (Path(environment) / "lib").glob("python*/site-packages")
    (own,) = metadata.distributions(name="augengine", path=[str(site)])
    try:
        link(reached(text for text in own.requires or () if "extra ==" not in text), site)
    except AugengineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return subprocess.run([*pip, "check"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
