"""What a Hub keeps: accounts, repositories with their commits, branches and tags, and large files by their sha256."""

import fnmatch
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

ATTRIBUTES = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n"
    for pattern in ("*.bin", "*.h5", "*.hdf5", "*.mp4", "*.npz", "*.pkl", "*.png", "*.pt", "*.pth", "*.safetensors", "*.zip")
).encode()
LARGEST_REGULAR_FILE = 10 * 1024**2


class Refusal(Exception):
    """
    An answer other than 2xx.

    :param status: HTTP status
    :param message: for ``X-Error-Message`` and the body
    :param code: for ``X-Error-Code``, by which the client chooses its exception
    :param headers: more of them
    :param body: JSON instead of ``{"error": message}``
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers = dict(headers or {})
        self.body = {"error": message} if body is None else body


@dataclass(frozen=True)
class Account:
    """Who a token belongs to; ``spaces`` are the names it may write below."""

    name: str
    organizations: tuple[str, ...] = ()
    write: bool = True

    @property
    def spaces(self) -> tuple[str, ...]:
        return (self.name, *self.organizations)


@dataclass(frozen=True)
class Blob:
    """A file's bytes, as git or as LFS keeps them."""

    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git holds instead of a large file."""
        head = "version https://git-lfs.github.com/spec/v1\n"
        return f"{head}oid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()

    @property
    def git_oid(self) -> str:
        stored = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def tree_entry(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": self.git_oid, "size": len(self.content)}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry


@dataclass(frozen=True)
class Commit:
    """A state of a repository's files."""

    sha: str
    title: str
    message: str
    files: Mapping[str, Blob]
    parent: "Commit | None" = None
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"))

    def history(self) -> list["Commit"]:
        """This commit and all before it, newest first."""
        return [self, *(self.parent.history() if self.parent else [])]


def checked_path(path: str) -> str:
    """:raises Refusal: for a path that git or the Hub would not take"""
    if not path or path.startswith("/") or {"", ".", "..", ".git"} & set(path.split("/")):
        raise Refusal(400, f"Invalid path in repo: {path!r}")
    return path


