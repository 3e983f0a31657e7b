"""The records on the rings: drawn in messages.h, as dtypes in engine.layout, stamped by hot/stamp.py."""
