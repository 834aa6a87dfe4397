use std::io::Read as _;
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::sys::testing::{Role, one_copy_at_a_time, role, say, when_free};

const LIFE: Duration = Duration::from_secs(20);

/// The 8 bytes at a place in memory, as the copy has them.
fn word(copy: &mut Copy, at: *const u64) -> std::result::Result<u64, usize> {
    let mut word = [0; 8];
    copy.read(at as u64, &mut word)?;
    Ok(u64::from_ne_bytes(word))
}

fn by_pipes(life: Duration) -> Copy {
    when_free(|| {
        let pipes = Reader::Asking(Pipes::open().unwrap());
        Copy::start(life, pipes, LeaveOut::nothing(), Only::claim()?)
    })
}

#[test]
fn the_copy_keeps_what_we_change_either_way() {
    let _one = one_copy_at_a_time();
    let makers: [fn(Duration) -> Copy; 2] =
        [|life| when_free(|| Copy::new(life, Vec::new(), LeaveOut::nothing())), by_pipes];
    for make in makers {
        let mut value = Box::new(7_u64);
        let mut copy = make(LIFE);
        *value = 8;
        assert_eq!(word(&mut copy, &raw const *value).unwrap(), 7);
        assert_eq!(*value, 8);
        assert_eq!(word(&mut copy, 0x1000 as *const u64), Err(0));
        assert_eq!(word(&mut copy, &raw const *value).unwrap(), 7, "after a hole");
        let long: Vec<u8> = (0..100_000).map(|at| (at % 251) as u8).collect();
        let mut copied = vec![0; 50_000];
        drop(copy);
        let mut copy = make(LIFE);
        copy.read(long.as_ptr() as u64 + 1234, &mut copied).unwrap();
        assert_eq!(copied, long[1234..51_234]);
    }
}

#[test]
fn a_socket_closed_by_us_is_closed_though_the_copy_lives() {
    let _one = one_copy_at_a_time();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let copy = when_free(|| Copy::new(LIFE, Vec::new(), LeaveOut::nothing()));
    drop(server);
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "end of stream");
    drop(copy);
}

#[test]
fn there_is_one_copy_at_a_time() {
    let _one = one_copy_at_a_time();
    let copy = when_free(|| Copy::new(LIFE, Vec::new(), LeaveOut::nothing()));
    assert_eq!(
        Copy::new(LIFE, Vec::new(), LeaveOut::nothing()).unwrap_err().kind(),
        ErrorKind::Busy
    );
    drop(copy);
    when_free(|| Copy::new(LIFE, Vec::new(), LeaveOut::nothing()));
}

#[test]
fn the_copy_ends_silently_with_its_handle() {
    let _one = one_copy_at_a_time();
    let copy = when_free(|| Copy::new(LIFE, Vec::new(), LeaveOut::nothing()));
    let pid = copy.pid();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // proc_pid_stat(5): field 38 is the signal that its end sends; the name
    // in field 2 may contain spaces.
    let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    assert_eq!(fields[38 - 3], "0");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
    let unblockable = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
    // The two real-time signals below SIGRTMIN are libc's own and stay out of
    // what sigfillset fills.
    let blocked = u64::from_str_radix(blocked, 16).unwrap();
    assert_eq!(blocked | unblockable | 0b11 << 31, u64::MAX, "{blocked:x}");
    drop(copy);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn the_copy_ends_of_itself_when_it_is_told() {
    let _one = one_copy_at_a_time();
    let large = vec![7_u8; 64 << 20];
    let start = large.as_ptr() as u64;
    let memory: Vec<_> = std::iter::once(start..start + large.len() as u64).collect();
    let copy = when_free(|| Copy::new(LIFE, memory.clone(), LeaveOut::nothing()));
    assert!(!copy.alive.ends_within(Duration::ZERO), "not before it is told");
    copy.alive.word.as_ref().unwrap().tell();
    assert!(copy.alive.ends_within(LIFE / 2), "told, it ends");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", copy.pid())).unwrap();
    // Field 52, the last, is the status that a wait gives: no signal ended it.
    assert_eq!(stat.split_whitespace().last(), Some("0"), "{stat}");
    drop(copy);
    assert!(large.iter().all(|&byte| byte == 7), "ours is another");
}

/// What is left out may be the heap of whoever makes the copy.
#[test]
fn the_copy_lives_without_any_heap() {
    let _one = one_copy_at_a_time();
    let heaps = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut ranges = Vec::new();
        for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
            let (range, name) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            // An arena of glibc's begins at a multiple of its greatest size.
            if name.ends_with("[heap]") || address(from).is_multiple_of(64 << 20) {
                ranges.push(address(from)..address(to));
            }
        }
        ranges
    };
    let word = Box::new(7_u64);
    let begin = Instant::now();
    loop {
        let leave_out = || LeaveOut { regions: heaps(), ..LeaveOut::nothing() };
        let mut copy = when_free(|| Copy::new(LIFE, Vec::new(), leave_out()));
        // Nothing is left out while another thread is in `fork`.
        if !copy.left_out() {
            assert!(begin.elapsed() < LIFE, "never left out");
            continue;
        }
        assert_eq!(self::word(&mut copy, &raw const *word), Err(0), "the heap is left out");
        assert!(!copy.alive.ends_within(Duration::from_millis(50)), "it lives all the same");
        break;
    }
}

