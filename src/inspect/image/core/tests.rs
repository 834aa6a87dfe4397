use std::io::BufRead as _;

use proptest::prelude::*;

use super::*;
use crate::sys::testing::{Role, let_anybody_trace, role, say};

const ROLE: &str = "inspect::image::core::tests::play_a_role";
const WORDS: u64 = 10_000;
static CONSTANT: &str = "not dumped, because the executable has it";

#[test]
#[ignore = "started by the tests below"]
fn play_a_role() {
    if role().is_none() {
        return;
    }
    let_anybody_trace();
    let words: Vec<u64> = (0..WORDS).collect();
    std::thread::spawn(std::thread::park);
    say(&format!("{} {}", words.as_ptr() as u64, CONSTANT.as_ptr() as u64));
    let _ = std::io::stdin().lock().lines().next();
    std::process::abort();
}

/// A core dump by gdb's gcore, with the role's two addresses. `None` where
/// there is no gdb.
fn real_core(folder: &Path) -> Option<(PathBuf, u32, [u64; 2])> {
    let mut target = Role::start(ROLE, "target");
    let said = target.hear();
    let (words, constant) = said.split_once(' ').unwrap();
    let path = crate::sys::testing::core_of(&target, folder)?;
    Some((path, target.pid(), [words.parse().unwrap(), constant.parse().unwrap()]))
}

#[test]
fn a_real_core_dump_is_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let Some((path, pid, [words, constant])) = real_core(folder.path()) else { return };
    let own = std::env::current_exe().unwrap();
    let mut image = open(&path, &own).unwrap();
    let mut word = [0; 8];
    for nth in [0, 1, WORDS - 1] {
        image.memory.read(words + nth * 8, &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), nth);
    }
    let mut copied = vec![0; CONSTANT.len()];
    image.memory.read(constant, &mut copied).unwrap();
    assert_eq!(copied, CONSTANT.as_bytes());
    assert!(image.memory.writable().iter().any(|range| range.contains(&words)));
    assert_eq!(image.memory.read(8, &mut word), Err(Fault { address: 8 }));
    assert_eq!(image.pid, pid);
    assert_eq!(constant - image.bias, CONSTANT.as_ptr() as u64 - bias::own().unwrap());
    assert!(image.threads.len() >= 2);
    assert!(image.threads.iter().all(|thread| thread.thread_pointer != 0));
    // The very same program, but of another build.
    let error = open(&path, Path::new("/bin/sh")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("/bin/sh (build id"), "{error}");
    // Cut short by a full disk: what is there can be read.
    let whole = std::fs::read(&path).unwrap();
    let cut = folder.path().join("cut");
    std::fs::write(&cut, &whole[..whole.len() / 3]).unwrap();
    if let Ok(mut image) = open(&cut, &own) {
        let ranges = image.memory.writable().to_vec();
        assert!(ranges.iter().any(|range| image.memory.read(range.start, &mut word).is_err()));
    }
}

