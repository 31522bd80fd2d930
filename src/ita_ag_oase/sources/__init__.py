"""Asks the outside and returns what it said; what an answer means is for the events package to say."""