#[test]
fn the_copy_ends_at_its_deadline_either_way() {
    let _one = one_copy_at_a_time();
    let value = Box::new(7_u64);
    for by_pipe in [false, true] {
        // Long enough for making it, whatever else the machine does.
        let life = Duration::from_millis(500);
        let before = Instant::now();
        let mut copy = if by_pipe {
            by_pipes(life)
        } else {
            when_free(|| Copy::new(life, Vec::new(), LeaveOut::nothing()))
        };
        let pid = copy.pid();
        // It stays a zombie until its handle goes.
        let dead = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.contains(") Z ")
        };
        let begin = Instant::now();
        while !dead() {
            assert!(begin.elapsed() < LIFE);
            std::thread::yield_now();
        }
        assert!(before.elapsed() >= life, "it ended after {:?}", before.elapsed());
        assert!(word(&mut copy, &raw const *value).is_err());
    }
}

#[test]
fn each_refusal_says_what_to_do() {
    for (number, kind, word) in [
        (libc::ENOMEM, ErrorKind::OutOfMemory, "overcommit"),
        (libc::EAGAIN, ErrorKind::OutOfMemory, "ulimit -u"),
        (libc::EPERM, ErrorKind::Permission, "seccomp"),
        (libc::ENOSYS, ErrorKind::Unsupported, "sandbox"),
        (libc::EMFILE, ErrorKind::OutOfMemory, "ulimit -n"),
    ] {
        let error = refused(io::Error::from_raw_os_error(number));
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// What fails once says nothing of the next time.
#[test]
fn only_a_refusal_for_good_turns_to_the_other_way() {
    let kind = |number| unopened(io::Error::from_raw_os_error(number)).kind();
    for number in [libc::EACCES, libc::EPERM, libc::ENOENT] {
        assert_eq!(kind(number), ErrorKind::Permission, "{number}");
    }
    for number in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ESRCH, libc::EINTR, libc::EIO] {
        assert_ne!(kind(number), ErrorKind::Permission, "{number}");
    }
    let _one = one_copy_at_a_time();
    let copy = when_free(|| Copy::new(LIFE, Vec::new(), LeaveOut::nothing()));
    // As the kernel does when memory runs out.
    // SAFETY: our own child, not waited for yet.
    unsafe { libc::kill(copy.pid(), libc::SIGKILL) };
    assert!(copy.alive.ends_within(LIFE / 2));
    let error = from_outside(&copy.alive).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Permission, "{error}");
}

const ROLE: &str = "sys::fork::tests::play_a_role";

#[test]
#[ignore = "started by the test below"]
fn play_a_role() {
    if role().is_some() {
        let copy = when_free(|| Copy::new(LIFE, Vec::new(), LeaveOut::nothing()));
        say(&copy.pid().to_string());
        std::thread::park();
    }
}

#[test]
fn the_copy_dies_with_the_process() {
    let mut server = Role::start(ROLE, "server");
    let copy = server.hear();
    assert!(std::fs::read_to_string(format!("/proc/{copy}/comm")).unwrap().starts_with("taskprof"));
    server.signal(libc::SIGKILL);
    server.child.wait().unwrap();
    let begin = Instant::now();
    // Nobody is left to wait for it but init, which may take its time.
    let lives = || {
        std::fs::read_to_string(format!("/proc/{copy}/stat")).is_ok_and(|it| !it.contains(") Z "))
    };
    while lives() {
        assert!(begin.elapsed() < LIFE / 4, "the copy outlives its process");
        std::thread::yield_now();
    }
}
