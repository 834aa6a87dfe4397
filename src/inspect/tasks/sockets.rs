//! Addresses of sockets by their descriptors: our own we ask for their names,
//! another process's are in the kernel's tables (proc_pid_net(5)), which take
//! it a part of a second to print, however few sockets there are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::sys::socket::{self, Names};

/// Bytes read of one table: half a million sockets.
const TABLE: u64 = 128 << 20;

/// The sockets of one process, looked up when first asked for.
pub struct Sockets {
    process: u32,
    by_inode: Option<HashMap<u64, Arc<str>>>,
    by_fd: HashMap<i32, Option<Arc<str>>>,
}

impl Sockets {
    pub fn of(process: u32) -> Self {
        Self { process, by_inode: None, by_fd: HashMap::new() }
    }

    /// `tcp 127.0.0.1:50051 <- 127.0.0.1:41234`, or the like.
    pub fn describe(&mut self, fd: i32) -> Option<Arc<str>> {
        if let Some(known) = self.by_fd.get(&fd) {
            return known.clone();
        }
        let found = if self.process == std::process::id() { own(fd) } else { self.look_up(fd) };
        self.by_fd.insert(fd, found.clone());
        found
    }

    fn look_up(&mut self, fd: i32) -> Option<Arc<str>> {
        let link = std::fs::read_link(format!("/proc/{}/fd/{fd}", self.process)).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        let process = self.process;
        self.by_inode.get_or_insert_with(|| tables(process)).get(&inode).cloned()
    }
}

fn own(fd: i32) -> Option<Arc<str>> {
    let words = match socket::names(fd)? {
        Names::Inet { protocol, local, peer } => inet_words(protocol, local, peer),
        Names::Unix(Some(path)) => format!("unix {}", path.display()),
        Names::Unix(None) => "unix".to_owned(),
    };
    Some(words.into())
}

fn inet_words(protocol: &str, local: SocketAddr, peer: Option<SocketAddr>) -> String {
    match peer {
        Some(peer) => format!("{protocol} {local} <-> {peer}"),
        None => format!("{protocol} {local}"),
    }
}

fn tables(process: u32) -> HashMap<u64, Arc<str>> {
    let mut sockets = HashMap::new();
    for name in ["tcp", "tcp6", "udp", "udp6", "unix"] {
        let text = read(&format!("/proc/{process}/net/{name}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let found = if name == "unix" { unix(line) } else { inet(name, line) };
            if let Some((inode, words)) = found {
                sockets.insert(inode, words.into());
            }
        }
    }
    sockets
}

fn read(path: &str) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(TABLE).read_to_string(&mut text)?;
    Ok(text)
}

/// `0: 0100007F:C383 0100007F:A112 01 ... uid timeout inode ...`
fn inet(table: &str, line: &str) -> Option<(u64, String)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
    let [_, local, remote, _, _, _, _, _, _, inode] = fields.as_slice() else { return None };
    let protocol = table.trim_end_matches('6');
    let (local, remote) = (address(local)?, address(remote)?);
    let peer = (remote.port() != 0).then_some(remote);
    Some((inode.parse().ok()?, inet_words(protocol, local, peer)))
}

/// `0000...: 00000002 00000000 00010000 0001 01 12345 /run/x.sock`
fn unix(line: &str) -> Option<(u64, String)> {
    let mut fields = line.split_ascii_whitespace().skip(6);
    let inode = fields.next()?.parse().ok()?;
    Some(match fields.next() {
        Some(path) => (inode, format!("unix {path}")),
        None => (inode, "unix".to_owned()),
    })
}

/// The kernel prints addresses as words of the machine's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |digits: &str| Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(ip)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(ip.get(index * 8..index * 8 + 8)?)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_connection_is_found_from_both_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let near = TcpStream::connect(server).unwrap();
        let client = near.local_addr().unwrap();
        let (far, _) = listener.accept().unwrap();
        let mut sockets = Sockets::of(std::process::id());
        let expect = [
            (near.as_raw_fd(), format!("tcp {client} <-> {server}")),
            (far.as_raw_fd(), format!("tcp {server} <-> {client}")),
            (listener.as_raw_fd(), format!("tcp {server}")),
        ];
        for (fd, words) in expect {
            assert_eq!(sockets.describe(fd).as_deref(), Some(&*words));
            assert_eq!(sockets.look_up(fd).as_deref(), Some(&*words), "as others see it");
        }
        assert_eq!(sockets.describe(-1), None);
    }

    #[test]
    fn mapped_addresses_are_shown_as_what_they_are() {
        let text = "0000000000000000FFFF00000100007F:1F90";
        assert_eq!(address(text).unwrap().to_string(), "127.0.0.1:8080");
    }

    proptest! {
        #[test]
        fn any_line_is_harmless(line in "[0-9A-F: ]{0,80}|.{0,60}") {
            let _ = inet("tcp6", &line);
            let _ = unix(&line);
        }
    }
}
