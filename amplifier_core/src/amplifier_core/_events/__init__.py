"""Events: the bus that writes them, the observers that receive them, and the log file."""
