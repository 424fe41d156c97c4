"""The embedded servers: real servers from Python wheels, on loopback, supervised by `guard`, for demo, up and tests.

They are not for production: their data serves one machine and one owner.
"""
