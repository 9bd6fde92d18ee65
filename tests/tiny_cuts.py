"""What tests of criteria that choose a share for each layer ask of the cut that is found."""

from leancnn.channels.dependencies import find_dependencies
from leancnn.channels.remove import cut_body
from leancnn.count import count
from leancnn.prune.plan import PruningPlan
from leancnn.weights import Network


def assert_one_channel_more_costs_more(network: Network, plan: PruningPlan, most: float) -> None:
    """Each channel group that was cut, given one channel back, misses a limit of MACs."""
    dependencies = find_dependencies(network.body, 3)
    keep = plan.keep(dependencies)
    tried = 0
    for group in dependencies.channel_groups:
        left = group.coupled[~keep[group.coupled]]
        if len(left):
            more = keep.copy()
            more[left[0]] = True
            body, _ = cut_body(network.body, dependencies, more)
            assert count(body, (3, 8, 8)).macs > most
            tried += 1
    assert tried
