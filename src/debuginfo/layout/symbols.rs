//! Tasks by what the linker's symbols alone say of them, for programs with line
//! tables only or with no debug information at all.
//!
//! ```text
//! .data.rel.ro          symbols
//!   vtable:  poll ─────▶ tokio::runtime::task::raw::poll        (finds the vtable)
//!            schedule
//!            dealloc ──▶ ... calls ... drop_in_place<Cell<F, S>>  (tells F and S)
//! ```
//!
//! The older of rustc's two manglings leaves generics out of names, but for
//! drop glue, whose name is the type's. A task's `dealloc` drops its cell, so
//! the first such function that it calls, directly or through others, has the
//! name of the future. The newer mangling has it in `poll` itself.
//!
//! Calls are found without a disassembler: four bytes behind a call's or a
//! jump's opcode that lead to the very start of a function, or to a pointer to
//! one, are one.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use object::read::ReadRef;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};

use super::polled::split_arguments;

/// In the mangled names of a task's `poll`, legacy and v0.
const POLL: &[u8] = b"4task3raw4poll";
/// Its path, demangled.
const POLL_PATH: &str = "tokio::runtime::task::raw::poll";
/// Drop glue of a task's cell and of its parts.
const DROP_PATH: &str = "core::ptr::drop_in_place<tokio::runtime::task::core::";
const DROP_PATH_V0: &str = "core::ptr::drop_in_place::<tokio::runtime::task::core::";
/// Of a vtable, where `dealloc` is.
const DEALLOC: u64 = 2 * 8;
/// Functions that one `dealloc` may lead through, and bytes of code of each.
const FUNCTIONS: usize = 200;
const CODE: usize = 64 << 10;
/// Tasks' functions believed; large programs have some thousands.
const POLLS: usize = 1 << 16;
/// Symbols and relocations believed.
const SYMBOLS: usize = 16 << 20;

/// A task that symbols tell of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Its `poll` function as linked.
    pub(super) poll: u64,
    pub(super) future: String,
    pub(super) scheduler: String,
}

/// The tasks of a program, by `poll` function. `symbols`: the file that has
/// them, the program itself or what was stripped from it.
pub(super) fn tasks<'a>(program: &[u8], symbols: impl ReadRef<'a>) -> Vec<Named> {
    let (Ok(program), Ok(symbols)) = (object::File::parse(program), object::File::parse(symbols))
    else {
        return Vec::new();
    };
    let functions = Functions::of(&symbols);
    if functions.polls.is_empty() {
        return Vec::new();
    }
    let code = program
        .section_by_name(".text")
        .and_then(|text| Some(Code { at: text.address(), bytes: text.data().ok()? }));
    let pointers = pointers(&program);
    let deallocs = deallocs(&program, &pointers, &functions.polls);
    // One that serves several kinds of tasks was merged: it tells one name of many.
    let mut served: HashMap<u64, usize> = HashMap::new();
    deallocs.values().for_each(|dealloc| *served.entry(*dealloc).or_default() += 1);
    let mut known: HashMap<u64, Option<(String, String)>> = HashMap::new();
    let mut tasks = Vec::with_capacity(functions.polls.len());
    for (&poll, generics) in &functions.polls {
        let of_drop = || {
            let dealloc = deallocs.get(&poll).filter(|dealloc| served[dealloc] == 1)?;
            let found = known
                .entry(*dealloc)
                .or_insert_with(|| functions.dropped(&code, &pointers, *dealloc));
            found.clone()
        };
        let (future, scheduler) = generics.clone().or_else(of_drop).unwrap_or_else(|| {
            // Nothing tells its name: tasks of one kind are still seen together.
            (format!("{POLL_PATH} at {poll:#x}"), String::new())
        });
        tasks.push(Named { poll, future, scheduler });
    }
    tasks
}

struct Code<'a> {
    at: u64,
    bytes: &'a [u8],
}

struct Functions<'a> {
    /// Where each begins, its size and mangled name.
    all: BTreeMap<u64, (u64, &'a [u8])>,
    /// Each task's `poll`, with its generics if its name has them.
    polls: BTreeMap<u64, Option<(String, String)>>,
}

