"""Whether the address of a platform's database is one, told without a word of it: it may hold a password. Opens no connection."""

from fediwarden.errors import Misconfigured

SIGNS = "signs such as @ : / # and blanks in a password are written %40 %3A %2F %23 and %20"


def check_address(url: str, problem: str, hint: str) -> None:
    """Refuse what PostgreSQL would quote back in its errors. Raises: Misconfigured(problem), which quotes nothing.

    A password with an unencoded @ makes its end a part of the host, and "could not resolve" would tell it to the log.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        parts = None  # its words quote the address, so they are not chained either
    hosts, ports = (str((parts or {}).get(name) or "") for name in ("host", "port"))
    if parts is None or "@" in hosts or not all(port.isdecimal() or not port for port in ports.split(",")):
        raise Misconfigured(problem, hint=hint)
