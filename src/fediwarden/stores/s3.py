"""An S3-compatible bucket as a store: streamed listings, signed requests with patience, and hiding that covers every version.

Keys are the bucket's own, in full. The quarantine place is a prefix of the same bucket or of another one and is left out of
listings. Nothing is decided here, and no second copy is made anywhere else. The stamp is the ETag with the size.

Hiding goes copy, read back and hash, write a manifest, delete, confirm. Until the manifest is there everything can be begun
anew; from then on the deletions are repeated until they are confirmed, so a crash at any point is completed by calling again.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlencode

from fediwarden.errors import BadEvidence, Changed, Gone, Misconfigured, Occupied, Refused, TooLarge, Unreached
from fediwarden.model import Blob, ObjectRef, Place, Sha256, StoreName
from fediwarden.stores.interface import PAGE
from fediwarden.stores.naming import shown
from fediwarden.stores.sigv4 import Response, S3Client, quoted, text_of, unquoted

LARGEST_COPY = 5 << 30  # bytes; one CopyObject request moves no more
ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
KEPT_HEADERS = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-website-redirect-location",
)
MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", ""})


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One line of a versioned bucket's history of a key."""

    id: str
    etag: str
    marker: bool  # a deletion marker: it has no bytes


@dataclass(frozen=True, slots=True)
class Spot:
    """Where hidden objects lie."""

    bucket: str
    prefix: str  # ends with "/"


