"""W3C Baggage on its way through: how much of it is passed on.

May know: the limits of the specification and what a list is. Must not: read members, which are the application's; that
nobody's secrets go to strangers is for those to see to who put them there.
"""

import re

BYTES_MAX = 8192
MEMBERS_MAX = 180
_MEMBER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*=[\x20-\x2b\x2d-\x7e\t]*")


def limited(value: bytes) -> bytes:
    """The baggage to pass on: what came, itself, where it is within the limits, whatever it holds.

    Beyond them it is as many whole members as fit, from the first on, or nothing where any is no member: what is no
    list can't be cut between members. `value` are all fields of a request, joined by commas.
    """
    if len(value) <= BYTES_MAX and value.count(b",") < MEMBERS_MAX:
        return value
    members = [member for part in value.split(b",") if (member := part.strip(b" \t"))]
    if not all(map(_MEMBER.fullmatch, members)):
        return b""
    size = -1
    kept = 0
    for member in members[:MEMBERS_MAX]:
        size += len(member) + 1
        if size > BYTES_MAX:
            break
        kept += 1
    return b",".join(members[:kept])
