//! A program whose sections of debug information are damaged, one or several,
//! as both readers see it: refused or read, never a panic that escapes, and
//! soon.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use proptest::prelude::*;

use super::layout::{self, Options};
use super::small_program::PROGRAM;
use super::symbols::{Symbols, guarded};

/// What damage hits. Version 5 has all of them, in one file or in two.
const SECTIONS: [&str; 15] = [
    ".debug_abbrev",
    ".debug_abbrev.dwo",
    ".debug_addr",
    ".debug_aranges",
    ".debug_cu_index",
    ".debug_info",
    ".debug_info.dwo",
    ".debug_line",
    ".debug_line_str",
    ".debug_rnglists",
    ".debug_rnglists.dwo",
    ".debug_str",
    ".debug_str.dwo",
    ".debug_str_offsets",
    ".debug_str_offsets.dwo",
];

/// Longer than any reader takes in a slow build on a busy machine; a loop that
/// hangs on a damaged length takes far more.
const SOON: Duration = Duration::from_secs(30);

struct Program {
    files: Vec<File>,
    functions: Vec<u64>,
}

#[derive(Clone)]
struct File {
    name: &'static str,
    bytes: Vec<u8>,
    /// What there is to damage.
    sections: Vec<Range<usize>>,
}

static WHOLE: LazyLock<Program> = LazyLock::new(|| Program::build("off", &[("app", 8)]));
static SPLIT: LazyLock<Program> =
    LazyLock::new(|| Program::build("packed", &[("app", 5), ("app.dwp", 5)]));

impl Program {
    /// `names`: its files, and how many sections each has to have.
    fn build(split: &str, names: &[(&'static str, usize)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("app.rs"), folder.path().join("app"));
        fs::write(&source, PROGRAM).unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc)
            .args(["-g", "--edition=2021", "--crate-name=tokio", "-Copt-level=1"])
            .args(["-Cdwarf-version=5", &format!("-Csplit-debuginfo={split}"), "-o"])
            .args([&program, &source])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut functions = Vec::new();
        let files = names.iter().map(|&(name, least)| {
            let bytes = fs::read(folder.path().join(name)).unwrap();
            let file = object::File::parse(&*bytes).unwrap();
            let range = |name| {
                let (start, len) = file.section_by_name(name)?.file_range()?;
                Some(start as usize..(start + len) as usize)
            };
            let sections: Vec<_> =
                SECTIONS.into_iter().filter_map(range).filter(|it| !it.is_empty()).collect();
            assert!(sections.len() >= least, "{name}: {sections:?}");
            let ours = |symbol: &object::Symbol<'_, '_>| {
                symbol.name().is_ok_and(|it| it.contains("5tokio"))
            };
            functions.extend(file.symbols().filter(ours).map(|symbol| symbol.address()));
            File { name, bytes, sections }
        });
        Self { files: files.collect(), functions }
    }

    fn write(&self, folder: &Path) -> PathBuf {
        for file in &self.files {
            fs::write(folder.join(file.name), &file.bytes).unwrap();
        }
        folder.join("app")
    }

    /// Writes it, damaged, and looks everything up that a dump of it would.
    fn survives(&self, hits: &[Hit]) -> Duration {
        let mut files = self.files.clone();
        for (which, at, byte, len) in hits {
            let sections: Vec<_> = (0..files.len())
                .flat_map(|file| {
                    files[file].sections.iter().map(move |section| (file, section.clone()))
                })
                .collect();
            let (file, section) = &sections[which.index(sections.len())];
            let start = section.start + at.index(section.len());
            let end = (start + len).min(section.end);
            files[*file].bytes[start..end].fill(*byte);
        }
        let folder = tempfile::tempdir().unwrap();
        let damaged = Self { files, functions: self.functions.clone() };
        let program = damaged.write(folder.path());
        let began = Instant::now();
        read(&program, &self.functions);
        began.elapsed()
    }
}

/// Which section, where in it, and which byte how often.
type Hit = (prop::sample::Index, prop::sample::Index, u8, usize);

fn hits() -> impl Strategy<Value = Vec<Hit>> {
    let hit =
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 1..64_usize);
    prop::collection::vec(hit, 1..12)
}

/// Looks everything up that a dump of the program would.
fn read(program: &Path, functions: &[u64]) {
    if let Ok(mut symbols) = Symbols::open(program, true) {
        for &address in functions {
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
    for program in [&WHOLE, &SPLIT] {
        let folder = tempfile::tempdir().unwrap();
        let file = program.write(folder.path());
        let mut symbols = Symbols::open(&file, true).unwrap();
        let places = program.functions.iter().map(|&at| symbols.frames(at + 1));
        assert!(places.filter(|frames| frames[0].location.is_some()).count() > 2);
        let mut opened = layout::open(&file, &Options::default()).unwrap();
        assert_eq!(opened.layouts.task_polls().len(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn damaged_sections_are_read_or_refused(hits in hits()) {
        let took = WHOLE.survives(&hits);
        prop_assert!(took < SOON, "{took:?}");
    }

    #[test]
    fn damaged_split_sections_are_read_or_refused(hits in hits()) {
        let took = SPLIT.survives(&hits);
        prop_assert!(took < SOON, "{took:?}");
    }
}
