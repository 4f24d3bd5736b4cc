"""The protocol's words and shapes, as PROTOCOL.md defines them. Nothing here does I/O."""
