//! Real threads, stuck in real ways.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Condvar, OnceLock};
use std::time::Instant;

use super::*;
use crate::model::{Frame, FrameKind};

use crate::sys::current;

fn reader() -> &'static StackReader {
    static READER: OnceLock<StackReader> = OnceLock::new();
    READER.get_or_init(|| {
        let reader = StackReader::new().unwrap();
        reader.warm_up();
        reader
    })
}

/// A stack with its names.
#[derive(Debug)]
struct Read {
    stack: Arc<Stack>,
    polled_task: Option<TaskId>,
}

fn named(reader: &StackReader, tid: u32) -> Result<Read> {
    let Captured { walk, polled_task } = reader.capture(tid)?;
    let stack = reader.name(&walk, None)?.expect("names, since it waits for them");
    Ok(Read { stack, polled_task })
}

/// Line of this file that carries a marker.
fn line_of(marker: &str) -> u32 {
    let marker = format!("// {marker}");
    let at = include_str!("threads_tests.rs").lines().position(|line| line.ends_with(&marker));
    u32::try_from(at.unwrap() + 1).unwrap()
}

/// Starts a thread and returns its id.
fn spawn(run: impl FnOnce() + Send + 'static) -> u32 {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        tell.send(thread::current_tid()).unwrap();
        run();
    });
    told.recv().unwrap()
}

/// Waits until a thread sleeps in one of these system calls.
fn until_in(tid: u32, calls: &[i64]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match where_blocked::look(tid) {
            Ok(Whereabouts::InCall { number, .. }) if calls.contains(&number) => return,
            seen if Instant::now() > deadline => panic!("thread {tid} is {seen:?}"),
            _ => std::thread::yield_now(),
        }
    }
}

/// The innermost frame in this file.
fn own_frame(stack: &Stack) -> &Frame {
    let own = |frame: &&Frame| {
        frame.location.as_ref().is_some_and(|place| place.file.ends_with("threads_tests.rs"))
    };
    stack.frames.iter().find(own).unwrap_or_else(|| panic!("{}", print(stack)))
}

fn print(stack: &Stack) -> String {
    let mut text = format!("truncated: {:?}\n", stack.truncated);
    for frame in &stack.frames {
        let place = frame.location.as_ref().map(ToString::to_string).unwrap_or_default();
        text += &format!("{:?} {} {place} {:#x}\n", frame.kind, frame.function, frame.address);
    }
    text
}

fn check(stack: &Stack, function: &str, marker: &str) {
    let frame = own_frame(stack);
    assert_eq!(&*frame.function, function, "{}", print(stack));
    assert_eq!(frame.location.as_ref().unwrap().line, line_of(marker), "{}", print(stack));
    assert_eq!(frame.kind, FrameKind::User);
    assert_eq!(stack.truncated, None, "{}", print(stack));
    // Down to where std starts every thread.
    let thread_start = |frame: &Frame| frame.function_full.contains("__rust_begin_short_backtrace");
    assert!(stack.frames.iter().any(thread_start), "{}", print(stack));
}

#[inline(never)]
fn sleeper() {
    std::thread::sleep(Duration::from_secs(3600)); // sleeps here
    // Not the same code as in other tests, or the linker makes them one.
    std::hint::black_box("sleeper");
}

#[test]
fn a_sleeping_thread_shows_the_users_line() {
    let tid = spawn(sleeper);
    until_in(tid, &[libc::SYS_clock_nanosleep, libc::SYS_nanosleep]);
    let captured = named(reader(), tid).unwrap();
    check(&captured.stack, "tests::sleeper", "sleeps here");
    assert_eq!(captured.polled_task, None);
}

/// A worker may block while a large program's debug information is being read.
#[test]
fn a_stack_is_captured_at_once_and_named_when_debug_information_is_there() {
    #[inline(never)]
    fn early() {
        std::thread::sleep(Duration::from_secs(3600)); // sleeps early
        std::hint::black_box("early");
    }
    let reader = StackReader::new().unwrap();
    let tid = spawn(early);
    until_in(tid, &[libc::SYS_clock_nanosleep, libc::SYS_nanosleep]);
    let walk = reader.capture(tid).unwrap().walk;
    assert_eq!(reader.name(&walk, Some(Instant::now())).unwrap(), None, "nothing is read yet");
    // As if a thread read it now, for as long as it likes.
    let claim = reader.guarded(|reader| Ok(reader.modules.claim())).unwrap().expect("the program");
    reader.lock().warm = true;
    let walk = reader.capture(tid).unwrap().walk;
    assert_eq!(reader.name(&walk, Some(Instant::now())).unwrap(), None, "it is being read");
    let waited = Instant::now();
    let soon = waited + Duration::from_millis(50);
    assert_eq!(reader.name(&walk, Some(soon)).unwrap(), None, "it is still being read");
    assert!(waited.elapsed() >= Duration::from_millis(50));
    let stack = std::thread::scope(|scope| {
        let asks = scope.spawn(|| reader.name(&walk, None).unwrap().expect("names"));
        reader.read(claim);
        asks.join().unwrap()
    });
    check(&stack, &own_frame(&stack).function, "sleeps early");
}

