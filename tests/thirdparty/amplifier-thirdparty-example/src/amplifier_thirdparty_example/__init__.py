"""Two plugins for the Amplifier kernel: a transport over Unix domain sockets, and a sink that is a SQLite table."""
