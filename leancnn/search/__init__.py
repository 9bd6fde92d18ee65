"""Budget in, network out. Read in the order of the data:

space (what may be tried) → programs (what they consist of; timed ones) → latency_model (what
they take here, unbuilt) → budget, feasible (what fits) → request (what is asked), lengths, plan
(how long networks are trained; what is decided) → study (which next, and which goes on) → trial
(one rung in a process) → pool (where rungs run) → drive (the loop) → measured (programs of trials)
→ result (the front, measured and tested); run: one is begun, or goes on.
"""

from leancnn.search.budget import Budget
from leancnn.search.feasible import Feasible, can_meet
from leancnn.search.latency_model import LatencyModel
from leancnn.search.result import SearchResult
from leancnn.search.run import search
from leancnn.search.sentence import Member

__all__ = ["Budget", "Feasible", "LatencyModel", "Member", "SearchResult", "can_meet", "search"]
