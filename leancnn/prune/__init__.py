"""Prune a trained network. Read in the order of the data:

importance (a criterion scores channels) → budget, latency (the cuts that are open, and what they
cost) → plan (the value) → run (cut, train again) → resume (what stands in a folder already); then
compare, baselines and significance: criteria side by side under one protocol.
"""

from leancnn.prune.plan import PruningPlan
from leancnn.prune.run import Goal, Pruned, cut, plan, prune

__all__ = ["Goal", "Pruned", "PruningPlan", "cut", "plan", "prune"]
