"""The files that are measured."""

import os


def warm(data):
    """The first to be measured finds the files in memory as the others do, and no disk that is still busy with them."""
    os.sync()
    for path in data.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
