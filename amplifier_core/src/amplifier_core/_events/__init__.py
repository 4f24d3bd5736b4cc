"""Events: the bus that writes them, the observers that hear them, and the log file."""
