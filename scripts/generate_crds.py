"""Rewrites charts/cotenant/files/crds/*.yaml from the schema (`cotenant_operator.crd`).

python scripts/generate_crds.py           write them
python scripts/generate_crds.py --check   exit with 1 when one differs
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from generated_files import ROOT, bring_up_to_date

from cotenant_operator.crd import CRDS, render_crd

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
    return bring_up_to_date(__file__, "Rewrite the CRDs of the chart.", files, arguments)


if __name__ == "__main__":
    sys.exit(main())
