"""The OASE agent of Exastro IT Automation: collects events from sources and delivers each of them to Exastro once."""

# The Exastro release whose protocol this agent speaks; sent with every group of events.
__version__ = "2.7.1"
