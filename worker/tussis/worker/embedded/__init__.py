"""Real servers from pip wheels, on loopback, under a supervisor of ours: for the demo and the tests.

Not for production: their data is for one machine and one owner.
"""
