//! Paths inside a foreign root (an image's files, a context, a git checkout), resolved in one place.
//!
//! Everything goes through a directory descriptor and `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`: no link,
//! `..` or absolute path in there leads out of it. Files are opened with `O_NONBLOCK | O_NOCTTY | O_CLOEXEC` and
//! their type is checked before they are read.
