"""The daemon: what runs when, and for how long. The only place with loops."""
