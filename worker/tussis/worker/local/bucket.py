"""A client for the embedded object store."""

from __future__ import annotations

from typing import Any, Final

from tussis.worker.embedded.servers import Endpoints

#: The number of connections that the client keeps open.
CONNECTIONS: Final = 8


def bucket_client(endpoints: Endpoints) -> Any:
    """A boto3 client for the embedded store."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoints.s3_endpoint_url,
        region_name=endpoints.s3_region,
        aws_access_key_id=endpoints.s3_access_key,
        aws_secret_access_key=endpoints.s3_secret_key,
        config=Config(
            connect_timeout=5,
            read_timeout=60,
            max_pool_connections=CONNECTIONS,
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
        ),
    )
