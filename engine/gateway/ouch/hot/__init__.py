"""Kernels of an OUCH session: encode, session, venue. Compiled as the others of the gateway (engine/gateway/hot/__init__.py)."""
