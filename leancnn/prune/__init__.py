"""Prune a trained network. Read in the order of the data:

goal (a budget) → importance (a criterion scores channels) → budget, latency (the cuts that are
open, and what they cost) → planning (the search) → plan (what it finds: a value) → before, retrain
(the trainings around a cut) → run (cut) → resume (what stands in a folder already); then compare,
measure, baselines, gates and significance: criteria side by side under one protocol.
"""

from leancnn.prune.goal import Goal
from leancnn.prune.plan import PruningPlan
from leancnn.prune.planning import plan
from leancnn.prune.run import Pruned, cut, prune

__all__ = ["Goal", "Pruned", "PruningPlan", "cut", "plan", "prune"]
