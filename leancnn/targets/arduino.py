"""A sketch that the Arduino IDE and arduino-cli open: the network in src/, a picture, a program."""

from pathlib import Path

from leancnn.targets._base import Target, register
from leancnn.targets._sketch import load, put_texts, sketch
from leancnn.weights import Network


def write(network: Network, folder: Path) -> list[Path]:
    written, texts = sketch(network)
    name = written.prefix
    program = texts["program"].replace('"picture.h"', '"src/picture.h"')
    program = program.replace(f'"{name}.h"', f'"src/{name}.h"')
    files = {
        f"{name}.ino": program,
        f"src/{name}.c": written.source,
        f"src/{name}.h": written.header,
        "src/picture.h": texts["picture"],
    }
    put_texts(folder / name, files)
    return [folder / name]


register(Target("arduino", "a sketch for the Arduino IDE", "", write, load))
