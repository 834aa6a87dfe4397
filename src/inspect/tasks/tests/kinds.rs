//! Every kind of wait, of tasks parked in it on purpose.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Notify, OnceCell, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};

use super::own::{at_rest, id, line_of, runtime, show, task, user_frames};
use crate::model::{HeldKind, Wait, WaitKind};

fn here(marker: &str) -> u32 {
    line_of(include_str!("kinds.rs"), marker)
}

#[test]
fn channels_know_both_their_ends() {
    let runtime = runtime();
    let rest = Arc::new(Notify::new());
    let (full, idle) = mpsc::channel::<u8>(1);
    let (quiet, mut empty) = mpsc::unbounded_channel::<u8>();
    let (answer, asked) = oneshot::channel::<u8>();
    let (seen, mut watched) = watch::channel(0);
    let (told, mut heard) = broadcast::channel::<u8>(4);

    let send = runtime.spawn(async move {
        full.send(1).await.unwrap();
        full.send(2).await.unwrap(); //@send
    });
    let recv = runtime.spawn(async move { empty.recv().await }); //@recv
    let ask = runtime.spawn(async move {
        let answer = asked.await; //@ask
        answer.unwrap()
    });
    let look = runtime.spawn(async move { watched.changed().await }); //@look
    let hear = runtime.spawn(async move { heard.recv().await }); //@hear
    let keep = runtime.spawn({
        let rest = rest.clone();
        async move {
            let ends = (idle, quiet, answer);
            let more = (seen, told);
            rest.notified().await; //@keep
            drop((ends, more));
        }
    });
    let read = at_rest(&[runtime.handle()], false);
    let keeper = task(&read, id(&keep));
    let cases = [
        (id(&send), "send", WaitKind::MpscSend, HeldKind::MpscReceiver, None),
        (id(&recv), "recv", WaitKind::MpscRecv, HeldKind::MpscSender, Some(1)),
        (id(&ask), "ask", WaitKind::Oneshot, HeldKind::OneshotSender, None),
        (id(&look), "look", WaitKind::Watch, HeldKind::WatchSender, Some(1)),
        (id(&hear), "hear", WaitKind::Broadcast, HeldKind::BroadcastSender, Some(1)),
    ];
    for (waiter, marker, kind, held, senders) in cases {
        let waiter = task(&read, waiter);
        let wait = waiter.wait.as_ref().unwrap();
        assert_eq!(wait.kind, kind, "{}", show(waiter));
        assert_eq!(wait.senders, senders, "{}", show(waiter));
        let frame = user_frames(waiter).remove(0);
        assert!(frame.ends_with(&format!("::{{async block}}:{}", here(marker))), "{frame}");
        let held = keeper.holds.iter().find(|other| other.kind == held);
        let held = held.unwrap_or_else(|| panic!("{held:?} in {}", show(keeper)));
        assert_eq!(wait.resource, Some(held.resource), "{}", show(waiter));
        let [holder] = &*wait.holders else { panic!("{}", show(waiter)) };
        assert_eq!(holder.task, keeper.id);
        assert_eq!(holder.location.as_ref().unwrap().line, here("keep"));
    }
}

#[test]
fn permits_and_readers_are_counted() {
    let runtime = runtime();
    let rest = Arc::new(Notify::new());
    let (lock, permits) = (Arc::new(RwLock::new(0_u8)), Arc::new(Semaphore::new(3)));
    let cell = Arc::new(OnceCell::<u8>::new());
    let barrier = Arc::new(Barrier::new(3));
    let reader = runtime.spawn({
        let (lock, rest, permits) = (lock.clone(), rest.clone(), permits.clone());
        async move {
            let shared = lock.read().await;
            let two = permits.acquire_many(2).await.unwrap();
            rest.notified().await;
            drop((shared, two));
        }
    });
    let first = runtime.spawn({
        let (cell, rest) = (cell.clone(), rest.clone());
        async move {
            cell.get_or_init(async || {
                rest.notified().await;
                1
            })
            .await;
        }
    });
    at_rest(&[runtime.handle()], false);
    let write = runtime.spawn({
        let lock = lock.clone();
        async move { *lock.write().await += 1 }
    });
    let many = runtime.spawn({
        let permits = permits.clone();
        async move { drop(permits.acquire_many_owned(2).await) }
    });
    let init = runtime.spawn({
        let cell = cell.clone();
        async move { *cell.get_or_init(async || 2).await }
    });
    let met: Vec<_> = (0..2)
        .map(|_| {
            let barrier = barrier.clone();
            runtime.spawn(async move { barrier.wait().await.is_leader() })
        })
        .collect();
    at_rest(&[runtime.handle()], false);
    let late = runtime.spawn({
        let lock = lock.clone();
        async move { *lock.read().await }
    });
    let read = at_rest(&[runtime.handle()], false);
    let wait = |id| -> &Wait {
        let task = task(&read, id);
        task.wait.as_ref().unwrap_or_else(|| panic!("{}", show(task)))
    };
    let only_holder = |wait: &Wait| {
        let [holder] = &*wait.holders else { panic!("{wait:?}") };
        holder.task
    };
    let writer = wait(id(&write));
    assert_eq!(writer.kind, WaitKind::RwLockWrite);
    assert_eq!(writer.queue, Some(2), "the late reader stands behind it");
    assert_eq!(only_holder(writer), id(&reader));
    let late = wait(id(&late));
    assert_eq!(late.kind, WaitKind::RwLockRead);
    assert_eq!(late.resource, writer.resource);
    let many = wait(id(&many));
    assert_eq!(many.kind, WaitKind::Semaphore);
    // What is free has been set aside for the first in the queue.
    assert_eq!(many.detail.as_deref(), Some("wants 2, 0 free"));
    assert_eq!(only_holder(many), id(&reader));
    let init = wait(id(&init));
    assert_eq!(init.kind, WaitKind::OnceCell);
    assert_eq!(only_holder(init), id(&first));
    let [one, two] = &*met else { unreachable!() };
    let (one, two) = (wait(id(one)), wait(id(two)));
    assert_eq!((one.kind, two.kind), (WaitKind::Barrier, WaitKind::Barrier));
    assert_eq!(one.resource, two.resource);
}

