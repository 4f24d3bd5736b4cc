"""Sessions: their state, namespaces and policy, and how each begins and ends."""
