"""Create the bucket that MLflow keeps its files in, and prove that an object survives the way there and back."""

from __future__ import annotations

import os

import boto3
from botocore.exceptions import ClientError

PROBE = ".kintsugi-probe"


def main() -> None:
    """Do it with the address and keys in the environment; a bucket that is there already is left as it is."""
    bucket = os.environ["S3_BUCKET"]
    store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    try:
        store.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"BucketAlreadyExists", "BucketAlreadyOwnedByYou"}:
            raise
    store.put_object(Bucket=bucket, Key=PROBE, Body=b"kintsugi")
    body = store.get_object(Bucket=bucket, Key=PROBE)["Body"].read()
    store.delete_object(Bucket=bucket, Key=PROBE)
    if body != b"kintsugi":
        msg = f"the object store gave back {body!r} for an object that was written as b'kintsugi': do not use it"
        raise SystemExit(msg)


if __name__ == "__main__":
    main()
