#!/bin/sh
# One would guess that torch.onnx.export writes what torch.ao's own quantization-aware training has
# trained. True: with the qconfigs it offers by default neither exporter can. They fake-quantize by
# `aten::fused_moving_avg_obs_fake_quant`, for which the older exporter has no symbolic; with those of
# version 0 it writes QuantizeLinear and DequantizeLinear, but the newer one (dynamo=True) still fails:
# FakeQuantize.forward asks a tensor (`if self.observer_enabled[0] == 1`), also when it observes no
# longer.
# Seen with torch 2.13.0 and onnx 1.23.2 on x86-64.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/look.py" <<'PYTHON'
import sys
import warnings

import torch
from torch.ao.quantization import QConfigMapping, get_default_qat_qconfig
from torch.ao.quantization.quantize_fx import prepare_qat_fx

warnings.simplefilter("ignore")
image = torch.zeros(1, 3, 8, 8)
for version in (1, 0):
    way = QConfigMapping().set_global(get_default_qat_qconfig("x86", version=version))
    network = prepare_qat_fx(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).train(), way, (image,))
    network(torch.rand(4, 3, 8, 8))
    network.apply(torch.ao.quantization.disable_observer)
    network.eval()
    for dynamo in (False, True):
        said = "written"
        try:
            given = {"dynamo": dynamo, "opset_version": 18 if dynamo else 17}
            torch.onnx.export(network, (image,), f"{sys.argv[1]}/a.onnx", **given)
        except Exception as error:
            said = f"{type(error).__name__}"
        print(f"version {version}, dynamo={dynamo}: {said}", file=sys.stderr)
PYTHON
python3 "$work/look.py" "$work" 2>&1 >/dev/null | grep "^version"
