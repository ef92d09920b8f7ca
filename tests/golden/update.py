"""`python -m tests.golden.update` rewrites every golden file from its inputs. Read the diff before you commit it."""

from tests.golden.situations import FOLDER, render, situations


def main() -> None:
    for situation in situations():
        for name, text in render(situation).items():
            path = FOLDER / situation / name
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
                print(f"wrote {situation}/{name}")


if __name__ == "__main__":
    main()