class S3Reader:
    """A bucket, or what lies below a prefix of it, read with keys that need only GetObject and ListBucket."""

    def __init__(self, name: StoreName, bucket: str, prefix: str, quarantine: Spot, client: S3Client) -> None:
        if not quarantine.prefix and quarantine.bucket == bucket:
            raise Misconfigured(
                "the quarantine place is the whole bucket of the store", hint="give it a prefix, or a bucket of its own"
            )
        if quarantine.bucket == bucket and prefix.startswith(quarantine.prefix):
            raise Misconfigured("the quarantine place contains the store itself", hint="choose another prefix for `quarantine`")
        self._name = name
        self._bucket = bucket
        self._prefix = prefix
        self._quarantine = quarantine
        self._client = client

    @property
    def name(self) -> StoreName:
        """As `Reader.name`."""
        return self._name

    @property
    def requests(self) -> int:
        """As `Reader.requests`, tries included."""
        return self._client.requests

    def close(self) -> None:
        """As `Reader.close`."""
        self._client.close()

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        """As `Reader.list`. Empty objects whose name ends with "/" are the folders of consoles and are left out."""
        return self._listed({}, None)

    def between(self, after: str, until: str) -> Iterator[Sequence[ObjectRef]]:
        """As `Ordered.between`: one request a page, whatever lies before and behind."""
        return self._listed({"start-after": after}, until.encode("utf-8", "surrogateescape"))

    def _listed(self, more: Mapping[str, str], until: bytes | None) -> Iterator[Sequence[ObjectRef]]:
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(PAGE), **more}
        if self._prefix:
            query["prefix"] = self._prefix
        token = ""
        while True:
            answer = self._client.send("GET", self._bucket, query=query | ({"continuation-token": token} if token else {}))
            root = answer.xml()
            if answer.status != 200:
                raise self._refusal(answer, "list the bucket")
            if root is None or not root.tag.endswith("ListBucketResult"):
                raise Unreached(f"the bucket {shown(self._bucket)} was not listed: the answer is not a listing")
            decode = unquoted if text_of(root, "EncodingType") == "url" else str
            page = []
            beyond = False
            for entry in root.iterfind("{*}Contents"):
                key = decode(text_of(entry, "Key"))
                if until is not None and key.encode("utf-8", "surrogateescape") >= until:
                    beyond = True
                    break
                size = int(text_of(entry, "Size") or 0)
                if not self._mine(key) or (size == 0 and key.endswith("/")):
                    continue
                etag = text_of(entry, "ETag").strip('"')
                page.append(ObjectRef(self._name, key, size, _stamp(etag, size), _iso(text_of(entry, "LastModified"))))
            if page:
                yield page
            before, token = token, text_of(root, "NextContinuationToken")
            if beyond or text_of(root, "IsTruncated") != "true":
                return
            if not token or token == before:
                raise Unreached(f"the listing of {shown(self._bucket)} does not go on: the server gave no new continuation")

    def stat(self, key: str) -> ObjectRef:
        """As `Reader.stat`."""
        head = self._head(key)
        if head is None:
            raise Gone(f"{shown(key)} is not in the bucket")
        return self._ref(key, head)

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        """As `Reader.fetch`. One GET: its own headers say which version of the object the bytes are."""
        key = ref.key
        if not self._mine(key):
            raise Gone(f"{shown(key)} names nothing in this store")
        if ref.size > limit:
            raise TooLarge(f"{shown(key)} has {ref.size} bytes, more than the limit of {limit}")
        answer = self._client.send("GET", self._bucket, key, limit=limit)
        if answer.status != 200:
            if self._missing(answer, key):
                raise Gone(f"{shown(key)} is not in the bucket")
            raise self._refusal(answer, f"fetch {shown(key)}")
        now = self._ref(key, answer)
        if len(answer.body) != now.size or (now.stamp.startswith(ref.stamp.partition(":")[0] + ":") and now.size != ref.size):
            raise Unreached(f"{shown(key)} came with {len(answer.body)} bytes instead of {ref.size}")
        return Blob.of(now, answer.body, answer.headers.get("content-type", ""))

    def _mine(self, key: str) -> bool:
        """Whether a key belongs to the store: under its prefix, and not in the quarantine place."""
        if not key or "\0" in key or not key.startswith(self._prefix):
            return False
        return self._quarantine.bucket != self._bucket or not key.startswith(self._quarantine.prefix)

    def _head(self, key: str) -> Response | None:
        """The headers of an object, None if it is not there. Raises: Refused when the bucket is not there either."""
        if not self._mine(key):
            return None
        return self._head_at(self._bucket, key)

    def _head_at(self, bucket: str, key: str) -> Response | None:
        answer = self._client.send("HEAD", bucket, key)
        if answer.status == 200:
            return answer
        if self._missing(answer, key):
            if self._client.send("HEAD", bucket).status == 404:  # a HEAD has no body that would tell the two apart
                raise Refused(f"the bucket {shown(bucket)} does not exist", hint="check the bucket's name and `endpoint`")
            return None
        raise self._refusal(answer, f"look at {shown(key)}")

    def _missing(self, answer: Response, key: str) -> bool:
        """Whether the answer says that there is no such object (and nothing worse)."""
        odd = any(part in ("", ".", "..") for part in key.split("/"))
        if odd and answer.status in (301, 307, 308, 400, 405):
            return True  # a server that cannot name such an object has none
        if answer.status in (400, 403) and any("\udc80" <= letter <= "\udcff" for letter in key):
            return True  # S3 keys are UTF-8; servers answer others with whatever their decoder trips over
        if answer.status == 400 and answer.code in ("KeyTooLongError", "InvalidURI", "InvalidObjectName", ""):
            return len(key.encode("utf-8", "surrogateescape")) > 255
        return answer.status == 404 and answer.code in MISSING

    def _refusal(self, answer: Response, what: str) -> Refused:
        """What an answer that is no success means, in words an operator can use."""
        code = answer.code or str(answer.status)
        match answer.status, answer.code:
            case 404, "NoSuchBucket":
                return Refused(f"the bucket {shown(self._bucket)} does not exist", hint="check the bucket's name and `endpoint`")
            case ((403 | 401), "RequestTimeTooSkewed"):
                return Refused(f"the server did not let us {what}: the clocks differ", hint="set this machine's clock")
            case ((403 | 401), ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken")):
                return Refused(
                    f"the server did not let us {what}: {code}", hint="check the keys in the credentials file, and `region`"
                )
            case 403, "InvalidObjectState":
                return Refused(f"the server did not let us {what}: it is archived", hint="bring it back from the archive first")
            case ((403 | 401), _):
                return Refused(
                    f"the server did not let us {what}: {code}", hint="check which rights the keys have on this bucket"
                )
            case ((301 | 307 | 308), _):
                region = answer.headers.get("x-amz-bucket-region", "")
                return Refused(
                    f"the bucket {shown(self._bucket)} lies elsewhere",
                    hint=f'set `region = "{region}"`' if region.replace("-", "").isalnum() else "check `region` and `endpoint`",
                )
            case 400, "AuthorizationHeaderMalformed":
                return Refused(f"the server did not let us {what}: {code}", hint="check `region`")
            case _:
                return Refused(f"the server did not {what}: {code}")

    def _ref(self, key: str, answer: Response) -> ObjectRef:
        size = int(answer.headers.get("content-length", len(answer.body)))
        return ObjectRef(self._name, key, size, _stamp(answer.etag, size), _http_date(answer.headers.get("last-modified", "")))


class S3Keeper(S3Reader):
    """A bucket with keys of its own that may also put, copy, tag and delete, and see versions.

    `probe(url, sha256)` fetches as a stranger; `endpoint` and `public_url` say where from.
    """

    def __init__(
        self,
        name: StoreName,
        bucket: str,
        prefix: str,
        quarantine: Spot,
        client: S3Client,
        *,
        stranger: S3Client | None = None,
        public_url: str = "",
        probe: Callable[[str, str], bool | None] | None = None,
    ) -> None:
        super().__init__(name, bucket, prefix, quarantine, client)
        self._stranger = stranger
        self._public_url = public_url
        self._probe = probe
        self._versioned: dict[str, bool] = {}
        self._conditional: bool | None = None

    def close(self) -> None:
        """As `Reader.close`."""
        super().close()
        if self._stranger is not None:
            self._stranger.close()

    def hide(self, ref: ObjectRef, sha256: Sha256, spot: str) -> Place:
        """As `Keeper.hide`; on a versioned bucket every version is moved, each with its own bytes.

        Bytes that someone writes to the key after the copy was verified are theirs: left alone, and looked at next time.
        """
        return self._take(ref.key, sha256, self._quarantine.prefix + spot, "moved", spot)

    def remove(self, ref: ObjectRef, sha256: Sha256) -> Place:
        """As `Keeper.remove`. Older versions with other bytes, which nobody sealed, are kept in the quarantine place."""
        trace = hashlib.sha256(f"{ref.key}\0{sha256}".encode(errors="surrogateescape")).hexdigest()
        return self._take(ref.key, sha256, f"{self._quarantine.prefix}.removed/{trace}", "removed", "")

    def restore(self, place: Place, sha256: Sha256) -> ObjectRef:
        """As `Keeper.restore`; older versions come back first, so that the current one is current again."""
        if place.how != "moved":
            raise Gone(f"no hidden copy of {shown(place.key)} was kept", hint="restore it from the vault")
        bucket, base = (
            place.facts.get("bucket", self._quarantine.bucket),
            place.facts.get("object", self._quarantine.prefix + place.where),
        )
        begin = self._begin(place, sha256)
        if begin is not None:
            held = self._hash(bucket, base)
            if held is None:
                raise Gone(
                    f"{shown(place.key)} is neither in the quarantine place nor in the store", hint="restore it from the vault"
                )
            if held != sha256:
                raise BadEvidence(
                    f"the hidden copy of {shown(place.key)} is not what was hidden", hint="restore it from the vault"
                )
            self._older_back(place, bucket, base, begin)
            self._copy_back(place, bucket, base, place.facts, fresh=not _older(place))
        back = self._read_back(place.key, sha256)
        self._clean(bucket, base, place)
        return back

    def put_back(self, place: Place, data: bytes) -> ObjectRef:
        """As `Keeper.put_back`."""
        sha256 = Sha256(hashlib.sha256(data).hexdigest())
        bucket, base = place.facts.get("bucket", self._quarantine.bucket), place.facts.get("object", "")
        begin = self._begin(place, sha256)
        if begin is not None:
            self._older_back(place, bucket, base, begin)
            headers = {
                name: value for name, value in place.facts.items() if name in KEPT_HEADERS or name.startswith("x-amz-meta-")
            }
            headers |= _rights(place.facts)
            if tags := place.facts.get("tags", ""):
                headers["x-amz-tagging"] = tags
            if not _older(place):
                headers["if-none-match"] = "*"
            answer = self._client.send("PUT", self._bucket, place.key, headers=headers, body=data)
            if (
                answer.status == 501 and "if-none-match" in headers
            ):  # this server knows no conditional writes; that nothing was there was seen
                del headers["if-none-match"]
                answer = self._client.send("PUT", self._bucket, place.key, headers=headers, body=data)
            if answer.status not in (200, 412):  # 412: someone was faster; reading back tells what lies there
                raise self._refusal(answer, f"write {shown(place.key)}")
        back = self._read_back(place.key, sha256)
        if base and place.how == "removed":
            self._clean(bucket, base, place)
        return back

    def hidden_copy(self, place: Place, limit: int) -> bytes:
        """As `Keeper.hidden_copy`."""
        bucket = place.facts.get("bucket", self._quarantine.bucket)
        answer = self._client.send("GET", bucket, place.facts.get("object", self._quarantine.prefix + place.where), limit=limit)
        if answer.status == 200:
            return answer.body
        if self._missing(answer, place.key):
            raise Gone(f"{shown(place.key)} is not in the quarantine place")
        raise self._refusal(answer, f"read the hidden copy of {shown(place.key)}")

    def is_public(self, place: Place) -> bool | None:
        """As `Keeper.is_public`: asks the endpoint without a signature, and `public_url` where that shows this bucket."""
        if place.how != "moved" or self._stranger is None:
            return None
        bucket, key = (
            place.facts.get("bucket", self._quarantine.bucket),
            place.facts.get("object", self._quarantine.prefix + place.where),
        )
        answered: bool | None
        try:
            answered = self._stranger.send("GET", bucket, key, hashed=True).status == 200
        except Unreached:
            answered = None
        if not answered and self._public_url and self._probe is not None and bucket == self._bucket:
            shown_at = self._probe(f"{self._public_url.rstrip('/')}/{quoted(key)}", place.facts.get("sha256", ""))
            return shown_at if shown_at or answered is None else answered
        return answered

    # hiding ------------------------------------------------------------------------------------------------------------

    def _take(self, key: str, sha256: Sha256, base: str, how: str, where: str) -> Place:
        if not self._mine(key):
            raise Gone(f"{shown(key)} names nothing in this store")
        manifest = self._manifest(base)
        if manifest is None:
            facts = self._copied(key, sha256, base, keep=how == "moved")
            manifest = facts | {"bucket": self._quarantine.bucket, "object": base, "sha256": sha256}
            self._put(self._quarantine.bucket, f"{base}.manifest", json.dumps(manifest).encode())
        elif manifest.get("sha256") != sha256:
            raise BadEvidence(f"the place {shown(base)} in quarantine is taken by something else")
        elif how == "moved" and self._hash(self._quarantine.bucket, base) != sha256:
            raise BadEvidence(f"the hidden copy of {shown(key)} is not what was hidden", hint="nothing more was deleted")
        self._delete_sources(key, manifest)
        return Place(self._name, key, how, where, {name: value for name, value in manifest.items() if name != "deleted"})

    def _manifest(self, base: str) -> dict[str, str] | None:
        answer = self._client.send("GET", self._quarantine.bucket, f"{base}.manifest")
        if answer.status == 200:
            try:
                return {str(name): str(value) for name, value in json.loads(answer.body).items()}
            except (ValueError, AttributeError) as error:
                raise BadEvidence(f"the manifest of {shown(base)} in quarantine is damaged") from error
        if answer.status == 404 and answer.code in MISSING:
            return None
        raise self._refusal(answer, "look into the quarantine place")

    def _copied(self, key: str, sha256: Sha256, base: str, *, keep: bool) -> dict[str, str]:
        """Copy what lies under the key to the quarantine place and verify it; returns the facts and what is to be deleted."""
        versions = self._versions(self._bucket, key) if self._is_versioned(self._bucket) else None
        current = versions[0] if versions and not versions[0].marker else None
        if versions is None:
            head = self._head(key)
        else:
            head = self._client.send("HEAD", self._bucket, key, {"versionId": current.id}) if current else None
            if head is not None and head.status != 200:
                raise self._refusal(head, f"look at {shown(key)}")
        if head is None:
            if keep and not versions and self._hash(self._quarantine.bucket, base) == sha256:
                copy = self._head_at(self._quarantine.bucket, base)
                if copy is not None:  # the copy was made, and then the object was deleted by someone else
                    return self._facts(self._quarantine.bucket, base, copy, "") | {"etag": "", "deleted": "[]", "older": "[]"}
            raise Gone(f"{shown(key)} is neither in the bucket nor in its quarantine place")
        facts = self._facts(self._bucket, key, head, current.id if current else "")
        if int(head.headers.get("content-length", 0)) > LARGEST_COPY:
            raise TooLarge(f"{shown(key)} is larger than one request can copy")
        if keep:
            self._copy_to(base, key, head.etag, current.id if current else "")
            held = self._hash(self._quarantine.bucket, base)
        else:
            held = self._hash(self._bucket, key, current.id if current else "")
        if held != sha256:
            if keep:
                self._purge(self._quarantine.bucket, base)
            raise Changed(f"{shown(key)} holds other bytes now; they were left where they are")
        older = []
        for number, version in enumerate(reversed(versions or [])):  # the oldest first: the order in which they come back
            if version.marker or version == current:
                continue
            if not keep and self._hash(self._bucket, key, version.id) == sha256:
                continue
            at = f"{base}.versions/{number:06}"
            self._copy_to(at, key, version.etag, version.id)
            copied = self._hash(self._quarantine.bucket, at)
            if copied is None or copied != self._hash(self._bucket, key, version.id):
                raise Unreached(f"a version of {shown(key)} could not be copied")
            older.append([at, copied])
        facts["etag"] = head.etag
        facts["deleted"] = json.dumps([version.id for version in versions or []])
        facts["older"] = json.dumps(older)
        return facts

    def _copy_to(self, to: str, key: str, etag: str, version: str) -> None:
        source = f"/{self._bucket}/{quoted(key)}" + (f"?versionId={quote(version, safe='')}" if version else "")
        headers = {"x-amz-copy-source": source, "x-amz-metadata-directive": "COPY", "x-amz-tagging-directive": "COPY"}
        if etag and not version:
            headers["x-amz-copy-source-if-match"] = f'"{etag}"'
        answer = self._client.send("PUT", self._quarantine.bucket, to, headers=headers)
        if answer.status == 412:
            raise Changed(f"{shown(key)} was replaced just now; it was left where it is")
        if answer.status == 404 and answer.code in MISSING:
            raise Gone(f"{shown(key)} was deleted just now")
        self._copied_well(answer, f"copy {shown(key)} into quarantine")

    def _copied_well(self, answer: Response, what: str) -> None:
        """A copy can fail after its 200 was sent; only the document inside says that it is done."""
        if answer.status != 200:
            raise self._refusal(answer, what)
        root = answer.xml()
        if root is None or not root.tag.endswith("CopyObjectResult"):
            raise Unreached(f"the server did not {what}: {answer.code or 'no result'}")

    def _delete_sources(self, key: str, manifest: Mapping[str, str]) -> None:
        """Delete exactly what was copied, and see that it is gone."""
        ids = [str(one) for one in json.loads(manifest.get("deleted", "[]"))]
        if ids:
            for version in ids:
                self._delete(self._bucket, key, version)
            left = {version.id for version in self._versions(self._bucket, key)} & set(ids)
            if left:
                raise Unreached(
                    f"{len(left)} versions of {shown(key)} are still there although the server said they were deleted"
                )
            return
        etag = manifest.get("etag", "")
        head = self._head(key)
        if head is None or head.etag != etag:
            return
        answer = self._client.send(
            "DELETE", self._bucket, key, headers={"if-match": f'"{etag}"'} if self._deletes_conditionally() else {}
        )
        if answer.status == 412:
            return  # replaced since the copy was made: the new bytes are not ours to take away
        if answer.status not in (200, 204, 404):
            raise self._refusal(answer, f"delete {shown(key)}")
        head = self._head(key)
        if head is not None and head.etag == etag:
            raise Unreached(f"{shown(key)} is still there although the server said it was deleted")

    def _deletes_conditionally(self) -> bool:
        """Whether this server refuses to delete an object that is not the one meant: tried out once, on an object of ours."""
        if self._conditional is None:
            key = f"{self._quarantine.prefix}.probe/{secrets.token_hex(8)}"
            self._put(self._quarantine.bucket, key, b"fediwarden asks whether deletions can be conditional")
            answer = self._client.send("DELETE", self._quarantine.bucket, key, headers={"if-match": f'"{"0" * 32}"'})
            self._conditional = answer.status == 412
            self._purge(self._quarantine.bucket, key)
        return self._conditional

    # restoring ---------------------------------------------------------------------------------------------------------

    def _begin(self, place: Place, sha256: Sha256) -> int | None:
        """How many older versions are already back; None when the object itself is. Raises: Occupied."""
        if not self._mine(place.key):
            raise Gone(f"{shown(place.key)} names nothing in this store")
        held = self._hash(self._bucket, place.key)
        if held is None:
            return 0
        if held == sha256:
            return None
        older = [sha for _, sha in _older(place)]
        if held in older:  # an earlier try got this far
            return len(older) - older[::-1].index(held)
        raise Occupied(f"something else lies under {shown(place.key)}", hint="move it away first; neither was touched")

    def _older_back(self, place: Place, bucket: str, base: str, begin: int) -> None:
        for at, held in _older(place)[begin:]:
            if self._hash(bucket, at) != held:
                raise BadEvidence(f"an older version of {shown(place.key)} in {shown(base)} is not what was hidden")
            self._copy_back(place, bucket, at, {}, fresh=False)

    def _copy_back(self, place: Place, bucket: str, at: str, facts: Mapping[str, str], *, fresh: bool) -> None:
        headers = {
            "x-amz-copy-source": f"/{bucket}/{quoted(at)}",
            "x-amz-metadata-directive": "COPY",
            "x-amz-tagging-directive": "COPY",
            **_rights(facts),
        }
        if fresh:
            headers["if-none-match"] = "*"
        answer = self._client.send("PUT", self._bucket, place.key, headers=headers)
        if answer.status in (400, 501) and fresh:  # this server knows no conditional copies; that nothing was there was seen
            del headers["if-none-match"]
            answer = self._client.send("PUT", self._bucket, place.key, headers=headers)
        if answer.status == 412:
            return  # someone was faster; reading back tells what lies there
        self._copied_well(answer, f"copy {shown(place.key)} out of quarantine")

    def _read_back(self, key: str, sha256: Sha256) -> ObjectRef:
        answer = self._client.send("GET", self._bucket, key, hashed=True)
        if answer.status != 200:
            if self._missing(answer, key):
                raise Unreached(f"{shown(key)} is not there although the server said it was written")
            raise self._refusal(answer, f"read {shown(key)} back")
        if answer.sha256 != sha256:
            raise Occupied(f"something else lies under {shown(key)}", hint="move it away first; the hidden copy was kept")
        return self._ref(key, answer)

    def _clean(self, bucket: str, base: str, place: Place) -> None:
        for at, _ in _older(place):
            self._purge(bucket, at)
        if place.how == "moved":
            self._purge(bucket, base)
        self._purge(bucket, f"{base}.manifest")

    # small things ------------------------------------------------------------------------------------------------------

    def _is_versioned(self, bucket: str) -> bool:
        """Whether deleting only hides in this bucket: versioning is on, or was once."""
        if bucket not in self._versioned:
            answer = self._client.send("GET", bucket, query={"versioning": ""})
            root = answer.xml()
            if answer.status == 200 and root is not None:
                self._versioned[bucket] = text_of(root, "Status") in ("Enabled", "Suspended")
            elif answer.status in (405, 501) or answer.code in ("NotImplemented", "MethodNotAllowed"):
                self._versioned[bucket] = False
            else:
                raise self._refusal(answer, "ask whether the bucket keeps versions")
        return self._versioned[bucket]

    def _versions(self, bucket: str, key: str) -> Sequence[ObjectVersion]:
        """Every version and marker of exactly this key, the newest first."""
        found: MutableSequence[ObjectVersion] = []
        query = {"versions": "", "prefix": key, "encoding-type": "url", "max-keys": str(PAGE)}
        if any(0xDC80 <= ord(letter) <= 0xDCFF for letter in key):
            raise Refused(f"{shown(key)}: versions of a name that is not UTF-8 cannot be asked for")
        while True:
            answer = self._client.send("GET", bucket, query=query)
            root = answer.xml()
            if answer.status != 200 or root is None:
                raise self._refusal(answer, f"list the versions of {shown(key)}")
            decode = unquoted if text_of(root, "EncodingType") == "url" else str
            past = False
            for entry in root:
                kind = entry.tag.rpartition("}")[2]
                if kind not in ("Version", "DeleteMarker"):
                    continue
                if not _is(decode(text_of(entry, "Key")), key):
                    past = True  # keys come in order, and no other with this prefix sorts before it
                    continue
                found.append(
                    ObjectVersion(text_of(entry, "VersionId"), text_of(entry, "ETag").strip('"'), kind == "DeleteMarker")
                )
            if past or text_of(root, "IsTruncated") != "true":
                return found
            query["key-marker"] = decode(text_of(root, "NextKeyMarker"))
            query["version-id-marker"] = text_of(root, "NextVersionIdMarker")

    def _delete(self, bucket: str, key: str, version: str) -> None:
        answer = self._client.send("DELETE", bucket, key, {"versionId": version} if version else {})
        if answer.status not in (200, 204) and not (answer.status == 404 and answer.code in MISSING):
            raise self._refusal(answer, f"delete {shown(key)}")

    def _purge(self, bucket: str, key: str) -> None:
        """Delete an object of ours in the quarantine place, with its versions."""
        if not self._is_versioned(bucket):
            self._delete(bucket, key, "")
            return
        for version in self._versions(bucket, key):
            self._delete(bucket, key, version.id)

    def _put(self, bucket: str, key: str, data: bytes) -> None:
        answer = self._client.send("PUT", bucket, key, headers={"content-type": "application/octet-stream"}, body=data)
        if answer.status != 200:
            raise self._refusal(answer, "write to the quarantine place")

    def _hash(self, bucket: str, key: str, version: str = "") -> str | None:
        answer = self._client.send("GET", bucket, key, {"versionId": version} if version else {}, hashed=True)
        if answer.status == 200:
            return answer.sha256
        if self._missing(answer, key):
            return None
        raise self._refusal(answer, f"read {shown(key)}")

    def _facts(self, bucket: str, key: str, head: Response, version: str) -> dict[str, str]:
        """Everything that a restore must set again: headers, user metadata, tags, storage class, and whether it was public."""
        asked = {"versionId": version} if version else {}
        facts = {name: value for name, value in head.headers.items() if name in KEPT_HEADERS or name.startswith("x-amz-meta-")}
        if kind := head.headers.get("x-amz-storage-class", ""):
            facts["storage-class"] = kind
        if when := head.headers.get("last-modified", ""):
            facts["modified"] = when
        tags = self._client.send("GET", bucket, key, {"tagging": ""} | asked)
        root = tags.xml()
        if tags.status == 200 and root is not None:
            pairs = [(text_of(tag, "Key"), text_of(tag, "Value")) for tag in root.iterfind(".//{*}Tag")]
            if pairs:
                facts["tags"] = urlencode(pairs)
        rights = self._client.send("GET", bucket, key, {"acl": ""} | asked)
        root = rights.xml()
        if rights.status == 200 and root is not None:
            public = {
                text_of(grant, "Permission") for grant in root.iterfind(".//{*}Grant") if ALL_USERS in "".join(grant.itertext())
            }
            if public & {"READ", "FULL_CONTROL"}:
                facts["acl"] = "public-read"
        return facts


def _older(place: Place) -> list[tuple[str, str]]:
    """Where the older versions of a hidden object lie, with their hashes; the oldest first."""
    return [(str(at), str(held)) for at, held in json.loads(place.facts.get("older", "[]"))]


def _is(listed: str, key: str) -> bool:
    """Whether a key in a listing of what begins with `key` is that key itself.

    Not every server encodes the keys of versions as asked; what XML cannot hold then arrives as U+FFFD. Since the server
    compared the prefix with the real key, one of the same length is the same.
    """
    return listed == key or ("\ufffd" in listed and len(listed) == len(key))


def _rights(facts: Mapping[str, str]) -> dict[str, str]:
    """A copy does not take these along."""
    headers = {}
    if facts.get("acl"):
        headers["x-amz-acl"] = facts["acl"]
    if facts.get("storage-class"):
        headers["x-amz-storage-class"] = facts["storage-class"]
    return headers


def _stamp(etag: str, size: int) -> str:
    return f"{etag}:{size}" if etag else ""


def _iso(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _http_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, TypeError):
        return None
