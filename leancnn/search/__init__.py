"""Budget in, network out. Read in the order of the data:

space (what may be tried) → programs (what they consist of; timed ones) → clock (what they cost
here, unbuilt) → budget (what fits) → plan (the value) → study (which next, and which goes on) →
trial (one rung in a process) → pool (where rungs run) → drive (the loop) → result (the front,
measured and tested); run: one is begun, or goes on.
"""

from leancnn.search.budget import Budget
from leancnn.search.clock import Clock
from leancnn.search.result import Found, Member
from leancnn.search.run import Answer, can_meet, search

__all__ = ["Answer", "Budget", "Clock", "Found", "Member", "can_meet", "search"]
