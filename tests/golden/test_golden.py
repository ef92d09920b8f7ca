import pytest
from tests.golden.situations import FOLDER, render, situations


@pytest.mark.parametrize("situation", situations())
def test_a_situation_renders_what_its_folder_shows(situation: str) -> None:
    for name, text in render(situation).items():
        assert (FOLDER / situation / name).read_text() == text, "python -m tests.golden.update rewrites it"


def test_every_situation_is_explained() -> None:
    for situation in situations():
        assert (FOLDER / situation / "models.yaml").read_text().startswith("# ")
