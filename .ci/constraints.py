"""Write constraints.txt: the tried version of everything that an extra of Tussis brings, from this environment.

``make constraints`` runs it in the environment that the tests passed in.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OURSELVES = "tussis"
#: For Python before 3.11.3, for 3.13, and in the place of the setuptools that Python 3.11's venv brings, which does not
#: run on 3.12.
ELSEWHERE = {
    "async-timeout": "5.0.1",
    "audioop-lts": "0.2.2",
    "setuptools": "80.9.0",
}
#: Excludes another of the extras, so it is in no environment together with the rest.
EXCLUSIVE = {"onnxruntime-gpu"}
HEADER = """\
# The versions that the tests passed with, for every extra but [gpu]'s runtime; Python 3.11 to 3.13.
# Written by `make constraints`.
"""


def closure(first: list[str]) -> dict[str, str]:
    """Versions by name, following requirements with their extras; markers of other Pythons count as well."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in first]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen or name in EXCLUSIVE:
                continue
            seen.add((name, extra))
            if name in ELSEWHERE:
                versions[name] = ELSEWHERE[name]
                continue
            try:
                distribution = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue  # for another system or Python, and without a version of its own here
            if name != OURSELVES:
                versions[name] = distribution.version
            for text in distribution.requires or []:
                found = Requirement(text)
                wanted = re.search(r"extra == ['\"]([^'\"]+)['\"]", str(found.marker or ""))
                if (wanted.group(1) if wanted else "") == extra:
                    waiting.append(found)
    return versions


def main() -> None:
    """Write the file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first = [*project["dependencies"]]
    for requirements in project["optional-dependencies"].values():
        first += [text for text in requirements if Requirement(text).name != OURSELVES]
    versions = closure(first)
    missing = {
        name
        for name in (canonicalize_name(Requirement(text).name) for text in first)
        if name not in versions and name not in EXCLUSIVE
    }
    if missing:
        raise SystemExit(f"not installed here: {', '.join(sorted(missing))}; run make install first")
    lines = [f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(versions.items())]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
