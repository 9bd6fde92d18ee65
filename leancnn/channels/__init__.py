"""Channels of a network: which hang together (dependencies), the sizes they decide (sizes), which
stay (select), and the knife (remove).
"""
