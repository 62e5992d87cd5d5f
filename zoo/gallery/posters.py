"""A still of a film: what a browser shows until it has loaded the film, which phones never do by themselves."""

import subprocess
from pathlib import Path

SECONDS_IN = 2
"""The agent is on its way by then."""
_PATIENCE = 60


def draw_poster(film: Path, target: Path) -> bool:
    """
    :param film: mp4, which may be anybody's: it is read as an mp4 from this disk, whatever it says it is
    :param target: JPEG to write: the film's picture after :data:`SECONDS_IN` seconds, of a shorter film its first
    :return: whether there is a picture; not without ffmpeg, nor of what it cannot read
    """
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # no ffmpeg for this platform
        return False
    read = [program, "-nostdin", "-loglevel", "error", "-protocol_whitelist", "file", "-f", "mp4"]
    for start in (SECONDS_IN, 0):
        words = [*read, "-ss", str(start), "-i", f"file:{film}", "-frames:v", "1", "-q:v", "4", "-y", f"file:{target}"]
        try:
            subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=True)
        except (OSError, subprocess.SubprocessError):
            break
        if target.is_file() and target.stat().st_size:
            return True
    target.unlink(missing_ok=True)
    return False
