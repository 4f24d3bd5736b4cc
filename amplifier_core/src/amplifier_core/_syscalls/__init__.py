"""The system calls of section 8 of the protocol, and the table through which modules make them."""
