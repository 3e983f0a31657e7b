"""OUCH, the venues that speak it: v50.py is the protocol of NASDAQ, hot/ encodes orders, keeps the session and applies reports."""
