"""The system calls of section 8 of the protocol: each one's work, and the table by which modules reach them."""
