"""Counts the requests that it sees, and says so in the log."""

import logging


class Counting:
    def __init__(self):
        self.seen = 0

    def request(self, flow):
        self.seen += 1
        logging.info("that makes %d flows", self.seen)


addons = [Counting()]
