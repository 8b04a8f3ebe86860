"""One page of a listing, parsed by what it is.

botocore walks its model of the answer for every value and guesses the format of every time: 120 ms of CPU for a page of
1,000 keys, where a plain read of the XML needs a twentieth. Listings are most of what discovery does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from xml.etree import ElementTree as ET

OK: Final = 200
Document = dict[str, Any]
EMPTY: Final = b"<ListBucketResult/>"


def parse_listing(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Put a page into the answer and leave botocore nothing to parse; for its event ``before-parse.s3.ListObjectsV2``.

    An answer that is not a page (an error, something else than XML) is left to botocore.
    """
    if response_dict["status_code"] != OK:
        return
    try:
        root = ET.fromstring(response_dict["body"])  # noqa: S314 - as botocore does, from the store we trust with the lake
    except ET.ParseError:
        return
    space, bracket, name = root.tag.rpartition("}")
    if name != "ListBucketResult":
        return
    try:
        page = read_page(root, space + bracket)
    except (TypeError, ValueError):  # a store that leaves something out
        return
    customized_response_dict.update(page)
    response_dict["body"] = EMPTY


def read_page(root: ET.Element, space: str) -> Document:
    """What `list_objects_v2` answers, as far as a store reads it: keys still encoded as ``EncodingType`` says.

    Args:
        root: the parsed ``ListBucketResult``.
        space: its XML name space as ``{url}``, or nothing.

    Raises:
        TypeError: an object has no size.
        ValueError: an object's time is not ISO 8601.
    """
    key, size, etag, modified = (space + name for name in ("Key", "Size", "ETag", "LastModified"))
    page: Document = {
        "IsTruncated": root.findtext(f"{space}IsTruncated") == "true",
        "Contents": [
            {
                "Key": found.findtext(key),
                "Size": int(found.findtext(size)),  # type: ignore[arg-type]
                "ETag": found.findtext(etag) or "",
                "LastModified": datetime.fromisoformat(found.findtext(modified) or ""),
            }
            for found in root.iterfind(f"{space}Contents")
        ],
        "CommonPrefixes": [
            {"Prefix": found.findtext(f"{space}Prefix")} for found in root.iterfind(f"{space}CommonPrefixes")
        ],
    }
    for name in ("EncodingType", "NextContinuationToken"):
        text = root.findtext(space + name)
        if text:
            page[name] = text
    return page
