"""Write docs/networks.md from the networks' files, their cards, and results/network-*.json.

python benchmarks/networks_page.py
"""

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tables

from leancnn import models
from leancnn.models import Card

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "networks.md"

OPENING = """# Networks

Written by `python benchmarks/networks_page.py` from `leancnn/models/` and `results/`; a test
compares.

* *trainable*: parameters that training changes, batch-norm scales and shifts included
* *frozen*: fixed ternary kernels; *statistics*: running means and variances of batch norm
* *MACs*: multiply-accumulates of convolutions and linear layers for one image, groups respected
* MB is 10⁶ bytes, MiB 2²⁰; a weight has 4 bytes

Every figure under *counted* is measured by `tests/test_every_network.py`, twice: by the
operations that ran, and layer by layer.
"""

CONTRADICTIONS = """## Where the papers contradict themselves

**HENet paper**

* "#param" counts convolutions as if they had one group; with 10
  classes the networks are 7.3 to 7.4 times smaller.
* 532K for ShuffleNet r3 with 100 classes should be 533K (533,212 by its own count).
* 6.85 s for HENet r4 on CIFAR-100, against 6.18 s and 6.22 s on CIFAR-10 and SVHN for the same
  network.
* MFLOPs of 7.3, 10.2 and 13.2 fit the layers of its Table 1; the authors' files give 7.1, 10.0
  and 13.0.

**LB-MBNet paper**

* 59-r6 has 92.47 % in Table 2 and 92.35 % in Table 4; the text says 92.75 % for 59-r80, Table 2
  96.06 %.
* Pruned to r10 it is better (95.65 %) than pruned to r18 (95.58 %): the noise is 0.1 point or
  more, and no run was repeated.
* Table 4 sets trainable weights without kernels beside ResNetV2 counts with running statistics,
  and MobileNetV2's MACs beside FLOPs of 2 per MAC.
* Its gate hides a quarter of a block's *input* width: from the inner width the counts would grow
  as r², and the printed ones are a straight line. Without biases in the gate, or with trained
  depthwise kernels, r80 would have 92.79 or 94.75 M instead of 92.99.

**NVM paper**

* g = 4 has 3.27, 3.12 and 3.21 "M" in Tables 4, 5 and 6. As millions no arrangement of the printed
  layers exceeds 1.8; as megabytes 3.12 fits nine modules, 3.27 and 3.21 fit nothing.
* "33 % fewer parameters" than SqueezeNet sets 40 classes against 1000. With 40 each, SqueezeNet
  1.0 has 755,944 weights, fewer than NVMNet g4 with ten modules (940,904) or nine (780,456).
* Table 2 prints ten modules, Table 5 fits nine. 2.88 for g = 16 is below any law through the
  other three.
* R-SeNet has 93.3 % in Table 7 and 90.3 % in Table 8; "−1.8" there is "1.3 %" in the abstract;
  9.6 of 98.1 is 9.8 %, printed 10.1 %.
* R-MAC with "21 regions" needs maps that are not square; all of R-SeNet's are.
* Accuracy is said to fall by 1.2 % over the groups; the table says 0.78 points (1.1 % of it).
"""

