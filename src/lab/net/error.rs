//! Why building a network failed.

use std::io;

/// A failed operation on a namespace, with what it was about.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    what: String,
    source: io::Error,
}

impl Error {
    /// Says what was being done when `source` happened.
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error { what: what.into(), source: source.into() }
    }

    /// The kind of the system's error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The system's error number, if it was the system that refused.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// Names the operation of a result that lacks it.
pub(super) trait During<T> {
    /// Says what was being done.
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::new(what(), source))
    }
}
