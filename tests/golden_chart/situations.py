"""What the chart renders for sets of values: `NAME/values.yaml` in, `NAME/objects.yaml` out.

`default` has every object, but for CRDs and dashboards, which are files that the chart takes as they are. The other
folders have the objects that differ from the default's, so that they show what their values do.
"""

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
CHART = FOLDER.parents[1] / "charts" / "cotenant"
DEFAULT = "default"
KUBERNETES = "1.34.0"
NO_HELM = "there is no `helm`: https://helm.sh/docs/intro/install"
_DRAWN = re.compile(r"(token: ct-)\w+")


class HelmError(Exception):
    """What helm said."""


def has_helm() -> bool:
    return shutil.which("helm") is not None


def situations() -> list[str]:
    """The default first."""
    names = [path.parent.name for path in FOLDER.glob("*/values.yaml")]
    return sorted(names, key=lambda name: (name != DEFAULT, name))


@functools.cache
def template(
    *arguments: str, release: str = "cotenant", namespace: str = "cotenant-system", chart: str = str(CHART)
) -> str:
    """YAML of every object, with what is drawn at random masked. Raises HelmError."""
    command = ["helm", "template", release, chart, "--namespace", namespace, "--kube-version", KUBERNETES]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise HelmError(result.stderr)
    return _DRAWN.sub(r"\1drawn", result.stdout)


def render() -> dict[str, str]:
    """Situation → its objects as YAML, in helm's order."""
    rendered = {name: list(_objects(name)) for name in situations()}
    known = set(rendered[DEFAULT])
    shown = {
        name: objects if name == DEFAULT else [item for item in objects if item not in known]
        for name, objects in rendered.items()
    }
    return {name: "".join(f"---\n{item}" for item in objects) for name, objects in shown.items()}


def _objects(name: str) -> Iterator[str]:
    values = FOLDER / name / "values.yaml"
    text = template("--values", str(values), "--set", "crds.install=false")
    for item in text.split("---\n"):
        if item.strip() and "cotenant-dashboard-" not in item:
            yield item
