"""Modules of the Amplifier kernel, made of Python functions. For authors of modules: the kernel never imports it."""

from ._context import Context
from ._errors import Cancelled, ModuleError
from ._module import Module

__all__ = ["Cancelled", "Context", "Module", "ModuleError"]
