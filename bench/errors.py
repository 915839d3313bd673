"""What can go wrong while measuring, said in a way that tells the reader what to do about it.

A missed target is not here: that is a result, and report.py prints it.
"""


class BenchError(Exception):
    """A measurement that could not be taken; its text is all that the user sees."""


class MissingToolError(BenchError):
    """A program that is not installed; a peer without its program is left out, and said to be."""

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(f"{tool} is not installed (try: {package})")
        self.tool = tool