impl<'a> Functions<'a> {
    fn of(file: &object::File<'a, impl ReadRef<'a>>) -> Self {
        let mut found = Self { all: BTreeMap::new(), polls: BTreeMap::new() };
        for symbol in file.symbols().take(SYMBOLS) {
            let Ok(name) = symbol.name_bytes() else { continue };
            if symbol.kind() != SymbolKind::Text || symbol.address() == 0 {
                continue;
            }
            found.all.insert(symbol.address(), (symbol.size(), name));
            if contains(name, POLL)
                && found.polls.len() < POLLS
                && let Some(name) = demangled(name)
                && let Some(rest) = name.strip_prefix(POLL_PATH)
            {
                let generics = rest.strip_prefix("::<").and_then(two_arguments);
                if rest.is_empty() || generics.is_some() {
                    found.polls.insert(symbol.address(), generics);
                }
            }
        }
        found
    }

    /// The nearest drop glue of a task's cell that a function leads to: the
    /// future and the scheduler in its name.
    fn dropped(
        &self,
        code: &Option<Code<'_>>,
        pointers: &HashMap<u64, u64>,
        from: u64,
    ) -> Option<(String, String)> {
        let code = code.as_ref()?;
        let mut seen = HashSet::from([from]);
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            let &(size, name) = self.all.get(&at)?;
            if let Some(found) = cell_in(name) {
                return Some(found);
            }
            let start = usize::try_from(at.checked_sub(code.at)?).ok()?;
            let len = usize::try_from(size).unwrap_or(CODE).min(CODE);
            let Some(bytes) = code.bytes.get(start..) else { continue };
            // One byte more, for a call that is the last thing in it.
            let bytes = &bytes[..(len + 1).min(bytes.len())];
            for (offset, window) in bytes.windows(6).enumerate() {
                let (distance, len) = match *window {
                    [0xe8 | 0xe9, a, b, c, d, _] => ([a, b, c, d], 5),
                    // Through a pointer: functions of other crates.
                    [0xff, 0x15 | 0x25, a, b, c, d] => ([a, b, c, d], 6),
                    _ => continue,
                };
                let next = at.wrapping_add(offset as u64 + len);
                let mut to = next.wrapping_add_signed(i32::from_le_bytes(distance).into());
                if len == 6 {
                    to = pointers.get(&to).copied().unwrap_or(0);
                }
                if seen.len() < FUNCTIONS && self.all.contains_key(&to) && seen.insert(to) {
                    queue.push_back(to);
                }
            }
        }
        None
    }
}

/// The pointers in a program that can be loaded anywhere: it has them in
/// relocations.
fn pointers(program: &object::File<'_>) -> HashMap<u64, u64> {
    let all = program.dynamic_relocations().into_iter().flatten().take(SYMBOLS);
    all.filter(|(_, relocation)| relocation.target() == RelocationTarget::Absolute)
        .map(|(at, relocation)| (at, relocation.addend().cast_unsigned()))
        .collect()
}

/// The `dealloc` beside each `poll` in a vtable.
fn deallocs(
    program: &object::File<'_>,
    pointers: &HashMap<u64, u64>,
    polls: &BTreeMap<u64, Option<(String, String)>>,
) -> HashMap<u64, u64> {
    let mut found = HashMap::new();
    for (&at, poll) in pointers.iter().filter(|(_, to)| polls.contains_key(to)) {
        if let Some(&dealloc) = pointers.get(&at.wrapping_add(DEALLOC)) {
            found.insert(*poll, dealloc);
        }
    }
    // In others they are in place.
    for name in [".data.rel.ro", ".rodata"] {
        let data = program.section_by_name(name).and_then(|section| section.data().ok());
        let words: Vec<u64> = data
            .unwrap_or_default()
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
            .collect();
        for (index, poll) in words.iter().enumerate().filter(|(_, word)| polls.contains_key(word)) {
            if let Some(&dealloc) = words.get(index + DEALLOC as usize / 8) {
                found.entry(*poll).or_insert(dealloc);
            }
        }
    }
    found
}

/// Future and scheduler in the name of drop glue.
fn cell_in(mangled: &[u8]) -> Option<(String, String)> {
    if !contains(mangled, b"drop_in_place") || !contains(mangled, b"task") {
        return None;
    }
    let name = demangled(mangled)?;
    let rest = name.strip_prefix(DROP_PATH).or_else(|| name.strip_prefix(DROP_PATH_V0))?;
    let (_, rest) = rest.strip_suffix('>')?.split_once('<')?;
    let inner = rest.strip_suffix('>')?;
    let arguments = split_arguments(inner);
    let (future, scheduler) = (arguments.first()?, arguments.get(1).unwrap_or(&""));
    Some((tidied(future), tidied(scheduler)))
}

