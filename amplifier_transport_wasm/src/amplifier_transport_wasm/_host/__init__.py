"""The host program of one module: what runs in the process that the kernel starts. It imports nothing of the kernel."""
