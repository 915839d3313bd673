"""Adds to a form that is sent, or makes a form of what is none."""


def request(flow):
    if flow.request.urlencoded_form:
        flow.request.urlencoded_form["seen"] = "yes & no"
    elif flow.request.method == "POST":
        flow.request.urlencoded_form = [("made", "here")]