/// A core dump of one thread, two pages and two files.
fn made() -> Vec<u8> {
    fn note(kind: u32, desc: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        note.extend(5_u32.to_le_bytes());
        note.extend((desc.len() as u32).to_le_bytes());
        note.extend(kind.to_le_bytes());
        note.extend(b"CORE\0\0\0\0");
        note.extend(desc);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }
    let words =
        |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut status = vec![0; 336];
    status[32..36].copy_from_slice(&77_u32.to_le_bytes());
    for (nth, value) in [(4, 0xb0), (16, 0x40_0010), (19, 0x7000_0100), (21, 0xf5)] {
        status[112 + nth * 8..120 + nth * 8].copy_from_slice(&u64::to_le_bytes(value));
    }
    let mut info = vec![0; 136];
    info[24..28].copy_from_slice(&76_u32.to_le_bytes());
    let mut files = words(&[2, 4096, 0x40_0000, 0x40_1000, 3, 0x50_0000, 0x50_1000, 0]);
    files.extend(b"/opt/app\0/lib/some.so\0");
    let mut notes = note(1, &status);
    notes.extend(note(3, &info));
    notes.extend(note(6, &words(&[3, 1, 9, 0x40_0010, 0, 0])));
    notes.extend(note(0x4649_4c45, &files));
    let mut core = b"\x7fELF\x02\x01\x01".to_vec();
    core.resize(16, 0);
    core.extend([4, 0, 62, 0, 1, 0, 0, 0]);
    core.extend(words(&[0, 64, 0]));
    core.extend([0, 0, 0, 0, 64, 0, 56, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let notes_at = 64 + 3 * 56;
    let page_at = notes_at + notes.len() as u64;
    let mut segment = |kind: u32, flags: u32, rest: &[u64]| {
        core.extend(kind.to_le_bytes());
        core.extend(flags.to_le_bytes());
        core.extend(words(rest));
    };
    segment(4, 4, &[notes_at, 0, 0, notes.len() as u64, 0, 4]);
    segment(1, 6, &[page_at, 0x7000_0000, 0, 4096, 4096, 4096]);
    segment(1, 5, &[page_at, 0x40_0000, 0, 0, 4096, 4096]);
    core.extend(notes);
    core.extend((0..4096).map(|at| (at % 251) as u8));
    core
}

#[test]
fn all_that_a_core_dump_tells_is_taken() {
    let core = made();
    let parsed = parse::parse(&core).unwrap();
    assert_eq!((parsed.pid, parsed.entry), (76, Some(0x40_0010)));
    let thread = &parsed.threads[0];
    let registers = thread.registers.unwrap();
    assert_eq!((thread.tid, thread.thread_pointer), (77, 0xf5));
    assert_eq!((registers.ip, registers.sp, registers.bp), (0x40_0010, 0x7000_0100, Some(0xb0)));
    assert_eq!(named(&parsed, 0x40_0010).as_deref(), Some(Path::new("/opt/app")));
    assert_eq!(parsed.mappings[0].file_offset, 3 * 4096);
    // A file that no segment is for.
    let undumped = &parsed.mappings[1];
    assert_eq!(undumped.range, 0x50_0000..0x50_1000);
    assert!(matches!(&undumped.backing, Backing::File { path, .. } if path.ends_with("some.so")));
    let writable = 0x7000_0000..0x7000_1000;
    assert_eq!(maps::writable(&parsed.mappings), [writable]);
    let mut memory = Dumped::new(core, parsed.pieces);
    let mut bytes = [0; 4];
    memory.read(0x7000_0ffc, &mut bytes).unwrap();
    assert_eq!(bytes, [4092, 4093, 4094, 4095].map(|at| (at % 251) as u8));
    let past = memory.read(0x7000_0ffd, &mut bytes);
    assert_eq!(past, Err(Fault { address: 0x7000_1000 }));
    // Not dumped.
    assert_eq!(memory.read(0x40_0000, &mut bytes), Err(Fault { address: 0x40_0000 }));
}

#[test]
fn what_is_no_core_dump_says_what_it_is() {
    let own = std::env::current_exe().unwrap();
    for (bytes, words) in [
        (&b"\x28\xb5\x2f\xfdpacked"[..], "zstd -d"),
        (b"just text", "not a readable core dump"),
        (&made()[..200], "not a readable core dump"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let error = open(file.path(), &own).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = open(&own, &own).unwrap_err();
    assert!(error.to_string().contains("not a core dump"), "{error}");
    let error = open(Path::new("/no/such/core"), &own).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// The seeds of `fuzz/fuzz_targets/core.rs` and whatever it found once.
#[test]
fn the_corpus_is_harmless_and_has_a_whole_core_dump() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/core");
    assert_eq!(std::fs::read(folder.join("one-thread")).unwrap(), made());
    for entry in std::fs::read_dir(folder).unwrap() {
        try_bytes(&std::fs::read(entry.unwrap().path()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_core_dumps_are_harmless(
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut: Option<prop::sample::Index>,
    ) {
        let mut core = made();
        // Headers and notes, where damage matters.
        let head = core.len() - 4096;
        for (at, byte) in hits {
            core[at.index(head)] = byte;
        }
        if let Some(cut) = cut {
            core.truncate(cut.index(head));
        }
        try_bytes(&core);
    }

    #[test]
    fn words_of_headers_may_hold_anything(
        hits in proptest::collection::vec((0_usize..60, prop_oneof![
            any::<u64>(),
            Just(u64::MAX),
            0..8192_u64,
        ]), 1..6),
    ) {
        let mut core = made();
        for (at, word) in hits {
            core[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        try_bytes(&core);
    }
}
