"""Asks the service in this container whether it is well; HEALTH_URL says where. Exit code 0 when it is; it prints no more than a status."""

import os
import sys
import urllib.error
import urllib.request

URL = os.environ.get("HEALTH_URL", "http://127.0.0.1:8970/healthz")


def main() -> int:
    """0 for an answer of 200."""
    if not URL.startswith(("http://127.0.0.1:", "http://[::1]:")):
        print("HEALTH_URL must be an address of this container")  # noqa: T201 - the runtime keeps it
        return 1
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(URL, timeout=4) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, urllib.error.URLError) as error:
        print(f"not well: {error}")  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
