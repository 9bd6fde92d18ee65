"""Discrimination-aware pruning: where its losses in the middle of a network stand."""

from leancnn.bench import untrained
from leancnn.channels.dependencies import find_dependencies
from leancnn.criteria import Subject, dcp


def test_losses_in_the_middle_stand_by_depth_whatever_shares_channels():
    for name in ("resnet20", "shufflenet_r3"):
        network = untrained(name)
        dependencies = find_dependencies(network.body, network.preprocessing.channels)
        order = {node: at for at, node in enumerate(dependencies.graph.nodes)}
        found = dcp._points(Subject(network.body, dependencies, lambda mixed=False: iter(())))
        depths = [order[point] for point in found]
        assert depths == sorted(depths)
