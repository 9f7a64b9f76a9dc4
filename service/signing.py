"""Signs what a request reads of test labels."""

from fastapi import Request

from service.looks import look_as


async def sign_looks(request: Request) -> None:
    """Sign what this request reads: async, so that its threads inherit the name."""
    client = request.client.host if request.client else "client unknown"
    look_as(f"service ({client})")
