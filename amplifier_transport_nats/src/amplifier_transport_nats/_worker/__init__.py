"""The worker: it serves one module of its host to kernels, over NATS."""

from .command import main

__all__ = ["main"]
