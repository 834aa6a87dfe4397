//! Listening sockets: TCP, or a unix socket that only its owner can open.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::config::Listen;
use crate::error::{Error, ErrorKind, Result};

/// Who may wait to be accepted; the kernel may set less (`somaxconn`). With the
/// 128 of the standard library a burst of calls on a busy machine overflows the
/// queue, and the kernel lets those beyond it ask again after a second or three,
/// where one that we have accepted is answered, or turned away, at once.
const BACKLOG: i32 = 1024;

/// A bound socket, not yet part of a runtime.
pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix(StdUnixListener, SocketFile),
}

/// A socket in a runtime.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when dropped")] SocketFile),
}

/// Binds without accepting.
pub fn bind(listen: &Listen) -> Result<Bound> {
    let bound = match listen {
        Listen::Tcp(address) => Bound::Tcp(
            std::net::TcpListener::bind(address)
                .map_err(|error| Error::io(format!("cannot listen on {listen}"), error))?,
        ),
        Listen::Unix(path) => {
            let (listener, file) = bind_unix(path)?;
            Bound::Unix(listener, file)
        }
    };
    let socket = match &bound {
        Bound::Tcp(listener) => SockRef::from(listener),
        Bound::Unix(listener, _) => SockRef::from(listener),
    };
    // A socket that listens takes another length of its queue: listen(2) again.
    socket
        .listen(BACKLOG)
        .and_then(|()| socket.set_nonblocking(true))
        .map_err(|error| Error::io(format!("cannot listen on {listen}"), error))?;
    Ok(bound)
}

impl Bound {
    /// The TCP address, with the port that was taken.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Joins the runtime of the calling thread.
    pub fn into_async(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener, file) => Listener::Unix(UnixListener::from_std(listener)?, file),
        })
    }
}

impl Listener {
    pub async fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Events are small and late ones are worthless.
                let _ = stream.set_nodelay(true);
                Connection::Tcp(stream)
            }
            Self::Unix(listener, _) => Connection::Unix(listener.accept().await?.0),
        })
    }
}

/// Our socket in the file system; removed when dropped, unless another has
/// taken its name in the meantime.
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The socket is made in a directory nobody else may enter and moved to its
/// name once it has mode 0600: between `bind` and `chmod` others could connect.
fn bind_unix(path: &Path) -> Result<(StdUnixListener, SocketFile)> {
    let context = |doing: &str| format!("cannot {doing} the socket {}", path.display());
    refuse_live_socket(path)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let private = parent.join(format!(".tp{}", std::process::id()));
    DirBuilder::new()
        .mode(0o700)
        .create(&private)
        .map_err(|error| Error::io(context("make a private directory beside"), error))?;
    let made = (|| {
        let inside = private.join("s");
        let listener = StdUnixListener::bind(&inside)?;
        fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
        let file = fs::symlink_metadata(&inside)?;
        fs::rename(&inside, path)?;
        Ok((listener, SocketFile { path: path.to_owned(), identity: (file.dev(), file.ino()) }))
    })();
    let _ = fs::remove_file(private.join("s"));
    let _ = fs::remove_dir(&private);
    made.map_err(|error| Error::io(context("make"), error))
}

/// A socket nobody listens on is left from a process that died; it may go.
fn refuse_live_socket(path: &Path) -> Result<()> {
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot look at {}", path.display()), error)),
        Ok(file) => file,
    };
    if !file.file_type().is_socket() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{} exists and is not a socket: choose another path", path.display()),
        ));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => {
            Err(Error::io(format!("cannot tell whether {} is in use", path.display()), error))
        }
        Ok(_) => Err(Error::new(
            ErrorKind::Bind,
            format!("another process listens on {}", path.display()),
        )),
    }
}

/// A client's connection.
pub enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Writes what the kernel takes at once, for a last word before closing.
    pub fn try_write(&self, bytes: &[u8]) {
        let _ = match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        };
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as StdTcpStream;
    use std::time::Duration;

    use super::*;

    fn unix(path: &Path) -> Result<Bound> {
        bind(&Listen::Unix(path.to_owned()))
    }

    /// A client beyond the queue hears nothing: the kernel drops its SYN, and it
    /// asks again a second later.
    #[test]
    fn many_may_call_before_the_first_is_accepted() {
        let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let most: usize = most.trim().parse().unwrap();
        let bound = bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let address = bound.local_addr().unwrap();
        let calls: Vec<_> = (0..most.min(400))
            .map(|call| {
                let stream = StdTcpStream::connect_timeout(&address, Duration::from_millis(900));
                stream.unwrap_or_else(|error| panic!("call {call}: {error}"))
            })
            .collect();
        assert!(calls.len() >= 128);
    }

    #[test]
    fn a_unix_socket_is_its_owners_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("debug.sock");
        let bound = unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("debug.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead process leaves its socket");
        let _live = unix(&path).unwrap();
        let error = unix(&path).err().expect("a live socket must be refused");
        assert_eq!(error.kind(), ErrorKind::Bind);
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert_eq!(unix(&path).err().unwrap().kind(), ErrorKind::InvalidInput);
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[test]
    fn a_name_taken_by_another_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("debug.sock");
        let bound = unix(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(bound);
        assert!(path.exists());
    }
}
