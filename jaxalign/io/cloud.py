"""Stores of Amazon and Google: how tensorstore reaches them, and why a request failed."""

import os
import pathlib
import re
from typing import Any

from jaxalign.errors import PlaceError, one_line

_ANY_REGION = "us-east-1"  # servers other than Amazon's take it
# Kinds of failures that say nothing of the data, as tensorstore's messages begin with them.
LOST = ("ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED")
FORBIDDEN = ("PERMISSION_DENIED", "UNAUTHENTICATED")
_DONE = {"read": "read", "write": "written", "list": "listed", "remove": "removed", "use": "used"}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
}
_RIGHTS = {
    "s3": "the credentials (AWS_ACCESS_KEY_ID or AWS_PROFILE) must be there, and be allowed "
    "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject",
    "gs": "the credentials must be allowed storage.buckets.get, which roles/storage.objectAdmin "
    "does not have, and to list, read, write and delete objects",
}


def failure(place: str, what: str, error: Exception) -> PlaceError:
    """Say in one line why a request failed.

    Args:
      place: URL that was asked for.
      what: was to be done: "read", "write", "list", "remove" or "use".
      error: that tensorstore raised.
    """
    text, code = one_line(error), code_of(error)
    reason = text.partition(" [")[0].removeprefix(f"{code}: ").rstrip(" .:")
    scheme, _, inside = place.partition("://")
    bucket = f"bucket {inside.partition('/')[0]!r}"
    url = access().get("endpoint") if scheme == "s3" else None
    where = f" at {url}" if url else ""
    if "credentials" in text.lower() and code not in ("PERMISSION_DENIED", "NOT_FOUND"):
        said = f"there are no credentials for {bucket}: {_CREDENTIALS[scheme]}"
    elif code in FORBIDDEN:
        said = f"permission was denied: {_RIGHTS[scheme]}"
    elif code == "NOT_FOUND" and scheme == "gs":
        said = (
            f"{bucket} is not there, or must not be looked up, which is reported alike: "
            f"{_RIGHTS[scheme]}"
        )
    elif code == "NOT_FOUND":
        said = f"there is no {bucket}{where}: make it, or name another"
    else:
        lost = f"{place} cannot be {_DONE[what]}: {reason}{where}."
        return PlaceError(lost, is_lost=True)
    return PlaceError(f"{place} cannot be {_DONE[what]}: {said}.", is_lost=False)


def code_of(error: Exception) -> str:
    """Return the kind of a failure, as tensorstore's messages begin with it."""
    found = re.match(r"([A-Z_]+): ", str(error))
    return found[1] if found else ""


def access() -> dict[str, Any]:
    """Return how S3 is reached; of Amazon's variables tensorstore reads those of credentials."""
    found: dict[str, Any] = {}
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if url:
        found["endpoint"] = url
    if region or url:  # Amazon's own store says itself where a bucket lies
        found["aws_region"] = region or _ANY_REGION
    return found | {"aws_credentials": {"type": _credentials()}}


def _credentials() -> str:
    """Return which of tensorstore's ways leads to Amazon's credentials.

    Its default tries all of them, complains on stderr of files that nobody needs, and asks without
    credentials where there are none.
    """
    has = lambda name: bool(os.environ.get(name))
    files = [
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials",
        os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config",
    ]
    if has("AWS_ACCESS_KEY_ID"):
        return "environment"
    if has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") or has("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        return "ecs"
    if has("AWS_PROFILE") or has("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return "default"
    if any(pathlib.Path(x).expanduser().is_file() for x in files):
        return "default"
    is_closed = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    return "environment" if is_closed else "imds"
