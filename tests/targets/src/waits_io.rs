//! Waits for sockets.

use std::os::fd::AsRawFd as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use tokio::time::sleep;

use crate::stage::{HOUR, Stage, role};

pub async fn play(stage: &mut Stage) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
    let address = listener.local_addr().expect("address");
    let near = TcpStream::connect(address).await.expect("connect");
    let (far, _) = listener.accept().await.expect("accept");

    let waits = |name, kind, stream: &TcpStream| {
        let peer = stream.peer_addr().expect("peer").to_string();
        role(name).waits(kind).socket(
            stream.as_raw_fd(),
            stream.local_addr().expect("address"),
            Some(peer),
        )
    };
    let role_of_reader = waits("socket_reader", "socket_read", &near);
    stage.spawn(role_of_reader, socket_reader(near));
    stage.spawn(role("silent_peer").waits("sleep"), silent_peer(far));

    let near = TcpStream::connect(address).await.expect("connect");
    let (far, _) = listener.accept().await.expect("accept");
    let role_of_writer = waits("socket_writer", "socket_write", &near);
    stage.spawn(role_of_writer, socket_writer(near));
    stage.spawn(role("deaf_peer").waits("sleep"), deaf_peer(far));

    let near = TcpStream::connect(address).await.expect("connect");
    let (far, _) = listener.accept().await.expect("accept");
    let role_of_half = waits("half_reader", "socket_read", &near);
    let (read, write) = near.into_split();
    stage.spawn(role_of_half, half_reader(read));
    stage.spawn(role("half_keeper").waits("sleep"), half_keeper(write, far));

    datagrams(stage).await;
    unix(stage).await;

    let acceptor = role("acceptor").waits("socket_read");
    stage.spawn(acceptor.socket(listener.as_raw_fd(), address, None), acceptor_waits(listener));
}

async fn datagrams(stage: &mut Stage) {
    let near = UdpSocket::bind("127.0.0.1:0").await.expect("socket");
    let far = UdpSocket::bind("127.0.0.1:0").await.expect("socket");
    let [local, peer] = [&near, &far].map(|socket| socket.local_addr().expect("address"));
    near.connect(peer).await.expect("connect");
    let datagram = role("datagram").waits("socket_read");
    let datagram = datagram.socket(near.as_raw_fd(), local, Some(peer.to_string()));
    stage.spawn(datagram, datagram_waits(near));
    let unconnected = role("unconnected").waits("socket_read");
    stage.spawn(unconnected.socket(far.as_raw_fd(), peer, None), unconnected_waits(far));
}

async fn unix(stage: &mut Stage) {
    let path = std::env::temp_dir().join(format!("targets-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).expect("listener");
    let near = UnixStream::connect(&path).await.expect("connect");
    let (far, _) = listener.accept().await.expect("accept");
    // It keeps its name.
    std::fs::remove_file(&path).expect("removed");
    let served = role("unix_served").waits("socket_read");
    stage.spawn(served.socket(far.as_raw_fd(), path.display(), None), unix_served(far));
    let client = role("unix_client").waits("socket_read");
    stage.spawn(client.socket(near.as_raw_fd(), "unix", None), unix_client(near));
    let (sender, receiver) = pipe::pipe().expect("pipe");
    let piped = role("piped").waits("socket_read").socket(receiver.as_raw_fd(), "", None);
    stage.spawn(piped, piped_waits(receiver, sender));
}

async fn datagram_waits(socket: UdpSocket) -> usize {
    socket.recv(&mut [0; 64]).await.unwrap_or(0) // MARK: datagram
}

async fn unconnected_waits(socket: UdpSocket) -> bool {
    socket.recv_from(&mut [0; 64]).await.is_ok() // MARK: unconnected
}

async fn unix_served(mut stream: UnixStream) -> usize {
    stream.read(&mut [0; 64]).await.unwrap_or(0) // MARK: unix_served
}

async fn unix_client(stream: UnixStream) -> bool {
    stream.readable().await.is_ok() // MARK: unix_client
}

async fn piped_waits(mut receiver: pipe::Receiver, sender: pipe::Sender) -> usize {
    let read = receiver.read(&mut [0; 64]).await.unwrap_or(0); // MARK: piped
    drop(sender);
    read
}

async fn socket_reader(mut stream: TcpStream) -> usize {
    let mut buffer = [0; 64];
    stream.read(&mut buffer).await.unwrap_or(0) // MARK: socket_reader
}

async fn silent_peer(stream: TcpStream) {
    sleep(HOUR).await; // MARK: silent_peer
    drop(stream);
}

/// Writes until the kernel's buffers at both ends are full.
async fn socket_writer(mut stream: TcpStream) {
    let chunk = vec![0; 1 << 20];
    loop {
        stream.write_all(&chunk).await.expect("a peer"); // MARK: socket_writer
    }
}

async fn deaf_peer(stream: TcpStream) {
    sleep(HOUR).await; // MARK: deaf_peer
    drop(stream);
}

async fn half_reader(stream: tokio::net::tcp::OwnedReadHalf) -> bool {
    stream.readable().await.is_ok() // MARK: half_reader
}

async fn half_keeper(write: tokio::net::tcp::OwnedWriteHalf, far: TcpStream) {
    sleep(HOUR).await; // MARK: half_keeper
    drop((write, far));
}

async fn acceptor_waits(listener: TcpListener) -> bool {
    listener.accept().await.is_ok() // MARK: acceptor
}
