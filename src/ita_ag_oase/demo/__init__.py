"""An Exastro and alarm sources on loopback, and the real agent between them.

Part of the product: a newcomer's first minute and the acceptance tests use the same Exastro.
"""
