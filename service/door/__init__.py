"""What a request meets before any route: each check refuses in words and with a code.

entrance   the one ASGI application around all others; its order of checks
token      who may come in: tokens, and the cookie of a browser
origin     from where: Host, Origin, Sec-Fetch-Site, types of bodies
limits     how much: headers, bodies, depth of JSON, requests at once
policy     what a browser may do with an answer
refusals   the answers of all these
docs       /docs under that policy
server     uvicorn's settings; slow and endless clients are closed here
"""

from service.door.entrance import Door

__all__ = ["Door"]
