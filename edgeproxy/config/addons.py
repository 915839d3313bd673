"""The table [addons]: the operators' scripts, which of the requests they see, and what becomes of a failure.

May know: the types that keys have. Must not: load a script, or know what a hook is. That a key of `filters` is one of
`scripts` is in `relations`.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from edgeproxy.config import checks
from edgeproxy.config.types import (
    MIB,
    Bytes,
    FilterExpression,
    OptionName,
    OptionValue,
    ReadableFile,
    Seconds,
    form,
    says,
)


class Addons(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Operators' scripts: addons as mitmproxy documents them, run by the workers. See docs/addons.md."""

    scripts: Annotated[
        list[ReadableFile],
        says(
            "The scripts, in the order in which each request comes by them; a relative path starts in the working "
            "directory. They are read anew when they change. [] = none, and requests cost nothing for it."
        ),
    ] = field(default_factory=list)
    filter: Annotated[
        FilterExpression,
        says('The requests that scripts see; others pass them by. A script\'s own `edge_filter` wins. "" = all.'),
    ] = ""
    filters: Annotated[
        dict[
            Annotated[str, form(checks.is_path, "a path that is in addons.scripts")],
            Annotated[FilterExpression, Meta(extra={"empty": True})],
        ],
        says(
            "The requests that one script sees, by its path as it stands in `scripts`, instead of `filter` and of its "
            'own `edge_filter`: { "/etc/edgeproxy/addons/ab_test.py" = "~u /shop" }.'
        ),
    ] = field(default_factory=dict)
    options: Annotated[
        dict[OptionName, OptionValue],
        says(
            "Values of the options that scripts declare with `loader.add_option`; `edgeproxy check` hides those whose "
            "name has secret, password, token or key in it."
        ),
    ] = field(default_factory=dict)
    on_error: Annotated[
        Literal["continue", "refuse"],
        says(
            'What becomes of a request whose hook failed, or whose script never loaded. "continue" = it goes on as if '
            'the hook was not there; "refuse" = it is refused, with the error script_failed.'
        ),
    ] = "continue"
    timeout: Annotated[Seconds, says("How long an async hook may take; after that it is cancelled and has failed.")] = (
        5.0
    )
    body_bytes: Annotated[
        Bytes,
        says("Bodies up to this length are shown to scripts whole; longer ones stream past them, `raw_content` None."),
    ] = 10 * MIB
    hits: Annotated[
        bool,
        says("Whether scripts see what hot memory can answer at once; if not, it is answered without them."),
    ] = True
