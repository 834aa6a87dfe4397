//! Sockets of this process by their descriptors, which others own and may
//! close at any time: only asked for names, never kept.

use std::ffi::OsStr;
use std::mem::{MaybeUninit, offset_of};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use libc::{c_int, sockaddr_storage, socklen_t};

/// What a socket is bound and connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// Of the Internet: `tcp` or `udp`.
    Inet { protocol: &'static str, local: SocketAddr, peer: Option<SocketAddr> },
    /// A Unix socket, with the path it is bound to.
    Unix(Option<PathBuf>),
}

/// The names of a socket; `None` if the descriptor is not of one.
pub fn names(fd: c_int) -> Option<Names> {
    let (local, len) = ask(fd, libc::getsockname)?;
    match c_int::from(local.ss_family) {
        libc::AF_INET | libc::AF_INET6 => Some(Names::Inet {
            protocol: protocol(fd)?,
            local: address(&local)?,
            peer: ask(fd, libc::getpeername).and_then(|(peer, _)| address(&peer)),
        }),
        libc::AF_UNIX => Some(Names::Unix(path(&local, len))),
        _ => None,
    }
}

type Ask = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut socklen_t) -> c_int;

fn ask(fd: c_int, which: Ask) -> Option<(sockaddr_storage, usize)> {
    let mut name = MaybeUninit::<sockaddr_storage>::zeroed();
    let mut len = size_of::<sockaddr_storage>() as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes; all zeroes is a valid
    // `sockaddr_storage`, and the kernel writes no invalid one.
    let name = unsafe {
        if which(fd, name.as_mut_ptr().cast(), &raw mut len) != 0 {
            return None;
        }
        name.assume_init()
    };
    Some((name, len as usize))
}

fn protocol(fd: c_int) -> Option<&'static str> {
    let mut kind: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let to = (&raw mut kind).cast();
    // SAFETY: the option is an int, and so is what it is written to.
    let failed =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, to, &raw mut len) } != 0;
    match kind {
        _ if failed => None,
        libc::SOCK_STREAM => Some("tcp"),
        libc::SOCK_DGRAM => Some("udp"),
        _ => None,
    }
}

fn address(name: &sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what it is, and the storage has room and
            // alignment for all of them.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = IpAddr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip, u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = IpAddr::from(name.sin6_addr.s6_addr).to_canonical();
            Some(SocketAddr::new(ip, u16::from_be(name.sin6_port)))
        }
        _ => None,
    }
}

/// The path, if it is in the file system.
fn path(name: &sockaddr_storage, len: usize) -> Option<PathBuf> {
    let room = len.min(size_of::<libc::sockaddr_un>());
    let room = room.checked_sub(offset_of!(libc::sockaddr_un, sun_path))?;
    // SAFETY: as in `address`; a `sockaddr_un` is smaller than the storage.
    let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_un>() };
    let bytes: Vec<u8> = name.sun_path[..room]
        .iter()
        .map(|&byte| byte as u8)
        .take_while(|&byte| byte != 0)
        .collect();
    (!bytes.is_empty()).then(|| OsStr::from_bytes(&bytes).into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_unix_socket_is_named_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(names(listener.as_raw_fd()), Some(Names::Unix(Some(path))));
        assert_eq!(names(client.as_raw_fd()), Some(Names::Unix(None)));
        let udp = std::net::UdpSocket::bind("[::1]:0").unwrap();
        let local = udp.local_addr().unwrap();
        let udp = names(udp.as_raw_fd());
        assert_eq!(udp, Some(Names::Inet { protocol: "udp", local, peer: None }));
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(names(file.as_raw_fd()), None);
        assert_eq!(names(-1), None);
    }
}
