"""Examines a running node: the places where trace data gets lost, one finding each, and what to do."""
