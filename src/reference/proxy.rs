//! A network that misbehaves on request: a TCP proxy inside this process.
//!
//! ```text
//!   client ──▶ [ read ──▶ queue ──▶ write ] ──▶ server      one such pipe
//!          ◀── [ write ◀── queue ◀── read ] ◀──              each way
//! ```
//!
//! No privileges are needed. What it cannot do is lose packets: a peer's kernel
//! gets its acknowledgements from the proxy's, whatever becomes of the bytes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Bytes moved at a time.
const CHUNK: usize = 16 << 10;

/// Chunks under way in a pipe: as much as a delay may hold up.
const QUEUE: usize = 256;

/// What a pipe does with its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// Passes them on.
    #[default]
    Forward,
    /// Stops: neither reads nor writes, so that the sender's window closes.
    Hold,
    /// Reads them and throws them away.
    Swallow,
}

/// How one direction behaves now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pipe {
    /// What becomes of the bytes.
    pub flow: Flow,
    /// Each byte arrives so much later.
    pub delay: Duration,
    /// At most so many bytes a second; 0 means as many as come.
    pub bytes_per_second: u64,
}

/// How the whole path behaves now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// From the client to the server.
    pub to_server: Pipe,
    /// From the server to the client.
    pub to_client: Pipe,
    /// An end that goes away is not told to the other, as when a machine or a
    /// router vanishes behind a load balancer.
    pub hides_ends: bool,
}

impl Path {
    /// The same in both directions.
    pub fn both(pipe: Pipe) -> Self {
        Self { to_server: pipe, to_client: pipe, hides_ends: false }
    }
}

/// A running proxy; dropping it cuts its connections.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    path: watch::Sender<Path>,
    cut: watch::Sender<u64>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Proxy {
    /// Starts one on a free port of loopback; it must be called in a runtime.
    ///
    /// # Errors
    /// `Io` if no port is free.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let cannot = |error| Error::io("cannot start the proxy", error);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let (path, seen) = watch::channel(Path::default());
        let (cut, cuts) = watch::channel(0);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (token, tracker) = (stop.clone(), tasks.clone());
        tasks.spawn(async move {
            let accepting = async {
                loop {
                    // A client that is gone again already; the next may stay.
                    let Ok((client, _)) = listener.accept().await else { continue };
                    let link = Link { path: seen.clone(), cuts: cuts.clone(), stop: token.clone() };
                    tracker.spawn(link.serve(client, server));
                }
            };
            tokio::select! {
                () = accepting => {}
                () = token.cancelled() => {}
            }
        });
        Ok(Self { address, path, cut, stop, tasks })
    }

    /// From now on the path behaves so, on open connections too.
    pub fn set(&self, path: Path) {
        self.path.send_replace(path);
    }

    /// Resets the connections that are open now (RST, both ways).
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Ends it and waits until nothing of it is left.
    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One client's connection.
