"""The agent's memory on disk: events on their way, ids that were seen, cursors, the last known settings.

All SQL of the project is here, beside the function that needs it; nothing above knows sqlite3.
"""
