"""Every check an order must pass before it is encoded: limits.py says what they are in words, hot.py makes them."""
