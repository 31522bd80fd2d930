"""Commands that look after a store, while its agent works or not: each prints its result and returns an exit code."""
