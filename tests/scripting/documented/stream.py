"""Has bodies stream past, both ways: the hooks for the whole message see that there is none."""


def requestheaders(flow):
    flow.request.stream = True


def request(flow):
    flow.request.headers["X-Too-Late"] = "yes"  # the head is on its way


def responseheaders(flow):
    flow.response.stream = True
    flow.response.headers["X-Body"] = repr(flow.response.raw_content)


def response(flow):
    print("body:", flow.response.raw_content)
