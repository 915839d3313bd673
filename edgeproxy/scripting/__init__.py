"""Operators' scripts: mitmproxy's addon API on the fast engine.

Only what is here imports mitmproxy, and a worker imports what is here only where scripts are configured.
"""
