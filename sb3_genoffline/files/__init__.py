"""Files that are safe to read and whole when written: archives, folders with a manifest, untrusted JSON."""
