"""What goes wrong between here and the Hub, in words that say what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sb3_genoffline.errors import UserError


class HubError(UserError, OSError):
    """The Hub, or the way there, did not give what was asked for; the message says why and what to do."""


class NoSuchFileOnHubError(HubError):
    """The repository is there and has no such file."""


@contextmanager
def hub_errors(repo_id: str, revision: str | None = None, filename: str | None = None, token: Any = None) -> Iterator[None]:
    """
    Whatever the Hub's client raises inside becomes a :class:`HubError`.

    :param repo_id: of the repository
    :param revision: that was asked for
    :param filename: that was asked for
    :param token: to look with for what there is instead
    """
    from huggingface_hub import errors

    try:
        yield
    except HubError:
        raise
    except errors.RemoteEntryNotFoundError as error:
        there = _files_of(repo_id, revision, token)
        raise NoSuchFileOnHubError(f"{_place(repo_id, revision)} has no file {filename!r}{there}.") from error
    except errors.HFValidationError as error:
        raise UserError(f"{repo_id!r} is not the name of a repository: {error}") from error
    except (OSError, RuntimeError, errors.HTTPError, errors.XetDownloadError) as error:  # type: ignore[attr-defined]
        raise HubError(_explain(error, _place(repo_id, revision), filename)) from error


def _place(repo_id: str, revision: str | None) -> str:
    return f"{repo_id} at {revision!r}" if revision else repo_id


def _files_of(repo_id: str, revision: str | None, token: Any) -> str:
    from huggingface_hub import HfApi

    try:
        files = HfApi(token=token).list_repo_files(repo_id, revision=revision)
    except Exception:  # only to help: what matters is the file that is missing
        return ""
    return f"; it has {', '.join(files[:20])}{' and more' if len(files) > 20 else ''}" if files else "; it has none"


def _explain(error: BaseException, place: str, filename: str | None) -> str:
    from huggingface_hub import errors

    log_in = "Log in with `hf auth login`, set HF_TOKEN, or pass token="
    nor_folder = " (nor is there such a folder here)" if filename else ""
    if isinstance(error, errors.GatedRepoError):
        return f"{place} is gated: ask for access on its page, then {log_in[0].lower()}{log_in[1:]}."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"There is no model repository {place} on the Hub, or it is private{nor_folder}. Check the name. {log_in} if "
            "it is private."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"There is no such revision: {place}. Use a branch, a tag or a whole commit hash of the repository."
    if isinstance(error, errors.DisabledRepoError):
        return f"{place} was disabled by its author or by the Hub."
    response = getattr(error, "response", None)
    if response is not None:
        return _explain_status(int(response.status_code), place, log_in, error)
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        cause = error.__cause__
        if not isinstance(cause, errors.OfflineModeIsEnabled):
            return _explain(cause, place, filename)
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        what = f"{filename} of {place}" if filename else place
        return f"{what} is not in the cache, and the Hub must not be asked (offline). Load it once while online, then again."
    if "timeout" in type(error).__name__.lower():
        return f"The Hub did not answer in time about {place}: try again; HF_HUB_DOWNLOAD_TIMEOUT gives it more seconds."
    if isinstance(error, errors.HTTPError | ConnectionError):  # type: ignore[attr-defined]
        what = f"{type(error).__name__}: {error}"
        return f"The Hub could not be reached for {place}{nor_folder} ({what}): check the network, the proxy and HF_ENDPOINT."
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # of an upload
        return _explain(error.__cause__, place, filename)
    what = f"{filename} of {place}" if filename else place
    return f"{what} could not be transferred ({type(error).__name__}: {error}): try again."


def _explain_status(status: int, place: str, log_in: str, error: BaseException) -> str:
    first = str(error).partition("\n")[0]
    if status == 401:
        return f"The Hub wants to know who asks for {place} (401). {log_in}."
    if status == 403:
        return f"The Hub refuses {place} to this token (403): it needs the right to do this. {log_in} of one that has it."
    if status in (409, 412):
        return f"{place} was changed by somebody else at the same time ({status}): look at it, and try again."
    if status == 429:
        return f"The Hub has had too many requests (429): wait a few minutes, then ask for {place} again."
    if status >= 500:
        return f"The Hub is in trouble ({status}) and did not serve {place}: try again later."
    return f"The Hub refused {place} ({status}): {first}"
