#!/bin/sh
# One would guess that a package whose import succeeds has what it needs, and that BrainFlow 5.23, which
# requires setuptools without a bound, runs beside the newest. True on Python 3.11: it asks
# importlib.resources.files for its module (no package), which raises TypeError there, and
# then falls back to pkg_resources, which setuptools 82 and later do not have. `import brainflow` and the
# import of BoardShim succeed; the first call raises ModuleNotFoundError. With setuptools below 82
# the same call answers.
# Seen with brainflow 5.23.0 on Python 3.11.7: setuptools 84.2.1 fails, 81.0.0 answers.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'PYTHON'
import sys
from importlib.metadata import version

from brainflow.board_shim import BoardShim

try:
    told = BoardShim.get_board_descr(-1)["name"]
except ModuleNotFoundError as error:
    told = f"ModuleNotFoundError: {error}"
print(f"setuptools {version('setuptools')}: {told}")
PYTHON
python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "needs Python 3.11"; exit 1; }
python3 -m venv "$work/venv"
for setuptools in 84.2.1 81.0.0; do
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check brainflow==5.23.0 setuptools==$setuptools
    "$work/venv/bin/python" -W ignore "$work/look.py"
done | tee "$work/seen"
grep -qx "setuptools 84.2.1: ModuleNotFoundError: No module named 'pkg_resources'" "$work/seen"
grep -qx "setuptools 81.0.0: Synthetic" "$work/seen"
