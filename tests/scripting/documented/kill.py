"""Ends some connections without a word."""


def request(flow):
    if flow.request.path == "/killed":
        flow.kill()


def responseheaders(flow):
    if flow.request.path == "/killed-later":
        flow.kill()


def error(flow):
    print("ended:", flow.request.path, flow.error.msg)
