"""Rewrites charts/cotenant/files/crds/*.yaml from the schema (`cotenant_operator.crd`).

python scripts/generate_crds.py           write them
python scripts/generate_crds.py --check   exit with 1 when one differs
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from cotenant_operator.crd import CRDS, render_crd

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "charts" / "cotenant" / "files" / "crds"
HEAD = "# Generated from operator/cotenant_operator/spec*.py: edit there, then `make generate`.\n"


def files() -> dict[Path, str]:
    """Path → text of each CRD."""
    return {
        FOLDER / f"{crd.plural}.yaml": HEAD
        + yaml.safe_dump(render_crd(crd), sort_keys=False, width=118, allow_unicode=True)
        for crd in CRDS
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rewrite the CRDs of the chart.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when one is out of date")
    check = parser.parse_args(arguments).check
    made = files()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{'out of date' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path])
    if check and stale:
        print("run: python scripts/generate_crds.py", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
