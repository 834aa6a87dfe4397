use std::io::BufRead as _;

use super::*;
use crate::inspect::image::Memory;
use crate::sys::testing::{Role, let_anybody_trace, role, say};

const ROLE: &str = "inspect::image::other::tests::play_a_role";
const WORDS: u64 = 100_000;
static CONSTANT: &str = "found in read-only data";
static VTABLE: &(dyn std::fmt::Debug + Sync) = &7_u32;

/// Holds words at a known place, and changes them when told to.
fn target() {
    let_anybody_trace();
    let mut words: Vec<u64> = (0..WORDS).collect();
    // Memory that is mapped and never touched.
    let untouched = Vec::<u8>::with_capacity(256 << 20);
    let parked = std::thread::Builder::new().name("parked-by-name".to_owned());
    let (tell, told) = std::sync::mpsc::channel();
    let park = move || {
        tell.send(()).unwrap();
        std::thread::park();
    };
    parked.spawn(park).unwrap();
    told.recv().unwrap();
    say(&format!(
        "{} {} {} {} {}",
        words.as_ptr() as u64,
        untouched.as_ptr() as u64,
        CONSTANT.as_ptr() as u64,
        (&raw const VTABLE) as u64,
        target as *const () as u64,
    ));
    for line in std::io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "change" => words.fill(u64::MAX),
            "exit" => return,
            "exec" => become_the_same(),
            _ => {}
        }
        say(&words[1].to_string());
    }
}

/// Begins the same program anew, in the same role.
fn become_the_same() -> ! {
    use std::os::unix::process::CommandExt as _;
    let error =
        std::process::Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).exec();
    panic!("{error}")
}

#[test]
#[ignore = "started by the tests below"]
fn play_a_role() {
    if role().is_some() {
        target();
    }
}

struct Places {
    words: u64,
    untouched: u64,
    constant: u64,
    vtable: u64,
    function: u64,
}

fn take(pid: u32, limits: Limits) -> Result<Image> {
    super::take(&Program::of(pid)?, limits)
}

fn start_target() -> (Role, Places) {
    let mut target = Role::start(ROLE, "target");
    let said = target.hear();
    let mut numbers = said.split(' ').map(|number| number.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    let places = Places {
        words: next(),
        untouched: next(),
        constant: next(),
        vtable: next(),
        function: next(),
    };
    (target, places)
}

fn word(memory: &mut (dyn Memory + Send), at: u64) -> u64 {
    let mut word = [0; 8];
    memory.read(at, &mut word).unwrap();
    u64::from_le_bytes(word)
}

#[test]
fn the_image_is_of_the_instant_and_complete() {
    let (mut target, places) = start_target();
    let mut image = take(target.pid(), Limits::default()).unwrap();
    assert_eq!(target.ask("change"), u64::MAX.to_string());
    let memory = &mut *image.memory;
    for nth in [0, 1, 511, WORDS - 1] {
        assert_eq!(word(memory, places.words + nth * 8), nth);
    }
    let mut all = vec![0; WORDS as usize * 8];
    memory.read(places.words, &mut all).unwrap();
    assert!((0..).zip(all.as_chunks::<8>().0).all(|(nth, word)| u64::from_le_bytes(*word) == nth));
    assert_eq!(word(memory, places.untouched + (100 << 20)), 0);
    let mut constant = vec![0; CONSTANT.len()];
    memory.read(places.constant, &mut constant).unwrap();
    assert_eq!(constant, CONSTANT.as_bytes());
    // A fat pointer in relocated read-only data: data, then vtable, whose
    // second and third words are size and alignment.
    let data = word(memory, places.vtable);
    let vtable = word(memory, places.vtable + 8);
    assert_eq!(word(memory, data) as u32, 7);
    assert_eq!([word(memory, vtable + 8), word(memory, vtable + 16)], [4, 4]);
    assert!(memory.writable().iter().any(|range| range.contains(&places.words)));
    assert!(memory.read(8, &mut [0]).is_err());
    assert!(memory.read(u64::MAX - 4, &mut [0; 16]).is_err());
    // The same executable as ours.
    let own = target_address();
    assert_eq!(places.function.wrapping_sub(image.bias), own);
    let parked = image.threads.iter().find(|thread| thread.name == "parked-by-name").unwrap();
    assert!(parked.registers.is_some() && parked.thread_pointer != 0);
    assert!(image.frozen_ns > 0 && image.taken_ns <= clock::monotonic_ns());
    assert_eq!(image.pid, target.pid());
}

fn target_address() -> u64 {
    (target as *const () as u64).wrapping_sub(crate::inspect::image::bias::own().unwrap())
}

#[test]
fn only_what_is_there_is_copied() {
    let (target, _) = start_target();
    let limits = Limits { bytes: 200 << 20, ..Limits::default() };
    take(target.pid(), limits).unwrap();
}

#[test]
fn a_stopped_process_can_be_copied_and_stays_stopped() {
    let (mut target, places) = start_target();
    target.signal(libc::SIGSTOP);
    target.await_state(&['T']);
    let mut image = take(target.pid(), Limits::default()).unwrap();
    assert_eq!(word(&mut *image.memory, places.words + 8), 1);
    target.await_state(&['T']);
    target.signal(libc::SIGCONT);
    assert_eq!(target.ask("get"), "1");
}

#[test]
fn limits_end_in_errors_and_the_target_goes_on() {
    let (mut target, _) = start_target();
    let tiny = Limits { bytes: 1 << 20, ..Limits::default() };
    let error = take(target.pid(), tiny).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("the limit for a copy is 1 MiB"), "{error}");
    assert!(error.to_string().contains("--max-memory"), "{error}");
    let hasty = Limits { frozen: Duration::ZERO, ..Limits::default() };
    let error = take(target.pid(), hasty).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(target.ask("get"), "1");
}