#[test]
fn a_thread_at_a_mutex_shows_the_users_line() {
    static LOCK: Mutex<()> = Mutex::new(());
    #[inline(never)]
    fn locker() {
        let guard = LOCK.lock().unwrap(); // locks here
        drop(std::hint::black_box(guard));
    }
    let held = LOCK.lock().unwrap();
    current::get().task.set(1);
    let tid = spawn(|| {
        current::get().task.set(99);
        locker();
    });
    until_in(tid, &[libc::SYS_futex]);
    let captured = named(reader(), tid).unwrap();
    drop(held);
    check(&captured.stack, "a_thread_at_a_mutex_shows_the_users_line::locker", "locks here");
    // An untimed futex restarts by itself, so the thread could be asked.
    assert_eq!(captured.polled_task, Some(TaskId(99)));
}

#[test]
fn a_timed_wait_at_a_condvar_is_not_disturbed() {
    static PAIR: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    #[inline(never)]
    fn waiter() {
        let guard = PAIR.0.lock().unwrap();
        let hour = Duration::from_secs(3600);
        let waited = PAIR.1.wait_timeout_while(guard, hour, |()| true); // waits here
        std::hint::black_box(waited.is_ok());
    }
    let tid = spawn(waiter);
    until_in(tid, &[libc::SYS_futex]);
    let captured = named(reader(), tid).unwrap();
    check(&captured.stack, "a_timed_wait_at_a_condvar_is_not_disturbed::waiter", "waits here");
    assert_eq!(captured.polled_task, None, "it was signalled");
}

#[test]
fn a_read_with_a_timeout_shows_the_users_line() {
    #[inline(never)]
    fn receiver(mut from: TcpStream) {
        let mut byte = [0];
        let read = from.read(&mut byte); // reads here
        std::hint::black_box(read.is_ok());
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(3600))).unwrap();
    let tid = spawn(move || receiver(server));
    until_in(tid, &[libc::SYS_recvfrom, libc::SYS_read]);
    let captured = named(reader(), tid).unwrap();
    check(&captured.stack, "a_read_with_a_timeout_shows_the_users_line::receiver", "reads here");
    drop(client);
}

#[test]
fn a_busy_thread_shows_the_users_function_and_its_task() {
    static STOP: AtomicBool = AtomicBool::new(false);
    #[inline(never)]
    fn spinner() {
        while !STOP.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }
    let tid = spawn(|| {
        current::get().task.set(12);
        spinner();
    });
    for _ in 0..200 {
        // On a machine with more to do than processors it may not get one in time.
        let Ok(captured) = named(reader(), tid) else { continue };
        let frame = own_frame(&captured.stack);
        if frame.function.ends_with("::spinner") {
            assert_eq!(captured.polled_task, Some(TaskId(12)));
            assert_eq!(captured.stack.truncated, None, "{}", print(&captured.stack));
            STOP.store(true, Ordering::Relaxed);
            return;
        }
    }
    panic!("never seen in the loop");
}

#[test]
fn inlined_functions_are_frames_of_their_own() {
    #[inline(always)]
    fn innermost() {
        std::thread::sleep(Duration::from_secs(3600)); // sleeps inlined
    }
    #[inline(always)]
    fn middle() {
        innermost();
    }
    #[inline(never)]
    fn outer() {
        middle();
        std::hint::black_box("outer");
    }
    let tid = spawn(outer);
    until_in(tid, &[libc::SYS_clock_nanosleep, libc::SYS_nanosleep]);
    let stack = named(reader(), tid).unwrap().stack;
    let own: Vec<(&str, bool)> = stack
        .frames
        .iter()
        .filter_map(|frame| Some((frame.function.rsplit_once("::")?.1, frame.inlined)))
        .filter(|(name, _)| ["innermost", "middle", "outer"].contains(name))
        .collect();
    assert_eq!(own, [("innermost", true), ("middle", true), ("outer", false)], "{}", print(&stack));
    assert_eq!(own_frame(&stack).location.as_ref().unwrap().line, line_of("sleeps inlined"));
}

