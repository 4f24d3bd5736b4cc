"""Read memory that programs of the host share."""

from pathlib import Path

from module import serve, target

serve(lambda: Path("/dev/shm", target("SHM")).read_text())
