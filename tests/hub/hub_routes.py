"""The requests of ``huggingface_hub`` (no xet), answered from a :class:`~hub_storage.Storage`."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml
from hub_storage import Account, Blob, Refusal, Repo, Storage, checked_path, front_matter


@dataclass
class Request:
    """
    One request, as the log keeps it.

    :param method: ``GET``, ...
    :param path: decoded, without the query
    :param query: parameters, each a list
    :param token: bearer token
    :param headers: names in lower case
    :param body: whole
    :param status: of the answer
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = field(repr=False, default=b"")
    status: int = 0

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    @property
    def token(self) -> str | None:
        value = self.headers.get("authorization", "")
        return value.removeprefix("Bearer ") if value else None

    def json(self) -> Any:
        """:raises Refusal: if the body is no JSON"""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Refusal(400, f"The body is no JSON: {error}") from error


@dataclass
class Answer:
    """Status, headers and body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def of(cls, data: Any, status: int = 200, **headers: str) -> "Answer":
        return cls(status, {"Content-Type": "application/json", **headers}, json.dumps(data).encode())


Handler = Callable[..., Answer]
_ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []
_ID = r"([^/]+/[^/]+)"
_API = rf"/api/(model|dataset)s/{_ID}"
_GIT = rf"/(?:(dataset)s/)?{_ID}\.git/info/lfs/objects"


def _route(method: str, pattern: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return register


class Hub:
    """
    :param storage: what it serves
    :param endpoint: its address
    :param elsewhere: another name of the same address: where large files are, which must not see any token
    """

    def __init__(self, storage: Storage, endpoint: str, elsewhere: str) -> None:
        self.storage, self.endpoint, self.elsewhere = storage, endpoint, elsewhere

    def answer(self, request: Request) -> Answer:
        """The answer to a request; of ``HEAD`` too with the body, for its length."""
        method = "GET" if request.method == "HEAD" else request.method
        try:
            path = urlsplit(request.target).path
            for wanted, pattern, handler in _ROUTES:
                found = pattern.fullmatch(path)
                if found and wanted == method:
                    stored_elsewhere = path.startswith(("/cdn/", "/store/"))
                    account = None if stored_elsewhere else self.storage.account(request.token)
                    return handler(self, request, account, *(group and unquote(group) for group in found.groups()))
            raise Refusal(404, f"No such route: {request.method} {path}")
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message, **refusal.headers}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            return Answer.of(refusal.body, refusal.status, **headers)

    def _page(self, repo: Repo) -> str:
        return f"{self.endpoint}/{'datasets/' if repo.type == 'dataset' else ''}{repo.id}"

    @_route("GET", "/api/whoami-v2")
    def whoami(self, request: Request, account: Account | None) -> Answer:
        if account is None:
            raise Refusal(401, "Invalid username or password.")
        organizations = [{"type": "org", "name": name} for name in account.organizations]
        role = {"accessToken": {"displayName": "test", "role": "write" if account.write else "read"}}
        return Answer.of({"type": "user", "name": account.name, "orgs": organizations, "auth": role})

    @_route("POST", "/api/repos/create")
    def create_repo(self, request: Request, account: Account | None) -> Answer:
        body = request.json()
        namespace = body.get("organization") or (account.name if account else "")
        self.storage.check_namespace(namespace, account)
        type, id = body.get("type") or "model", f"{namespace}/{body['name']}"
        try:
            repo = self.storage.create(type, id, body.get("visibility") == "private")
        except Refusal as refusal:
            refusal.body = {"error": refusal.message, "url": self._page(self.storage.repos[type, id])}
            raise
        return Answer.of({"url": self._page(repo), "name": repo.id, "id": repo.id})

    @_route("DELETE", "/api/repos/delete")
    def delete_repo(self, request: Request, account: Account | None) -> Answer:
        body = request.json()
        id = f"{body.get('organization') or (account.name if account else '')}/{body['name']}"
        repo = self.storage.writable(body.get("type") or "model", id, account)
        del self.storage.repos[repo.type, repo.id]
        return Answer.of({})

    @_route("POST", "/api/validate-yaml")
    def validate_yaml(self, request: Request, account: Account | None) -> Answer:
        try:
            card = front_matter(request.json()["content"])
        except yaml.YAMLError as error:
            return Answer.of({"errors": [{"message": str(error)}], "warnings": []}, 400)
        if card is not None and not isinstance(card, dict):
            return Answer.of({"errors": [{"message": "the metadata must be a mapping"}], "warnings": []}, 400)
        missing = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
        return Answer.of({"errors": [], "warnings": missing})

    @_route("GET", "/api/(model|dataset)s")
    def list_repos(self, request: Request, account: Account | None, type: str) -> Answer:
        author, words = request.query.get("author"), request.query.get("search", [])
        spaces = account.spaces if account else ()
        visible = [
            repo
            for repo in self.storage.repos.values()
            if repo.type == type
            and (not repo.private or repo.namespace in spaces)
            and (author is None or repo.namespace == author[0])
            and all(word.lower() in repo.id.lower() for word in words)
        ]
        return Answer.of([repo.info() for repo in sorted(visible, key=lambda repo: repo.id)])

    @_route("GET", rf"{_API}(?:/revision/([^/]+))?")
    def repo_info(self, request: Request, account: Account | None, type: str, id: str, revision: str | None) -> Answer:
        repo = self.storage.readable(type, id, account)
        return Answer.of(repo.info(revision or "main", blobs="blobs" in request.query))

    @_route("PUT", rf"{_API}/settings")
    def settings(self, request: Request, account: Account | None, type: str, id: str) -> Answer:
        repo, body = self.storage.writable(type, id, account), request.json()
        if "visibility" in body:
            repo.private = body["visibility"] == "private"
        if "gated" in body:
            repo.gated = bool(body["gated"])
        return Answer.of({})

    @_route("GET", rf"{_API}/tree/([^/]+)(?:/(.+))?")
    def tree(self, request: Request, account: Account | None, type: str, id: str, revision: str, folder: str | None) -> Answer:
        repo = self.storage.readable(type, id, account)
        recursive = request.query.get("recursive", ["false"])[0].lower() == "true"
        return Answer.of(repo.tree(revision, (folder or "").strip("/"), recursive))

    @_route("POST", rf"{_API}/paths-info/([^/]+)")
    def paths_info(self, request: Request, account: Account | None, type: str, id: str, revision: str) -> Answer:
        entries = {entry["path"]: entry for entry in self.storage.readable(type, id, account).tree(revision, "", True)}
        asked = parse_qs(request.body.decode())["paths"]
        return Answer.of([entries[path] for path in asked if path in entries])

    @_route("GET", rf"{_API}/refs")
    def refs(self, request: Request, account: Account | None, type: str, id: str) -> Answer:
        repo = self.storage.readable(type, id, account)
        kinds = (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
        found = {
            kind: [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha} for name, sha in refs.items()]
            for kind, folder, refs in kinds
        }
        return Answer.of(found | {"converts": [], "pullRequests": []})

    @_route("GET", rf"{_API}/commits/([^/]+)")
    def commits(self, request: Request, account: Account | None, type: str, id: str, revision: str) -> Answer:
        history = self.storage.readable(type, id, account).at(revision).history()
        authors = [{"user": "someone"}]
        return Answer.of(
            [{"id": c.sha, "title": c.title, "message": c.message, "authors": authors, "date": c.date} for c in history]
        )

    @_route("POST", rf"{_API}/(branch|tag)/([^/]+)")
    def create_ref(self, request: Request, account: Account | None, type: str, id: str, kind: str, name: str) -> Answer:
        repo, body = self.storage.writable(type, id, account), request.json()
        start, refs = (body.get("startingPoint", "main"), repo.branches)
        if kind == "tag":
            start, name, refs = name, body["tag"], repo.tags
        sha = repo.at(start).sha
        if name in refs:
            raise Refusal(409, f"{kind.capitalize()} already exists: {name}")
        refs[name] = sha
        return Answer.of({})

    @_route("DELETE", rf"{_API}/(branch|tag)/([^/]+)")
    def delete_ref(self, request: Request, account: Account | None, type: str, id: str, kind: str, name: str) -> Answer:
        repo = self.storage.writable(type, id, account)
        refs = repo.branches if kind == "branch" else repo.tags
        if name == "main":
            raise Refusal(403, "The branch main can't be deleted")
        if name not in refs:
            raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
        del refs[name]
        return Answer.of({})

    @_route("POST", rf"{_API}/preupload/([^/]+)")
    def preupload(self, request: Request, account: Account | None, type: str, id: str, revision: str) -> Answer:
        repo = self.storage.writable(type, id, account)
        there, answers = repo.at(revision).files, []
        for file in request.json()["files"]:
            path, size = file["path"], file["size"]
            answer = {"path": path, "uploadMode": repo.upload_mode(path, size, base64.b64decode(file["sample"]))}
            if path in there:
                answer["oid"] = there[path].sha256 if there[path].lfs else there[path].git_oid
            answers.append(answer | {"shouldIgnore": False})
        return Answer.of({"files": answers})

    @_route("POST", rf"{_GIT}/batch")
    def lfs_batch(self, request: Request, account: Account | None, type: str | None, id: str) -> Answer:
        repo, body = self.storage.writable(type or "model", id, account), request.json()
        if body["operation"] != "upload" or "basic" not in body.get("transfers", ["basic"]):
            raise Refusal(400, f"Only basic uploads are served, not {body['operation']} with {body.get('transfers')}")
        objects = []
        for wanted in body["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.storage.large_files:
                answer["actions"] = {
                    "upload": {"href": f"{self.elsewhere}/store/{wanted['oid']}"},
                    "verify": {"href": f"{self._page(repo)}.git/info/lfs/objects/verify"},
                }
            objects.append(answer)
        return Answer.of({"transfer": "basic", "objects": objects})

    @_route("PUT", "/store/([0-9a-f]{64})")
    def lfs_store(self, request: Request, account: None, oid: str) -> Answer:
        _refuse_token(request)
        received = hashlib.sha256(request.body).hexdigest()
        if received != oid:
            raise Refusal(400, f"The content's sha256 is {received}, not {oid}")
        self.storage.large_files[oid] = request.body
        return Answer()

    @_route("POST", rf"{_GIT}/verify")
    def lfs_verify(self, request: Request, account: Account | None, type: str | None, id: str) -> Answer:
        self.storage.writable(type or "model", id, account)
        body = request.json()
        self._large_file(body["oid"], body["size"])
        return Answer.of({})

    def _large_file(self, oid: str, size: int | None) -> Blob:
        content = self.storage.large_files.get(oid)
        if content is None or (size is not None and size != len(content)):
            stored = "nothing" if content is None else f"{len(content)} bytes"
            raise Refusal(400, f"LFS pointer {oid} speaks of {size} bytes, but {stored} is stored")
        return Blob(content, lfs=True)

    @_route("POST", rf"{_API}/commit/([^/]+)")
    def commit(self, request: Request, account: Account | None, type: str, id: str, branch: str) -> Answer:
        repo = self.storage.writable(type, id, account)
        header: dict[str, Any] = {}
        add: dict[str, Blob] = {}
        delete: list[str] = []
        for number, line in enumerate(request.body.splitlines()):
            try:
                item = json.loads(line)
                key, value = item["key"], item["value"]
            except (ValueError, KeyError, TypeError) as error:
                raise Refusal(400, f"Line {number + 1} of the commit is not understood: {error}") from error
            if (key == "header") != (number == 0):
                raise Refusal(400, "The header must be the commit's first line, and only that")
            if key == "header":
                header = value
            elif key == "file":
                add[checked_path(value["path"])] = _regular_file(value)
            elif key == "lfsFile":
                add[checked_path(value["path"])] = self._large_file(value["oid"], value.get("size"))
            elif key in ("deletedFile", "deletedFolder"):
                delete.append(value["path"].rstrip("/") + ("/" if key == "deletedFolder" else ""))
            else:
                raise Refusal(400, f"Unknown operation: {key}")
        if not header.get("summary"):
            raise Refusal(400, "A commit needs a summary")
        title, message = header["summary"], header.get("description", "")
        done = repo.commit(title, add, delete, message=message, branch=branch, parent=header.get("parentCommit"))
        return Answer.of({"success": True, "commitOid": done.sha, "commitUrl": f"{self._page(repo)}/commit/{done.sha}"})

    @_route("GET", rf"/(?:(dataset)s/)?{_ID}/resolve/([^/]+)/(.+)")
    def resolve(
        self, request: Request, account: Account | None, type: str | None, id: str, revision: str, path: str
    ) -> Answer:
        repo = self.storage.readable(type or "model", id, account, contents=True)
        commit, blob = repo.file(revision, path)
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.git_oid}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {
                "X-Linked-ETag": f'"{blob.sha256}"',
                "X-Linked-Size": str(len(blob.content)),
                "Location": f"{self.elsewhere}/cdn/{blob.sha256}/{quote(path)}",
            }
            return Answer(302, headers)
        return _part(request, headers, blob.content)

    @_route("GET", "/cdn/([0-9a-f]{64})/(.+)")
    def download(self, request: Request, account: None, oid: str, path: str) -> Answer:
        _refuse_token(request)
        stored = self.storage.large_files.get(oid)
        if stored is None:
            raise Refusal(403, "Access denied")
        return _part(request, {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}, stored)


def _refuse_token(request: Request) -> None:
    """As S3 does, whose addresses are signed; the client must not give a token to another host."""
    if request.token is not None:
        raise Refusal(400, "Only one auth mechanism allowed; a token must not leave the Hub")


def _regular_file(value: dict[str, Any]) -> Blob:
    if value.get("encoding") != "base64":
        return Blob(value["content"].encode())
    try:
        return Blob(base64.b64decode(value["content"], validate=True))
    except binascii.Error as error:
        raise Refusal(400, f"{value['path']} is not base64: {error}") from error


def _part(request: Request, headers: dict[str, str], content: bytes) -> Answer:
    """The content, or from the byte on that ``Range`` asks for."""
    wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if wanted is None:
        return Answer(200, headers, content)
    start = int(wanted[1])
    if start >= len(content):
        raise Refusal(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{len(content)}"})
    return Answer(206, headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, content[start:])
