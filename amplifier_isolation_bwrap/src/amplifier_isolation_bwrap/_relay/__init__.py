"""The relay: a process beside the kernel, through which modules reach the hosts that were granted, and no other.

Owns the network namespaces, and all that goes over the network. It runs with the standard library alone, and imports
nothing of the kernel, which starts it as `python -I -S`. What the two say to each other is in ``main``.
"""
