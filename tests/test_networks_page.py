"""docs/networks.md is what the networks' files, cards and results say."""

import json
import runpy
from pathlib import Path

from leancnn import models

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "networks.md"
page = runpy.run_path(str(ROOT / "benchmarks" / "networks_page.py"))["page"]


def test_the_page_is_what_its_command_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(ROOT / "results")


def test_every_network_stands_on_the_page_with_its_counts() -> None:
    text = PAGE.read_text(encoding="utf-8")
    names = [n for n in models.names() if models.builder(n).__module__.startswith("leancnn.")]
    for card in map(models.card, names):
        row = next(line for line in text.splitlines() if line.startswith(f"| {card.name} |"))
        assert f"| {card.trainable:,} |" in row
        assert f"| {card.macs:,} |" in row


def test_results_of_networks_are_shown_as_tables(tmp_path: Path) -> None:
    result = {
        "title": "Faces",
        "command": "python benchmarks/orl.py",
        "machine": {"processor": "one"},
        "rows": [{"network": "nvmnet_g4", "mean": 97.5}],
    }
    (tmp_path / "network-faces.json").write_text(json.dumps(result))
    (tmp_path / "speed.json").write_text(json.dumps({**result, "title": "Speed"}))
    text = page(tmp_path)
    assert "**Faces**" in text
    assert "| nvmnet_g4 | 97.5 |" in text
    assert "**Speed**" not in text
