"""Microcontroller boards as data: what a network has to fit into.

Sizes are those that a program can be given (`maximum_size`, `maximum_ram_size`), clock and core, of
the board's definition in PlatformIO (github.com/platformio/platform-*, boards/<id>.json), read
2026-11-29. A bootloader and a second core's share are off already, the framework's own needs not.
"""

from dataclasses import dataclass

from leancnn.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A board that a network may run on."""

    name: str
    """PlatformIO's word for it."""
    title: str
    platform: str
    """PlatformIO's word for its family."""
    core: str
    mhz: int
    flash: int
    """Bytes for code and constants."""
    ram: int
    """Bytes for everything that changes."""


boards: Registry[Board] = Registry("board")


def _register(
    name: str, title: str, platform: str, core: str, mhz: int, flash: int, ram: int
) -> None:
    board = Board(
        name=name, title=title, platform=platform, core=core, mhz=mhz, flash=flash, ram=ram
    )
    boards.register(name, board)


_register("nano33ble", "Arduino Nano 33 BLE", "nordicnrf52", "cortex-m4", 64, 983_040, 262_144)
_register("bbcmicrobit_v2", "BBC micro:bit V2", "nordicnrf52", "cortex-m4", 64, 524_288, 65_536)
_register("uno_r4_minima", "Arduino Uno R4 Minima", "renesas-ra", "cortex-m4", 48, 262_144, 32_768)
_register("portenta_h7_m7", "Arduino Portenta H7", "ststm32", "cortex-m7", 480, 786_432, 523_624)
_register("nucleo_f446re", "ST Nucleo F446RE", "ststm32", "cortex-m4", 180, 524_288, 131_072)
_register("nucleo_f746zg", "ST Nucleo F746ZG", "ststm32", "cortex-m7", 216, 1_048_576, 327_680)
_register("nucleo_h743zi", "ST Nucleo H743ZI", "ststm32", "cortex-m7", 400, 2_097_152, 524_288)
_register("teensy41", "Teensy 4.1", "teensy", "cortex-m7", 600, 8_126_464, 524_288)
_register("pico", "Raspberry Pi Pico", "raspberrypi", "cortex-m0plus", 133, 2_097_152, 270_336)
_register("esp32dev", "Espressif ESP32", "espressif32", "xtensa-lx6", 240, 4_194_304, 327_680)
_register("esp32-s3-devkitc-1", "ESP32-S3", "espressif32", "xtensa-lx7", 240, 8_388_608, 524_288)
