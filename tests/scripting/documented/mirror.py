"""Turns pages round: the whole body, decoded, changed, its length made right."""


def response(flow):
    if flow.response.headers.get("content-type", "").startswith("text/html"):
        style = "<style>html { transform: scaleX(-1) }</style></head>"
        flow.response.text = flow.response.text.replace("</head>", style)
