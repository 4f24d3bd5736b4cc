"""The isolation ``podman``: each process of a module runs in a container of its own, which is removed at its end."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplifier_core import BadRequest, Unreachable
from amplifier_core.hookspecs import AREAS, Confinement, Isolation, Launch, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from amplifier_core import ModuleDescriptor

__all__ = ["open_isolation"]

_SECONDS = 60.0
_KEPT = ("HOME", "PATH", "XDG_RUNTIME_DIR")  # what the client needs to find its storage
_ALWAYS = ("--rm", "--interactive", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")


@hookimpl
def open_isolation(options: Mapping[str, Any]) -> PodmanIsolation:
    """Take ``image``, ``options`` of ``podman run`` and ``probe``, a command of the image that ends at once."""
    unknown = options.keys() - {"image", "options", "probe"}
    if unknown or not isinstance(options.get("image"), str):
        raise BadRequest(f"isolation podman: expected an image, options and a probe, got {dict(options)!r}")
    return PodmanIsolation(options["image"], options.get("options", []), options.get("probe", ["true"]))


class PodmanIsolation(Isolation):
    """Containers of one image. A module finds its code and what was granted at the same paths as outside."""

    name = "podman"
    confines = AREAS

    def __init__(self, image: str, options: Sequence[str], probe: Sequence[str]) -> None:
        self.image = image
        self._options = tuple(options)
        self._probe = tuple(probe)

    def trial(self) -> str:
        """Run the probe in a container."""
        if shutil.which("podman") is None:
            return "podman is not installed"
        launch = Launch(command=self._probe, cwd="/", env={})
        confined = self.plan(launch, None).confine(launch, ())
        try:
            with confined.start(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
                said = process.communicate(timeout=_SECONDS)[1].decode(errors="replace").strip()
        except (OSError, subprocess.SubprocessError) as error:
            return f"podman cannot be tried: {error}"
        return f"{said[-500:] or 'podman'} (exit code {process.returncode})" if process.returncode else ""

    def describe(self) -> Mapping[str, Any]:
        """Say in what modules run."""
        return {"image": self.image, "enforces": ["fs:read", "fs:write", "env", "net:connect:*"]}

    def unenforced(self, capabilities: Sequence[str]) -> tuple[str, ...]:
        """List single hosts, which this isolation does not tell apart."""
        return tuple(word for word in capabilities if word.startswith("net:connect:") and word != "net:connect:*")

    def why_unenforced(self, capability: str) -> str:
        """Say so."""
        return "a container has the whole network or none"

    def plan(self, launch: Launch, descriptor: ModuleDescriptor | None) -> PodmanConfinement:
        """Find the folder of the module's code. What a module mounts brings none."""
        own = descriptor is not None and descriptor.caller is None and Path(descriptor.source).is_file()
        return PodmanConfinement(self.image, self._options, str(descriptor.base) if descriptor and own else None)


class PodmanConfinement(Confinement):
    """The containers of one module."""

    def __init__(self, image: str, options: Sequence[str], code: str | None) -> None:
        self._image, self._options, self._code = image, tuple(options), code
        self.shown = {"image": image, "read": [code] if code else []}

    def confine(self, launch: Launch, granted: Sequence[str]) -> Launch:
        """Name a container that has what was granted. Its client carries stdin, stdout and stderr."""
        name = f"amplifier-{os.getpid()}-{os.urandom(8).hex()}"
        words = [*_ALWAYS, f"--name={name}", *self._options, *self._mounts(granted)]
        words += ["--network=host" if any(word.startswith("net:") for word in granted) else "--network=none"]
        words += [f"--env={variable}={value}" for variable, value in launch.env.items() if variable != "PATH"]
        if self._code is not None:
            words.append(f"--workdir={launch.cwd}")

        async def end() -> Mapping[str, Any]:
            await _remove(name)
            return {"container": name}

        return Launch(
            command=("podman", "run", *words, self._image, *launch.command),
            cwd="/",
            env={each: os.environ[each] for each in _KEPT if each in os.environ},
            shown={"isolation": PodmanIsolation.name, "image": self._image, "container": name},
            end=end,
        )

    def _mounts(self, granted: Sequence[str]) -> Iterator[str]:
        if self._code is not None:
            yield f"--volume={self._code}:{self._code}:ro"
        for word in granted:
            namespace, action, path = (*word.split(":", 2), "", "")[:3]
            if namespace == "fs" and path == "$tmp":
                yield from ("--tmpfs=/tmp:rw,size=64m", "--env=TMPDIR=/tmp")
            elif namespace == "fs" and path.startswith("/"):
                yield f"--volume={path}:{path}:{'ro' if action == 'read' else 'rw'}"


async def _remove(name: str) -> None:
    """Remove a container. It outlives a client that was killed, and is gone already if the client ended by itself."""
    words = ("podman", "rm", "--force", "--ignore", "--time=0", name)
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = (await process.communicate())[1].decode(errors="replace").strip()
    if process.returncode:
        raise Unreachable(f"container {name} is left: {said[-500:]}")