class Repo:
    """
    :param id: ``namespace/name``
    :param type: ``model`` or ``dataset``
    :param private: whether only its namespace sees it
    """

    def __init__(self, id: str, type: str = "model", private: bool = False) -> None:
        self.id, self.type, self.private, self.gated = id, type, private, False
        self.granted: set[str] = set()
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.branches["main"] = self._add(None, "initial commit", "", {".gitattributes": Blob(ATTRIBUTES)}).sha

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def _add(self, parent: Commit | None, title: str, message: str, files: Mapping[str, Blob]) -> Commit:
        text = repr((parent and parent.sha, title, message, sorted((path, blob.git_oid) for path, blob in files.items())))
        commit = Commit(hashlib.sha1((text + secrets.token_hex(8)).encode()).hexdigest(), title, message, dict(files), parent)
        self.commits[commit.sha] = commit
        return commit

    def at(self, revision: str) -> Commit:
        """
        :param revision: branch, tag or commit
        :raises Refusal: if there is none
        """
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def file(self, revision: str, path: str) -> tuple[Commit, Blob]:
        """:raises Refusal: if the revision or the file is not there"""
        commit = self.at(revision)
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.sha})
        return commit, commit.files[path]

    def upload_mode(self, path: str, size: int, sample: bytes) -> str:
        """``lfs`` for what ``.gitattributes`` names, large files and binary ones; else ``regular``."""
        attributes = self.at("main").files.get(".gitattributes", Blob(b"")).content.decode()
        patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]
        named = any(fnmatch.fnmatch(text, pattern) for pattern in patterns for text in (path, path.rsplit("/", 1)[-1]))
        return "lfs" if named or size > LARGEST_REGULAR_FILE or b"\0" in sample else "regular"

    def commit(
        self,
        title: str,
        add: Mapping[str, Blob] | None = None,
        delete: Iterable[str] = (),
        *,
        message: str = "",
        branch: str = "main",
        parent: str | None = None,
    ) -> Commit:
        """
        All or nothing, as in git.

        :param title: first line of the commit's message
        :param add: new or changed files by path
        :param delete: files, or folders ending in ``/``
        :param message: the other lines
        :param branch: which one moves
        :param parent: the commit that the branch must stand at
        :raises Refusal: if the branch stands elsewhere or is not there, or a path to delete is not there
        """
        if branch not in self.branches:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = self.at(branch)
        if parent is not None and parent != head.sha:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for path in delete:
            gone = [name for name in files if name == path or (path.endswith("/") and name.startswith(path))]
            if not gone:
                raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del files[name]
        files |= {checked_path(path): blob for path, blob in (add or {}).items()}
        commit = self._add(head, title, message, files)
        self.branches[branch] = commit.sha
        return commit

    def card(self) -> Any:
        """The YAML at the head of ``README.md``."""
        readme = self.at("main").files.get("README.md")
        return None if readme is None else front_matter(readme.content.decode())

    def info(self, revision: str = "main", blobs: bool = False) -> dict[str, Any]:
        """What the API says of a repository."""
        commit = self.at(revision)
        siblings = [
            {"rfilename": path} | ({"size": len(blob.content), "blobId": blob.git_oid} if blobs else {})
            for path, blob in sorted(commit.files.items())
        ]
        card = self.card()
        return {
            "_id": self.id,
            "id": self.id,
            "author": self.namespace,
            "sha": commit.sha,
            "lastModified": commit.date,
            "createdAt": commit.history()[-1].date,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": list((card or {}).get("tags") or []),
            "siblings": siblings,
        } | ({"cardData": card} if card else {})

    def tree(self, revision: str, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """
        Files and folders below a folder (``""`` for all).

        :raises Refusal: if the folder is not there
        """
        commit, prefix = self.at(revision), f"{folder}/" if folder else ""
        entries: dict[str, dict[str, Any]] = {}
        for path, blob in sorted(commit.files.items()):
            if not path.startswith(prefix):
                continue
            parts = path.removeprefix(prefix).split("/")
            for depth in range(1, len(parts)):
                name = prefix + "/".join(parts[:depth])
                oid = hashlib.sha1(name.encode()).hexdigest()
                entries[name] = {"type": "directory", "path": name, "oid": oid, "size": 0}
            entries[path] = blob.tree_entry(path)
        if folder and not entries:
            raise Refusal(404, f"{folder} does not exist on {revision!r}", "EntryNotFound", {"X-Repo-Commit": commit.sha})
        return [entry for name, entry in entries.items() if recursive or "/" not in name.removeprefix(prefix)]


def front_matter(text: str) -> Any:
    """
    The mapping between two lines ``---`` at the head of a card.

    :return: None if there is none
    :raises yaml.YAMLError: if it is no YAML
    """
    found = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    return yaml.safe_load(found[1]) if found else None


class Storage:
    """Everything of one Hub; not guarded against threads."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large_files: dict[str, bytes] = {}

    def add_account(self, name: str, organizations: Iterable[str] = (), write: bool = True) -> str:
        """:return: a token of the new account"""
        token = f"hf_{secrets.token_hex(17)}"
        self.accounts[token] = Account(name, tuple(organizations), write)
        return token

    def account(self, token: str | None) -> Account | None:
        """:raises Refusal: for a token that is nobody's"""
        if token is not None and token not in self.accounts:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return None if token is None else self.accounts[token]

    def readable(self, type: str, id: str, account: Account | None, contents: bool = False) -> Repo:
        """
        :param contents: of files, which gated repositories keep back
        :raises Refusal: if it is not there, or not for this account, in the words of the Hub
        """
        repo = self.repos.get((type, id))
        if repo is None or (repo.private and (account is None or repo.namespace not in account.spaces)):
            raise Refusal(401 if account is None else 404, "Repository not found", "RepoNotFound")
        if contents and repo.gated and not (account and (repo.namespace in account.spaces or account.name in repo.granted)):
            message = f"Access to {type} {id} is restricted. You must be authenticated and on the list to access it."
            raise Refusal(401 if account is None else 403, message, "GatedRepo")
        return repo

    def writable(self, type: str, id: str, account: Account | None) -> Repo:
        """:raises Refusal: if it is not there, or not this account's to change"""
        repo = self.readable(type, id, account)
        self.check_namespace(repo.namespace, account)
        return repo

    def check_namespace(self, namespace: str, account: Account | None) -> None:
        """:raises Refusal: if the account may not write below the namespace"""
        if account is None:
            raise Refusal(401, "Invalid username or password.")
        if not account.write or namespace not in account.spaces:
            raise Refusal(403, f'You don\'t have the rights to write under the namespace "{namespace}"')

    def create(self, type: str, id: str, private: bool) -> Repo:
        """:raises Refusal: if it exists"""
        if (type, id) in self.repos:
            raise Refusal(409, f"You already created this {type} repo: {id}")
        self.repos[type, id] = Repo(id, type, private)
        return self.repos[type, id]
