"""A PlatformIO project: the network as a library, a picture, a program, every board we know."""

from pathlib import Path

from leancnn.boards import boards
from leancnn.targets._base import Target, register
from leancnn.targets._sketch import load, put_texts, sketch
from leancnn.weights import Network

HEAD = """; pio run -e nano33ble -t upload -t monitor
[env]
framework = arduino
monitor_speed = 115200
build_flags = -O2
"""


def write(network: Network, folder: Path) -> list[Path]:
    written, texts = sketch(network)
    name = written.prefix
    environments = [
        f"\n; {board.title}, {board.mhz} MHz, {board.flash:,} B of flash, {board.ram:,} B of RAM\n"
        f"[env:{board.name}]\nplatform = {board.platform}\nboard = {board.name}\n"
        for board in boards.values()
    ]
    files = {
        "platformio.ini": HEAD + "".join(environments),
        "src/main.cpp": texts["program"],
        f"lib/{name}/{name}.c": written.source,
        f"lib/{name}/{name}.h": written.header,
        "include/picture.h": texts["picture"],
    }
    put_texts(folder / name, files)
    return [folder / name]


register(Target("platformio", "a PlatformIO project for microcontrollers", "", write, load))
