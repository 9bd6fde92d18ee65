"""One engine in a process of its own, timed on request."""

import json

import pytest

from leancnn import cli


@pytest.mark.slow
def test_the_command_times_a_network_in_processes_of_their_own(capsys, tmp_path):
    words = ["bench", "--model", "shufflenet_r2", "--engines", "c,torch", "--rounds", "2"]
    words += ["--seconds", "0.02", "--json", "--picture", str(tmp_path / "bench.png")]
    assert cli.main(words) == 0
    value = json.loads(capsys.readouterr().out)
    assert {row["engine"] for row in value["rows"]} == {"c", "torch"}
    assert all(row["difference"] < 1e-3 for row in value["rows"])
    assert (tmp_path / "bench.png").stat().st_size > 1000