#[test]
fn sleeps_joins_and_sockets_say_until_when_on_whom_and_on_what() {
    let runtime = runtime();
    let (near, server) = {
        let _context = runtime.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = listener.local_addr().unwrap();
        let near = std::net::TcpStream::connect(server).unwrap();
        near.set_nonblocking(true).unwrap();
        let (accepted, _) = loop {
            match listener.accept() {
                Ok(found) => break found,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        };
        accepted.set_nonblocking(true).unwrap();
        let accepted = TcpStream::from_std(accepted).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let _accept = runtime.spawn(async move { listener.accept().await.map(drop) });
        let _ready = runtime.spawn(async move { accepted.readable().await });
        (TcpStream::from_std(near).unwrap(), server)
    };
    let client = near.local_addr().unwrap();
    let sleep = runtime.spawn(async { tokio::time::sleep(Duration::from_secs(1_000)).await });
    let bounded = runtime.spawn(async {
        let never = std::future::pending::<()>();
        tokio::time::timeout(Duration::from_secs(500), never).await //@timeout
    });
    let tick = runtime.spawn(async {
        let mut interval = tokio::time::interval(Duration::from_secs(200));
        interval.tick().await;
        interval.tick().await;
    });
    let joined = id(&sleep);
    let join = runtime.spawn(async move { sleep.await.unwrap() }); //@join
    let read_some = runtime.spawn(async move {
        let mut near = near;
        let mut bytes = [0; 8];
        near.read(&mut bytes).await //@read
    });
    let read = at_rest(&[runtime.handle()], false);
    let about = |wait: &Wait, seconds: i64| {
        let left = wait.deadline_in_ns.unwrap_or_else(|| panic!("{wait:?}"));
        let seconds = seconds * 1_000_000_000;
        // A task may begin its sleep between the clock and the reading.
        let around = seconds - 60_000_000_000..seconds + 10_000_000_000;
        assert!(around.contains(&left), "{left}");
    };
    let of =
        |id| task(&read, id).wait.as_ref().unwrap_or_else(|| panic!("{}", show(task(&read, id))));
    let sleep = of(joined);
    assert_eq!(sleep.kind, WaitKind::Sleep);
    about(sleep, 1_000);
    about(of(id(&bounded)), 500);
    assert_eq!(of(id(&bounded)).kind, WaitKind::Unknown, "`pending` says nothing");
    assert_eq!(of(id(&tick)).kind, WaitKind::Sleep);
    about(of(id(&tick)), 200);
    let join = of(id(&join));
    assert_eq!((join.kind, join.task), (WaitKind::Join, Some(joined)));
    let reads = of(id(&read_some));
    assert_eq!(reads.kind, WaitKind::SocketRead);
    assert_eq!(reads.detail.as_deref(), Some(&*format!("tcp {client} <-> {server}")));
    let sockets: Vec<_> = read
        .tasks
        .iter()
        .filter_map(|task| task.wait.as_ref())
        .filter(|wait| wait.kind == WaitKind::SocketRead)
        .filter_map(|wait| wait.detail.as_deref())
        .collect();
    let expect = [format!("tcp {server}"), format!("tcp {server} <-> {client}")];
    for words in expect {
        assert!(sockets.contains(&&*words), "{words} in {sockets:?}");
    }
}

#[test]
fn a_task_that_was_never_polled_stands_at_its_first_line() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    //@unborn
    async fn unborn(rest: Arc<Notify>) {
        rest.notified().await;
    }
    let rest = Arc::new(Notify::new());
    let task_id = id(&runtime.spawn(unborn(rest.clone())));
    let handle = runtime.handle();
    let roots = crate::inspect::tasks::Roots {
        handles: vec![std::ptr::from_ref(handle) as u64],
        ..Default::default()
    };
    let read = crate::inspect::tasks::read(
        &mut super::own::image(),
        &mut *super::own::layouts(),
        &roots,
        &Default::default(),
    )
    .unwrap();
    let unborn = task(&read, task_id);
    assert_eq!(unborn.state, crate::model::TaskState::Scheduled);
    let frames = user_frames(unborn);
    assert_eq!(frames.len(), 1, "{}", show(unborn));
    assert!(frames[0].ends_with(&format!("::unborn:{}", here("unborn") + 1)), "{frames:?}");
    assert_eq!(unborn.wait, None);
    assert_eq!(read.owners[0].flavor, "current_thread");
}