#[test]
fn a_stack_deeper_than_the_copy_says_so() {
    #[inline(never)]
    fn recurse(depth: u32) -> u32 {
        let room = std::hint::black_box([depth; 256]);
        if depth == 0 {
            std::thread::sleep(Duration::from_secs(3600));
            return room[0];
        }
        recurse(depth - 1) + room[1]
    }
    let tid = spawn(|| {
        std::hint::black_box(recurse(400));
    });
    until_in(tid, &[libc::SYS_clock_nanosleep, libc::SYS_nanosleep]);
    let stack = named(reader(), tid).unwrap().stack;
    assert!(stack.frames.len() > 50, "{}", print(&stack));
    assert!(stack.truncated.as_ref().is_some_and(|why| why.contains("deeper")));
}

/// The heart of the matter: being watched changes nothing for the thread.
#[test]
fn a_hundred_captures_do_not_cut_poll_short() {
    let (tell, told) = mpsc::channel();
    // One of its own: the others' may be locked for long in these tests.
    let reader = StackReader::new().unwrap();
    reader.warm_up();
    let calls = [libc::SYS_poll, libc::SYS_ppoll];
    // The functions on such a stack are looked up for the first time here, which
    // without optimisation, on a busy machine, may take longer than a poll.
    let other = spawn(|| {
        crate::sys::testing::sleep_in_poll(i32::MAX);
    });
    until_in(other, &calls);
    named(&reader, other).unwrap();
    let whole = Duration::from_secs(5);
    let tid = spawn(move || {
        let before = Instant::now();
        let result = crate::sys::testing::sleep_in_poll(whole.as_millis() as i32);
        tell.send((result, before.elapsed())).unwrap();
    });
    until_in(tid, &calls);
    for _ in 0..100 {
        let stack = named(&reader, tid).unwrap().stack;
        assert_eq!(stack.truncated, None, "{}", print(&stack));
    }
    let still = where_blocked::look(tid).unwrap();
    assert!(matches!(still, Whereabouts::InCall { .. }), "captures took too long: {still:?}");
    let (result, took) = told.recv().unwrap();
    assert_eq!(result, 0, "poll was interrupted");
    assert!(took >= whole, "{took:?}");
}

#[test]
fn a_thread_that_ended_is_not_found() {
    let tid = std::thread::spawn(thread::current_tid).join().unwrap();
    while thread::name(tid).is_some() {
        std::thread::yield_now();
    }
    let error = named(reader(), tid).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&tid.to_string()));
}

#[test]
fn ones_own_stack_can_be_read() {
    let stack = named(reader(), thread::current_tid()).unwrap().stack;
    let names: Vec<&str> = stack.frames.iter().map(|frame| &*frame.function).collect();
    assert!(names.contains(&"tests::ones_own_stack_can_be_read"), "{names:?}");
}

#[test]
fn captures_survive_threads_that_panic_all_the_time() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static PANICS: AtomicU32 = AtomicU32::new(0);
    #[inline(never)]
    fn thrower(depth: u32) {
        if depth == 0 {
            std::panic::resume_unwind(Box::new(1));
        }
        thrower(depth - 1);
        std::hint::black_box(());
    }
    let tid = spawn(|| {
        while !STOP.load(Ordering::Relaxed) {
            let caught = std::panic::catch_unwind(|| thrower(20));
            PANICS.fetch_add(u32::from(caught.is_err()), Ordering::Relaxed);
        }
    });
    let (mut complete, mut taken) = (0, 0);
    for _ in 0..10_000 {
        match named(reader(), tid) {
            Ok(captured) => {
                taken += 1;
                complete += u32::from(captured.stack.truncated.is_none());
            }
            // A loaded machine may not schedule the thread in time.
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Busy), "{error}");
            }
        }
    }
    STOP.store(true, Ordering::Relaxed);
    assert!(PANICS.load(Ordering::Relaxed) > 100);
    assert!(taken > 9_900, "only {taken} captures");
    assert!(complete * 100 >= taken * 95, "only {complete} of {taken} stacks were complete");
}

#[test]
fn addresses_of_the_program_have_names() {
    let stack = named(reader(), thread::current_tid()).unwrap().stack;
    let here = |frame: &&Frame| frame.function.contains("addresses_of_the_program_have_names");
    let frame = stack.frames.iter().find(here).unwrap_or_else(|| panic!("{}", print(&stack)));
    let text = reader().symbol(frame.address).unwrap();
    assert!(text.contains("addresses_of_the_program_have_names"), "{text}");
    assert!(text.contains("threads_tests.rs:"), "{text}");
    assert_eq!(reader().symbol(1), None);
}

#[test]
fn a_reader_can_be_shared() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(reader());
    let id = reader().build_id();
    assert!(id.is_none_or(|id| id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
}
