"""`python -m tests.golden.update` rewrites every golden file from its inputs; with `--check` it only looks.

The situations of docs/conditions.md are one of them.

Read the diff before you commit it.
"""

import sys

from tests.golden import conditions
from tests.golden.situations import FOLDER, render, situations


def main(arguments: list[str]) -> int:
    """The exit status: 1 when `--check` finds a file that is not up to date."""
    check = arguments == ["--check"]
    stale = 0
    for situation in situations():
        for name, text in render(situation).items():
            path = FOLDER / situation / name
            if path.exists() and path.read_text() == text:
                continue
            stale += 1
            if not check:
                path.write_text(text)
            print(f"{'not up to date:' if check else 'wrote'} {situation}/{name}")
    page, text = conditions.page()
    if page.read_text() != text:
        stale += 1
        if not check:
            page.write_text(text)
        print(f"{'not up to date:' if check else 'wrote'} docs/{page.name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
