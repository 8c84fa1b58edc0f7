"""What is published: builds the sdist and the wheel, and looks into both.

Run by ``tox -e package``. In the wheel are the files that git has under cache_memoize/,
and nothing else; the sdist builds the same wheel; an environment that has nothing but
the wheel can use it.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What an sdist has besides the package.
AROUND = {"CHANGELOG.rst", "CONTRIBUTING.rst", "LICENSE", "MANIFEST.in", "README.rst"}
AROUND |= {"SECURITY.md", "pyproject.toml", "setup.py"}
#: What pytest imports in every run is no part of the package.
PLUGIN = "pytest_cache_memoize.py"

BUILD = (sys.executable, "-m", "build", "--no-isolation")

#: Run where the library is installed, and nothing of the repository can be seen.
USE = """
import sys
from pathlib import Path

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "cache_memoize",
    ],
)
django.setup()

import cache_memoize

folder = Path(cache_memoize.__file__).parent
assert sys.prefix in str(folder), folder
assert (folder / "py.typed").exists()


@cache_memoize.cache_memoize(60)
def double(number):
    return number * 2


assert double(2) == double(2) == 4
assert double.cache_info().hits == 1
print(cache_memoize.__version__)
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    run(*BUILD, f"--{kind}", "--outdir", out, source, cwd=out)
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def tracked() -> list[str]:
    """The files of the project as git knows them, so that no litter is looked at."""
    listed = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return [name for name in listed if name and (ROOT / name).is_file()]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def same(what: str, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        raise SystemExit(
            f"{what}: missing {sorted(wanted - found)}, too many "
            f"{sorted(found - wanted)}; see packages and package_data in setup.py"
        )


def main(folder: Path) -> None:
    files = tracked()
    package = {name for name in files if name.startswith("cache_memoize/")}
    package |= {PLUGIN}
    tree, from_tree, out = folder / "tree", folder / "from_tree", folder / "dist"
    from_tree.mkdir()
    out.mkdir()
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)

    sdist = build("sdist", tree, out)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    names = {
        path.relative_to(unpacked).as_posix()
        for path in unpacked.rglob("*")
        if path.is_file()
    }
    made = {n for n in names if ".egg-info/" in n} | {"PKG-INFO", "setup.cfg"}
    same("the sdist", names - made, package | AROUND)

    wheel = build("wheel", unpacked, out)
    inside = contents(wheel)
    (info,) = {name.split("/")[0] for name in inside if ".dist-info/" in name}
    parts = ["METADATA", "WHEEL", "RECORD", "top_level.txt", "licenses/LICENSE"]
    parts += ["entry_points.txt"]
    same("the wheel", set(inside), package | {f"{info}/{part}" for part in parts})
    for name in package:
        assert inside[name] == (ROOT / name).read_bytes(), f"{name} is another one"
    if contents(build("wheel", tree, from_tree)) != inside:
        raise SystemExit("the sdist does not build the wheel that the repository does")

    metadata = email.message_from_bytes(inside[f"{info}/METADATA"])
    needed = [
        need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need
    ]
    assert needed == ["django>=4.2"], needed
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, cwd=out)

    environment = folder / "environment"
    venv.create(environment, with_pip=True, symlinks=True)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    version = run(python, "-c", USE, cwd=folder).strip()
    assert version == metadata["Version"], version
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", version), version
    print(f"{len(package)} files, {version}: built, checked, installed and used")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