HELD = """## What held, so far

The tables below are what a processor could train; each says for how long. Full lengths (166
epochs of HENet, 200 of LB-MBNet) are not run.

* **HENet is more accurate than ShuffleNet of the same repeat** (Table 3: by 1.4 to 1.6 points):
  after 8 epochs of one recipe and one seed for r = 2 only; level for r = 3, behind for r = 4. What
  a seed changes is larger: on 10,000 images two seeds of one network lie up to 2.6 points apart,
  and the means of all seven networks between 64.8 and 65.7 %.
  After 60 epochs, r = 3 and one seed, 86.40 (86.64 when it was repeated) against 86.67 %: level,
  the noise of 10,000 images being 0.5.
* **HENet r2 equals ShuffleNet r5**: 1.5 points behind after 8 epochs of all images, level
  (65.4 ± 1.2 against 65.3 ± 0.1 %) after 8 of 10,000. It trained three times as fast, and runs in
  half of the time in C.
* **HENet r3 reaches 89.40 %**: not in 60 epochs of images that were recompressed as JPEG.
* **NVMNet g4 has 71 % on ORL faces**: far too low. After the same 40 epochs of the network as
  printed SGD with one cycle, batches of 10 and moved images leave few faces wrong: 99.2 ± 0.8 % at
  224×224. At 64×64 so does what the paper says of its training, with our numbers where it is
  silent (93.0 ± 1.6 %; ours 95.2 ± 2.9). Batch norm is what it takes: without it, at a
  rate that suits, 61 to 68 % for g = 2 to 16, with deviations of 8 to 11.
* **Batch norm everywhere or after the squeeze**: 94.6 ± 2.9 against 95.2 ± 2.9 %: no difference.
* **Accuracy falls with the groups of NVMNet**: not seen. At 64×64, five splits, g = 2 to 16 lie
  between 95.2 and 96.2 % with deviations of 1.3 to 2.9.
* **Centre loss beside softmax helps**: 95.8 ± 2.2 against 95.2 ± 2.9 %: no difference to be seen.
* **NVMNet is level with SqueezeNet 1.0** (71.25 % in the paper) **and learns faster than AlexNet
  and ResNet-18** (its Fig. 13): 53 ± 30 % for SqueezeNet (in one of five splits it learns nothing),
  63 ± 7 for AlexNet, 61 to 68 for NVMNet, all without norms; ResNet-18, with them, makes no error
  in five splits, and learns fastest.
* **Each of R-SeNet's changes counts** (Table 8: grouped −1.1 points, R-MAC +0.8, focal loss +2.5):
  not seen. After 6 epochs of 2,000 images at 32×32 all four lie between 37.2 and 37.8 % with
  deviations of 0.3 to 0.7; a training so short can show no more. (The first run of the base was
  held for an hour while other things were timed; so its seconds.)
* **LB-MBNet-32 r6 reaches 92.88 %**: not shown. 8 epochs of 5,000 images give 56.3 % in 13 minutes
  of one core; 200 epochs of all would take it more than two days. r80 takes a GPU. What
  [pruning](pruning.md) says is measured at 16×16.
"""


def page(results: Path) -> str:
    """The whole page."""
    names = [n for n in models.names() if models.builder(n).__module__.startswith("leancnn.")]
    cards = [models.card(name) for name in names]
    parts = [
        OPENING,
        _table_of(cards, ("network", "input", "classes", "trainable", "frozen", "MACs")),
    ]
    files: dict[str, list[Card]] = {}
    for card in cards:
        files.setdefault(inspect.getfile(models.builder(card.name)), []).append(card)
    for file, members in files.items():
        parts += _section(Path(file), members)
    parts += [CONTRADICTIONS, HELD]
    measured = "\n".join(_results(results))
    parts.append(f"## Measured\n\n{measured or 'Nothing yet.'}\n")
    return "\n".join(parts)


def _section(file: Path, members: list[Card]) -> Iterator[str]:
    text = inspect.getdoc(inspect.getmodule(models.builder(members[0].name))) or ""
    title, _, rest = text.partition("\n")
    yield f"## {title.rstrip('.')}\n"
    yield f"`leancnn/models/{file.name}`\n\n```text\n{rest.strip()}\n```\n"
    columns = ("network", "classes", "trainable", "frozen", "statistics", "MACs", "MB")
    yield f"Counted:\n\n{_table_of(members, columns)}"
    printed = [card for card in members if card.published]
    if printed:
        lines = [f"* {card.name}: {card.published}" for card in printed]
        for text in dict.fromkeys(card.differs for card in printed if card.differs):
            who = [card.name for card in printed if card.differs == text]
            names = "" if len(who) == len(printed) else f" ({', '.join(who)})"
            lines.append(f"\nWhere that differs{names}: {text}.")
        yield "Printed:\n\n" + "\n".join(lines) + "\n"


def _table_of(cards: list[Card], columns: tuple[str, ...]) -> str:
    rows = [
        {
            "network": card.name,
            "input": "×".join(map(str, card.image)),
            "classes": f"{card.classes:,}",
            "trainable": f"{card.trainable:,}",
            "frozen": f"{card.frozen:,}",
            "statistics": f"{card.buffers:,}",
            "MACs": f"{card.macs:,}",
            "MB": f"{4 * card.trainable / 1e6:.3f}",
        }
        for card in cards
    ]
    lines = [columns, tuple("---" if key in ("network", "input") else "--:" for key in columns)]
    lines += [tuple(row[key] for key in columns) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _results(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("network-*.json"), key=lambda path: path.stem):
        result = json.loads(path.read_text(encoding="utf-8"))
        yield tables.table(result)
        if (ROOT / "docs" / f"{path.stem}.png").exists():
            yield f"![Accuracy over epochs: {result['title']}]({path.stem}.png)\n"


if __name__ == "__main__":
    text = page(ROOT / "results")
    same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE.relative_to(ROOT), "as it was" if same else "written", file=sys.stderr)
