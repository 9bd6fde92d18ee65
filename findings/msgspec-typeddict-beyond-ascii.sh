#!/bin/sh
# One would guess that msgspec reads a TypedDict whose key has a letter beyond ASCII, such as "größe" or
# "µs": a Struct whose field is renamed to it reads the same JSON. True: such a required key is told to be
# missing from JSON that holds it, unless something, such as a Struct of that name, made Python keep the
# key's UTF-8 before. Keys of one letter up to U+00FF work: Python has each of these once. Seen alike with
# 0.20.0 and 0.23.0.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'PYTHON'
import json
from importlib.metadata import version
from typing import TypedDict

import msgspec


def told(read):
    try:
        return "reads " + str(read())
    except msgspec.ValidationError as error:
        return str(error)


print("msgspec", version("msgspec"))
for key in ("size", "größe", "µs", "é"):

    def fresh():
        return key.encode().decode()  # a string of its own, as a module's

    text = json.dumps({key: 1}, ensure_ascii=False).encode()
    required = TypedDict("Required", {fresh(): int})
    struct = msgspec.defstruct("Struct", [("x", int, msgspec.field(name=fresh()))])
    print(key, "| TypedDict", told(lambda: msgspec.json.decode(text, type=required)))
    print(key, "| converted", told(lambda: msgspec.convert(json.loads(text), required)))
    print(key, "| Struct", told(lambda: msgspec.json.decode(text, type=struct).x))
PYTHON
for version in 0.20.0 0.23.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet --disable-pip-version-check "msgspec==$version"
    "$work/$version/bin/python" "$work/look.py" | tee -a "$work/seen"
done
diff - "$work/seen" <<'SEEN'
msgspec 0.20.0
size | TypedDict reads {'size': 1}
size | converted reads {'size': 1}
size | Struct reads 1
größe | TypedDict Object missing required field `größe`
größe | converted Object missing required field `größe`
größe | Struct reads 1
µs | TypedDict Object missing required field `µs`
µs | converted Object missing required field `µs`
µs | Struct reads 1
é | TypedDict reads {'é': 1}
é | converted reads {'é': 1}
é | Struct reads 1
msgspec 0.23.0
size | TypedDict reads {'size': 1}
size | converted reads {'size': 1}
size | Struct reads 1
größe | TypedDict Object missing required field `größe`
größe | converted Object missing required field `größe`
größe | Struct reads 1
µs | TypedDict Object missing required field `µs`
µs | converted Object missing required field `µs`
µs | Struct reads 1
é | TypedDict reads {'é': 1}
é | converted reads {'é': 1}
é | Struct reads 1
SEEN
