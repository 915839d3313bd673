"""mitmproxy's filter expressions, parsed in a time that does not grow with the power of their parentheses.

mitmproxy takes half a second to import: this module is imported where there is an expression.
"""

import pyparsing
from mitmproxy import flowfilter

# mitmproxy's grammar tries each parenthesis again for each operator that may follow: without a memory of what was
# found there, six of them around an operator take 20 s.
pyparsing.ParserElement.enable_packrat()


def parse_filter(expression: str) -> flowfilter.TFilter:
    """The filter that an expression is. Raises ValueError where it is none, or nested too deeply."""
    try:
        return flowfilter.parse(expression)
    except RecursionError:
        raise ValueError(f"{expression[:80]} is nested too deeply") from None
