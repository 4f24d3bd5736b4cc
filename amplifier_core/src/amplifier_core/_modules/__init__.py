"""Modules that run: their plugins, their host, their deadlines and their budgets."""