/// Even the same program has its memory elsewhere, and other tasks in it.
#[test]
fn a_process_that_begins_a_program_anew_is_not_taken_for_what_it_was() {
    let (mut target, _) = start_target();
    let program = Program::of(target.pid()).unwrap();
    program.check().unwrap();
    super::take(&program, Limits::default()).unwrap();
    target.ask("exec");
    for error in
        [program.check().unwrap_err(), super::take(&program, Limits::default()).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("attach again"), "{error}");
    }
    take(target.pid(), Limits::default()).unwrap();
}

/// As if its number had gone to a later process.
#[test]
fn a_process_that_began_at_another_time_is_another() {
    let (target, _) = start_target();
    let mut program = Program::of(target.pid()).unwrap();
    program.began_earlier();
    let error = program.check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("has ended"), "{error}");
}

#[test]
fn a_process_that_has_ended_says_so() {
    let (mut target, _) = start_target();
    let pid = target.pid();
    use std::io::Write as _;
    writeln!(target.child.stdin.as_mut().unwrap(), "exit").unwrap();
    target.await_state(&['Z']);
    let error = take(pid, Limits::default()).unwrap_err();
    assert!(error.to_string().contains("its parent has not waited"), "{error}");
    assert!(!refused::lives(pid.cast_signed()) && refused::lives(std::process::id().cast_signed()));
    drop(target);
    let error = take(pid, Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().starts_with("there is no process"), "{error}");
}

#[test]
fn a_process_that_is_being_traced_says_by_whom() {
    let (target, _) = start_target();
    let own = std::process::id();
    let (tell, told) = std::sync::mpsc::channel();
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let pid = target.pid();
    let tracer = std::thread::spawn(move || {
        let _frozen = Frozen::freeze(pid.cast_signed(), STOPPING).unwrap();
        tell.send(()).unwrap();
        let _ = left.recv();
    });
    told.recv().unwrap();
    let error = take(pid, Limits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(&format!("traced by process {own}")), "{error}");
    drop(leave);
    tracer.join().unwrap();
}
