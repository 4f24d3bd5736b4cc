"""The start of the host program: ``python -I -S __main__.py MODULE FOLDER …``, with the settings on stdin.

The folders are where this package and wasmtime are: nothing else of the user's Python is looked at.
"""

import sys

sys.path += [folder for folder in sys.argv[2:] if folder not in sys.path]

from amplifier_transport_wasm._host._program import main

sys.exit(main())