struct Link {
    path: watch::Receiver<Path>,
    cuts: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl Link {
    async fn serve(mut self, mut client: TcpStream, server: SocketAddr) {
        let Ok(mut server) = TcpStream::connect(server).await else { return };
        for socket in [&client, &server] {
            // Nagle's delay would be one of ours that nobody asked for.
            let _ = socket.set_nodelay(true);
        }
        self.cuts.mark_unchanged();
        let cut = {
            let (mut client_in, mut client_out) = client.split();
            let (mut server_in, mut server_out) = server.split();
            let (forth, back) = (self.path.clone(), self.path.clone());
            let to_server = pump(&mut client_in, &mut server_out, forth, |path| path.to_server);
            let to_client = pump(&mut server_in, &mut client_out, back, |path| path.to_client);
            tokio::select! {
                _ = async { tokio::join!(to_server, to_client) } => false,
                () = self.stop.cancelled() => false,
                _ = self.cuts.changed() => true,
            }
        };
        if cut {
            for socket in [&client, &server] {
                // A close without linger is a RST.
                let _ = socket.set_zero_linger();
            }
        }
    }
}

/// Moves bytes one way until one end is gone, then ends the other as well.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    path: watch::Receiver<Path>,
    of: fn(&Path) -> Pipe,
) {
    let (queue, mut due) = mpsc::channel::<(Instant, Bytes)>(QUEUE);
    let mut side = path.clone();
    let reading = async move {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            let pipe = moving(&mut side, of).await;
            buffer.reserve(CHUNK);
            let read = tokio::select! {
                read = from.read_buf(&mut buffer) => read,
                // It may be told to hold while nothing comes.
                changed = side.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            match read {
                Ok(1..) if pipe.flow == Flow::Swallow => buffer.clear(),
                Ok(1..) => {
                    let bytes = buffer.split().freeze();
                    if queue.send((Instant::now() + pipe.delay, bytes)).await.is_err() {
                        return;
                    }
                }
                Ok(0) | Err(_) => return hidden(&mut side).await,
            }
        }
    };
    let mut side = path;
    let writing = async move {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            let pipe = moving(&mut side, of).await;
            if pipe.flow == Flow::Swallow {
                continue;
            }
            if to.write_all(&bytes).await.is_err() {
                return hidden(&mut side).await;
            }
            if pipe.bytes_per_second > 0 {
                let seconds = bytes.len() as f64 / pipe.bytes_per_second as f64;
                sleep(Duration::from_secs_f64(seconds)).await;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

/// Waits for as long as the pipe is told to hold.
async fn moving(side: &mut watch::Receiver<Path>, of: fn(&Path) -> Pipe) -> Pipe {
    // The guard must not live across an await.
    let pipe = side.wait_for(|path| of(path).flow != Flow::Hold).await.map(|path| of(&path));
    match pipe {
        Ok(pipe) => pipe,
        // The proxy is gone, and this link with it.
        Err(_) => std::future::pending().await,
    }
}

/// Returns once the other end may learn that this one is gone.
async fn hidden(side: &mut watch::Receiver<Path>) {
    let _ = side.wait_for(|path| !path.hides_ends).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy before a server that sends back what it gets, and a client of it.
    async fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let proxy = Proxy::start(address).await.unwrap();
        let client = TcpStream::connect(proxy.address).await.unwrap();
        (proxy, client)
    }

    async fn answered(client: &mut TcpStream, bytes: &[u8]) -> Duration {
        let began = Instant::now();
        client.write_all(bytes).await.unwrap();
        let mut got = vec![0; bytes.len()];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, bytes);
        began.elapsed()
    }

    /// Nothing comes for long enough to be sure.
    async fn silent(client: &mut TcpStream) {
        let nothing = tokio::time::timeout(Duration::from_millis(200), client.read_u8()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }

    #[tokio::test]
    async fn it_forwards_and_delays() {
        let (proxy, mut client) = echo().await;
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let (mut from, mut to) = client.split();
        let mut got = vec![0; bytes.len()];
        let (sent, read) = tokio::join!(to.write_all(&bytes), from.read_exact(&mut got));
        sent.unwrap();
        read.unwrap();
        assert!(got == bytes);
        let delay = Duration::from_millis(50);
        proxy.set(Path::both(Pipe { delay, ..Pipe::default() }));
        assert!(answered(&mut client, b"late").await >= delay * 2);
        proxy.end().await;
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn held_bytes_come_later_and_swallowed_ones_never() {
        let (proxy, mut client) = echo().await;
        answered(&mut client, b"hello").await;
        let hold = Pipe { flow: Flow::Hold, ..Pipe::default() };
        proxy.set(Path { to_client: hold, ..Path::default() });
        client.write_all(b"a").await.unwrap();
        silent(&mut client).await;
        proxy.set(Path::default());
        assert_eq!(client.read_u8().await.unwrap(), b'a');
        let swallow = Pipe { flow: Flow::Swallow, ..Pipe::default() };
        proxy.set(Path { to_server: swallow, ..Path::default() });
        client.write_all(b"b").await.unwrap();
        silent(&mut client).await;
        proxy.set(Path::default());
        client.write_all(b"c").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'c');
    }

    #[tokio::test]
    async fn it_throttles() {
        let (proxy, mut client) = echo().await;
        answered(&mut client, b"hello").await;
        let slow = Pipe { bytes_per_second: 100_000, ..Pipe::default() };
        proxy.set(Path { to_server: slow, ..Path::default() });
        let took = {
            let began = Instant::now();
            let (mut from, mut to) = client.split();
            let mut got = vec![0; 40_000];
            let (sent, read) = tokio::join!(to.write_all(&[7; 40_000]), from.read_exact(&mut got));
            sent.unwrap();
            read.unwrap();
            began.elapsed()
        };
        // The last chunk is paid for after it was sent.
        assert!(took >= Duration::from_millis(150), "{took:?}");
    }

    #[tokio::test]
    async fn a_cut_is_a_reset_and_ends_can_be_hidden() {
        let (proxy, mut client) = echo().await;
        answered(&mut client, b"hello").await;
        proxy.cut();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        answered(&mut client, b"hello").await;
        proxy.set(Path { hides_ends: true, ..Path::default() });
        client.shutdown().await.unwrap();
        // The server would close in turn, if it had seen the end.
        silent(&mut client).await;
        proxy.set(Path::default());
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }
}
