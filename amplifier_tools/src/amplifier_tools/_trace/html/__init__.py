"""``amplifier-kernel trace html``: the log of a run as a page that a browser opens without a network."""
