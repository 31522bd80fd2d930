"""`make soak`: the installed agent for a long time under kills, faults and clock jumps, and what became of each event.

A script, not collected by pytest.
"""
