"""Hears of requests that get no answer."""


def error(flow):
    print("failed:", flow.request.path, type(flow.error).__name__, "msg" if flow.error.msg else "no msg", flow.response)


def response(flow):
    print("answered:", flow.request.path, flow.response.status_code)
