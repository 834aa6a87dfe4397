//! What the kernel says of a TCP socket: `TCP_INFO` of tcp(7), laid out as
//! `struct tcp_info` in Linux's `include/uapi/linux/tcp.h`.

use crate::model::{TcpInfo, TcpInfoMore};

/// As much of the structure as any kernel to date fills, and some to spare.
#[cfg(target_os = "linux")]
const ROOM: usize = 256;

/// Reads it; `None` where the socket is no TCP socket, or there is no Linux.
///
/// The caller sees to it that `fd` is open and is the one meant.
pub fn info(fd: i32) -> Option<TcpInfo> {
    #[cfg(target_os = "linux")]
    {
        let mut raw = [0_u8; ROOM];
        let mut length = ROOM as libc::socklen_t;
        // SAFETY: both pointers are to locals that live across the call, and
        // `length` says how much there is to write to. A bad `fd` is an error.
        let failed = unsafe {
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
            libc::getsockopt(fd, level, name, raw.as_mut_ptr().cast(), &raw mut length)
        };
        if failed != 0 {
            return None;
        }
        let mut unread: libc::c_int = 0;
        // SAFETY: FIONREAD (SIOCINQ of tcp(7)) writes one int, to a local.
        let failed = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut unread) };
        let unread = if failed == 0 { u32::try_from(unread).unwrap_or(0) } else { 0 };
        parse(raw.get(..length as usize)?, unread)
    }
    #[cfg(not(target_os = "linux"))]
    {
        _ = fd;
        None
    }
}

/// Fields by their offsets; the kernel's structure only ever grew at its end.
#[cfg(any(test, target_os = "linux"))]
fn parse(raw: &[u8], unread_bytes: u32) -> Option<TcpInfo> {
    let byte = |at: usize| raw.get(at).copied();
    let word = |at: usize| Some(u32::from_ne_bytes(raw.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(raw.get(at..at + 8)?.try_into().ok()?));
    let milliseconds = |at: usize| Some(u64::from(word(at)?) * 1_000_000);
    Some(TcpInfo {
        state: byte(0)?,
        retransmits: byte(2)?,
        probes: byte(3)?,
        backoff: byte(4)?,
        send_mss: word(16)?,
        unacked: word(24)?,
        last_data_sent_ago_ns: milliseconds(44)?,
        last_data_received_ago_ns: milliseconds(52)?,
        last_ack_ago_ns: milliseconds(56)?,
        rtt_ns: u64::from(word(68)?) * 1_000,
        total_retransmits: word(100)?,
        // Linux 4.1 and 4.6.
        bytes_acked: long(120).unwrap_or(0),
        notsent_bytes: word(144).unwrap_or(0),
        // Linux 5.4 and 6.2.
        send_window: word(228),
        recv_window: word(232),
        unread_bytes,
        more: TcpInfoMore {
            congestion_state: byte(1)?,
            options: byte(5)?,
            // Two fields of four bits, the first in the lower ones where bytes
            // are little-endian.
            send_window_scale: nibbles(byte(6)?).0,
            recv_window_scale: nibbles(byte(6)?).1,
            retransmit_timeout_ns: u64::from(word(8)?) * 1_000,
            ack_timeout_ns: u64::from(word(12)?) * 1_000,
            recv_mss: word(20)?,
            sacked: word(28)?,
            lost: word(32)?,
            retransmitting: word(36)?,
            fackets: word(40)?,
            path_mtu: word(60)?,
            recv_slow_start: word(64)?,
            rtt_variation_ns: u64::from(word(72)?) * 1_000,
            send_slow_start: word(76)?,
            congestion_window: word(80)?,
            advertised_mss: word(84)?,
            reordering: word(88)?,
        },
    })
}

/// Two bit-fields of a byte, in the order in which C declares them.
#[cfg(any(test, target_os = "linux"))]
fn nibbles(byte: u8) -> (u8, u8) {
    let (low, high) = (byte & 0xf, byte >> 4);
    if cfg!(target_endian = "little") { (low, high) } else { (high, low) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_kernel_puts_them() {
        let mut raw = [0_u8; 240];
        for (at, value) in [(16, 1448_u32), (24, 7), (56, 20), (68, 35), (144, 9), (228, 65_536)] {
            raw[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        raw[0] = 1;
        let info = parse(&raw, 5).unwrap();
        assert_eq!((info.state, info.send_mss, info.unacked), (1, 1448, 7));
        assert_eq!((info.last_ack_ago_ns, info.rtt_ns), (20_000_000, 35_000));
        assert_eq!((info.notsent_bytes, info.send_window), (9, Some(65_536)));
        assert_eq!((info.recv_window, info.unread_bytes), (Some(0), 5));
        let old = parse(&raw[..104], 0).unwrap();
        assert_eq!((old.bytes_acked, old.send_window, old.recv_window), (0, None, None));
        assert_eq!(parse(&raw[..50], 0), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_real_socket_tells_what_nobody_has_read() {
        use std::io::Write;
        use std::os::fd::AsRawFd;

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(&[0; 4321]).unwrap();
        let mut byte = [0];
        // Returns once data is there, and takes none of it.
        server.peek(&mut byte).unwrap();
        let info = info(server.as_raw_fd()).unwrap();
        assert_eq!((info.state, info.unread_bytes), (1, 4321));
        assert!(info.send_mss > 500, "{info:?}");
        let unix = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(super::info(unix.as_raw_fd()), None);
    }
}
