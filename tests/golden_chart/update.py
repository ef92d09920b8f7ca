"""`python -m tests.golden_chart.update` renders the chart anew into every `objects.yaml`. Read the diff."""

import sys

from tests.golden_chart.situations import FOLDER, NO_HELM, has_helm, render


def main() -> int:
    if not has_helm():
        print(f"tests/golden_chart is left as it is: {NO_HELM}")
        return 0
    for name, text in render().items():
        path = FOLDER / name / "objects.yaml"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {name}/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
