"""Whether a stranger can fetch something from the web: asked as a stranger would, without credentials; never called while scanning."""

from hashlib import sha256 as hasher


def serves(url: str, sha256: str, timeout: float = 20.0) -> bool | None:
    """Whether `url` answers 200 with the bytes of that SHA-256; None where no answer came."""
    import httpx2

    seen = hasher()
    try:
        with httpx2.Client(timeout=timeout, follow_redirects=True) as client, client.stream("GET", url) as answer:
            if answer.status_code >= 500:
                return None
            if answer.status_code != 200:
                return False
            for piece in answer.iter_bytes():
                seen.update(piece)
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError):
        return None
    return seen.hexdigest() == sha256
