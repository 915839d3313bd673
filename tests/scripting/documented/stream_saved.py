"""Saves streamed bodies to files, one a flow."""

from pathlib import Path

from mitmproxy import ctx


class Saver:
    def __init__(self, path):
        self.file = path.open("wb")

    def __call__(self, data):
        if data:
            self.file.write(data)
        else:
            self.file.close()
        return data


def load(loader):
    loader.add_option("save_to", str, "", "A folder.")


def responseheaders(flow):
    name = flow.request.path_components[-1]
    flow.response.stream = Saver(Path(ctx.options.save_to) / name)
