"""Says things in the log, in the ways that there are."""

import logging

from mitmproxy import ctx
from mitmproxy.log import ALERT

logging.info("said as the script is read")


def load(loader):
    logging.warning("said in load")


def request(flow):
    logging.debug("said quietly")
    logging.info("said in passing: %s", flow.request.path)
    logging.warning("said as a warning")
    logging.error("said as an error")
    logging.log(ALERT, "said as an alert")
    logging.getLogger("by.name").info("said by name")
    ctx.log.info("said the old way")
    print("printed")
