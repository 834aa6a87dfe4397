//! One error type: a [`ErrorKind`] for programs, context for people.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// What went wrong, for programs to match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or option does not make sense.
    InvalidInput,
    /// An address is in use or cannot be bound.
    Bind,
    /// Listening there needs a token first.
    Unsafe,
    /// A file, process or thread is not there (any more).
    NotFound,
    /// The operating system forbids it.
    Permission,
    /// This build, platform or kernel cannot do it.
    Unsupported,
    /// Another request is doing it already.
    Busy,
    /// Not enough memory for it now.
    OutOfMemory,
    /// It took longer than its deadline.
    Timeout,
    /// Bytes that should have a format do not.
    Malformed,
    /// Any other failure of the operating system.
    Io,
    /// A bug in taskprof: a panic that was caught.
    Internal,
}

/// An error with what was being done when it happened.
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// `Result` with our [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with a message that says what to do about it.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same, with the error that caused it.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An I/O error and what was being done. The kind follows the operating system's.
    pub fn io(doing: impl Into<Cow<'static, str>>, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied => ErrorKind::Permission,
            Io::AddrInUse | Io::AddrNotAvailable => ErrorKind::Bind,
            Io::OutOfMemory => ErrorKind::OutOfMemory,
            Io::TimedOut => ErrorKind::Timeout,
            Io::Unsupported => ErrorKind::Unsupported,
            Io::InvalidInput => ErrorKind::InvalidInput,
            Io::InvalidData => ErrorKind::Malformed,
            _ => ErrorKind::Io,
        };
        Self::new(kind, doing).with_source(source)
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// The whole chain in one line, outermost first.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut next: Option<&(dyn StdError + 'static)> =
            self.source.as_deref().map(|source| source as _);
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

// `Display` prints the chain, so `source` must stay `None`: a caller that
// walks it would print everything twice.
impl StdError for Error {}
