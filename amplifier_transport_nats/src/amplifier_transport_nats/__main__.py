"""``python -m amplifier_transport_nats``: the worker that serves a module of this host over NATS."""

import sys

from ._worker import main

sys.exit(main())
