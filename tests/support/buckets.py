"""Buckets on this machine: S3 as moto serves it, Google's store as an emulator does."""

import contextlib
import importlib.util
import json
import logging
import os
import re
import uuid

import pytest

SERVERS = {"s3": "moto", "gs": "gcp_storage_emulator"}


@contextlib.contextmanager
def serve_s3():
    """Serve S3, and give its URL; what it holds is gone afterwards."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed: extra `test`")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def serve_gs():
    """Serve Google's store, and give its URL."""
    if importlib.util.find_spec("gcp_storage_emulator") is None:
        pytest.skip("gcp-storage-emulator is not installed: extra `test`")
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    try:
        with _answering_shards():
            yield f"http://127.0.0.1:{server._api._httpd.socket.getsockname()[1]}"
    finally:
        server.stop()


@contextlib.contextmanager
def _answering_shards():
    """Let the emulator answer what shards are read by, as Google's store does.

    It knows nothing of the end of an object, which a shard's index is, nor says its generation.
    """
    from gcp_storage_emulator import exceptions
    from gcp_storage_emulator.handlers import objects

    answer = objects.download

    def download(request, response, storage, *args, **kwargs):
        ask = request.get_header
        names = [request.params[x] for x in ("bucket_name", "object_id")]
        with contextlib.suppress(exceptions.NotFound):  # which it says itself
            size = len(storage.get_file(*names))
            response["x-goog-generation"] = str(storage.get_file_obj(*names)["generation"])
            if end := re.fullmatch(r"bytes=-(\d+)", ask("range") or ""):
                own = {"range": f"bytes={max(size - int(end[1]), 0)}-"}
                request.get_header = lambda key, default=None: own.get(key) or ask(key, default)
        return answer(request, response, storage, *args, **kwargs)

    objects.download = download
    try:
        yield
    finally:
        objects.download = answer


def s3_environment(url):
    """Return the variables by which a process finds the server, as a user sets them."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def client(url):
    """Return Amazon's own client of the server."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="eu-central-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )


def make_s3(url):
    """Make a bucket on the server, and return its name."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    where = {"LocationConstraint": "eu-central-1"}
    client(url).create_bucket(Bucket=name, CreateBucketConfiguration=where)
    return name


def make_gs(url):
    """Make a bucket on the emulator, and return its name."""
    import urllib.request

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(
        f"{url}/storage/v1/b?project=test",
        json.dumps({"name": name}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()
    return name


def forbid(url, bucket, *actions):
    """Forbid actions, such as s3:PutObject, on a bucket and all in it; none: allow all again."""
    if not actions:
        client(url).delete_bucket_policy(Bucket=bucket)
        return
    rule = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": list(actions),
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    client(url).put_bucket_policy(Bucket=bucket, Policy=policy)


def names(url, bucket):
    """Return the names of all objects of a bucket."""
    found = client(url).list_objects_v2(Bucket=bucket).get("Contents", ())
    return [x["Key"] for x in found]


def environment(monkeypatch, variables):
    """Set variables, and no others of Amazon's and Google's."""
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "TENSORSTORE_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