fn two_arguments(rest: &str) -> Option<(String, String)> {
    match split_arguments(rest.strip_suffix('>')?)[..] {
        [future, scheduler] => Some((tidied(future), tidied(scheduler))),
        _ => None,
    }
}

/// `{{closure}}`, as the older mangling has it, is `{closure}` elsewhere.
fn tidied(name: &str) -> String {
    name.replace("{{", "{").replace("}}", "}")
}

fn demangled(name: &[u8]) -> Option<String> {
    addr2line::demangle(std::str::from_utf8(name).ok()?, addr2line::gimli::DW_LANG_Rust)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// This test program has tasks of its own, and one for sure.
    fn spawned() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { tokio::spawn(std::future::ready(7)).await.unwrap() });
    }

    #[test]
    fn our_own_tasks_have_the_names_of_their_futures() {
        spawned();
        let program = std::fs::read("/proc/self/exe").unwrap();
        let tasks = tasks(&program, &program[..]);
        // `spawn` is made for each scheduler that there is.
        let ready = tasks.iter().filter(|task| task.future == "core::future::ready::Ready<i32>");
        let schedulers: Vec<&str> = ready.map(|task| &*task.scheduler).collect();
        let here = schedulers.iter().any(|name| name.contains("current_thread::Handle"));
        assert!(here, "{schedulers:?} of {:#?}", &tasks[..tasks.len().min(20)]);
        let unnamed = tasks.iter().filter(|task| task.future.starts_with(POLL_PATH)).count();
        assert!(unnamed * 20 < tasks.len(), "{unnamed} of {}", tasks.len());
    }

    /// Two programs of some bytes each: one with its pointers in relocations,
    /// one with them in place.
    #[test]
    fn a_vtable_leads_to_the_name_that_its_poll_lacks() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/symbols");
        for name in ["anywhere", "fixed"] {
            let program = std::fs::read(format!("{corpus}/{name}")).unwrap();
            let [task] = &tasks(&program, &program[..])[..] else { panic!("{name}: one task") };
            let names = (&*task.future, &*task.scheduler);
            assert_eq!(names, ("app::watch::{closure}", "alloc::sync::Arc<S>"), "{name}");
        }
    }

    /// What a fuzzer once found, or began with: none of it panics.
    #[test]
    fn the_whole_corpus_is_read_or_refused() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/symbols");
        let mut read = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            let program = std::fs::read(entry.unwrap().path()).unwrap();
            crate::debuginfo::layout::damage::any_program(&program);
            read += 1;
        }
        assert!(read >= 2, "{read} files");
    }

    #[test]
    fn names_of_drop_glue_tell_future_and_scheduler() {
        let mangled = b"_ZN4core3ptr171drop_in_place$LT$tokio..runtime..task..core..Cell$LT$app\
            ..watch..$u7b$$u7b$closure$u7d$$u7d$$C$alloc..sync..Arc$LT$tokio..task..local..Shared\
            $GT$$GT$$GT$17h18b85ba052e6cfb2E";
        let mangled = mangled.to_vec();
        let length = mangled.len() - b"_ZN4core3ptr171".len() - b"17h18b85ba052e6cfb2E".len();
        let text = String::from_utf8(mangled).unwrap().replace("171", &length.to_string());
        let expected = (
            "app::watch::{closure}".to_owned(),
            "alloc::sync::Arc<tokio::task::local::Shared>".to_owned(),
        );
        assert_eq!(cell_in(text.as_bytes()), Some(expected));
        assert_eq!(cell_in(b"_ZN4core3ptr13drop_in_place17h18b85ba052e6cfb2E"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn damaged_headers_never_panic(
            hits in prop::collection::vec((0_usize..4096, any::<u8>()), 1..20),
        ) {
            use std::io::Read as _;
            let mut head = Vec::new();
            let file = std::fs::File::open("/proc/self/exe").unwrap();
            file.take(1 << 20).read_to_end(&mut head).unwrap();
            for (at, byte) in hits {
                head[at] = byte;
            }
            crate::debuginfo::layout::damage::any_program(&head);
        }
    }
}
