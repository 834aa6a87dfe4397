//! A program whose sections of debug information are damaged, one or several,
//! as both readers see it: refused or read, never a panic that escapes, and
//! soon.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use proptest::prelude::*;

use super::layout::{self, Options};
use super::symbols::{Symbols, guarded};

const PROGRAM: &str = "
mod runtime { pub mod task { pub mod raw {
    #[inline(never)]
    pub fn poll<T, S>(task: &T, of: &S) { std::hint::black_box((task, of)); }
}}}
async fn tick(left: u32) -> u32 { std::future::ready(left).await }
struct Future { left: u32 }
struct Scheduler { id: u64 }
fn main() {
    let task = Future { left: std::process::id() };
    runtime::task::raw::poll::<Future, Scheduler>(&task, &Scheduler { id: 7 });
    std::hint::black_box(Box::pin(tick(task.left)) as std::pin::Pin<Box<dyn std::future::Future<Output = u32>>>);
}
";

/// What damage hits. Version 5 has all of them.
const SECTIONS: [&str; 9] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
];

/// Longer than any reader takes in a slow build on a busy machine; a loop that
/// hangs on a damaged length takes far more.
const SOON: Duration = Duration::from_secs(30);

struct Program {
    bytes: Vec<u8>,
    sections: Vec<Range<usize>>,
    functions: Vec<u64>,
}

static PROGRAM_5: LazyLock<Program> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("app.rs"), folder.path().join("app"));
    fs::write(&source, PROGRAM).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["-g", "--edition=2021", "--crate-name=tokio", "-Cdwarf-version=5", "-Copt-level=1"])
        .arg("-o")
        .args([&program, &source])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::read(&program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let range = |name| {
        let (start, len) = file.section_by_name(name)?.file_range()?;
        Some(start as usize..(start + len) as usize)
    };
    let sections: Vec<_> =
        SECTIONS.into_iter().filter_map(range).filter(|it| !it.is_empty()).collect();
    assert!(sections.len() >= 8, "{sections:?}");
    let ours =
        |symbol: &object::Symbol<'_, '_>| symbol.name().is_ok_and(|it| it.contains("5tokio"));
    let functions = file.symbols().filter(ours).map(|symbol| symbol.address()).collect();
    Program { sections, functions, bytes }
});

/// Looks everything up that a dump of the program would.
fn read(program: &Path) {
    if let Ok(mut symbols) = Symbols::open(program, true) {
        for &address in &PROGRAM_5.functions {
            let _ = guarded(program, || symbols.frames(address + 1));
        }
    }
    let Ok(mut opened) = layout::open(program, &Options::default()) else { return };
    for &poll in opened.layouts.task_polls().iter() {
        for task in opened.layouts.task(poll).iter() {
            let _ = opened.layouts.ty(task.future);
            opened.layouts.polled(task.future);
        }
    }
    opened.layouts.context();
}

#[test]
fn the_program_is_read_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app");
    fs::write(&file, &PROGRAM_5.bytes).unwrap();
    let mut symbols = Symbols::open(&file, true).unwrap();
    let places = PROGRAM_5.functions.iter().map(|&at| symbols.frames(at + 1));
    assert!(places.filter(|frames| frames[0].location.is_some()).count() > 2);
    let mut opened = layout::open(&file, &Options::default()).unwrap();
    assert_eq!(opened.layouts.task_polls().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn damaged_sections_are_read_or_refused(
        hits in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 1_usize..64),
            1..12,
        ),
    ) {
        let mut bytes = PROGRAM_5.bytes.clone();
        for (which, at, byte, len) in hits {
            let section = &PROGRAM_5.sections[which.index(PROGRAM_5.sections.len())];
            let start = section.start + at.index(section.len());
            let end = (start + len).min(section.end);
            bytes[start..end].fill(byte);
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app");
        fs::write(&file, &bytes).unwrap();
        let began = Instant::now();
        read(&file);
        prop_assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
}
