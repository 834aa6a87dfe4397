//! Native stacks of the threads of an image: what each was doing at that
//! instant, functions and lines.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{Image, ImageThread, Memory, Origin, build_id};
use crate::debuginfo::elf::Elf;
use crate::debuginfo::symbols;
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::maps::{self, Backing, Mapping};
use crate::inspect::modules::{self, Modules};
use crate::inspect::unwind::Walker;
use crate::model::Stack;
use crate::sys::registers::Registers;

/// Threads whose stacks are read; tokio's blocking pool alone may have 512.
const MAX_THREADS: usize = 4096;
/// The most of a stack that is looked at.
const MAX_STACK: u64 = 1 << 20;

/// Following them takes no longer. It is a matter of milliseconds, but for the
/// first time, when debug information is read.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads native stacks; keeps unwind tables and debug information from one
/// image of a process to the next.
///
/// Unwind tables have programs in them, and those of a foreign file need not
/// end. So they run in a thread of their own, and once that is not back in
/// time, it keeps the reader: there are no more stacks of this process.
pub struct NativeStacks {
    /// `None` once it did not come back.
    reader: Option<Reader>,
    /// Whose they are.
    origin: Origin,
    patience: Duration,
}

struct Reader {
    modules: Modules,
    walker: Walker,
    executable: PathBuf,
}

/// A thread's stack as bytes.
struct Copied {
    tid: i32,
    registers: Registers,
    bytes: Vec<u8>,
}

impl NativeStacks {
    /// For images of that origin. Nothing is read yet.
    pub fn new(origin: &Origin) -> Self {
        let origin = Origin { mappings: Vec::new(), ..origin.clone() };
        Self { reader: Some(Reader::new(&origin)), origin, patience: PATIENCE }
    }

    /// Stacks of the threads that are wanted and whose registers are known, by
    /// kernel id, in the order of `image.threads`; 4096 at most.
    ///
    /// # Errors
    /// `Internal` if a parser of foreign bytes panicked; `Timeout` if it does
    /// not come to an end, this time or at an earlier one.
    pub fn read(
        &mut self,
        image: &mut Image,
        wanted: impl Fn(i32) -> bool,
    ) -> Result<Vec<(i32, Arc<Stack>)>> {
        let mut reader = self.reader.take().ok_or_else(endless)?;
        let copied = match reader.guarded(|reader| reader.copy(image, wanted)) {
            Ok(copied) => copied,
            Err(error) => {
                self.start_afresh();
                return Err(error);
            }
        };
        if copied.is_empty() {
            self.reader = Some(reader);
            return Ok(Vec::new());
        }
        let (tell, told) = mpsc::sync_channel(1);
        let follow = move || {
            let stacks = reader.guarded(|reader| reader.follow(copied));
            // An error: nobody waits any more.
            let _ = tell.send((reader, stacks));
        };
        let worker = std::thread::Builder::new().name("taskprof-stacks".to_owned());
        if let Err(error) = worker.spawn(follow) {
            self.start_afresh();
            return Err(Error::io("starting the thread that follows stacks", error));
        }
        let (reader, stacks) = told.recv_timeout(self.patience).map_err(|_| endless())?;
        self.reader = Some(reader);
        if stacks.is_err() {
            self.start_afresh();
        }
        stacks
    }

    /// Function and `file:line` at an address of the program as linked, once
    /// an image was read.
    pub fn symbol(&mut self, linked: u64) -> Option<String> {
        let reader = self.reader.as_mut()?;
        let symbol = reader.guarded(|Reader { modules, .. }| {
            let frames = modules.frames(modules.main_address(linked)?);
            Some(modules::place(frames.first()?))
        });
        if symbol.is_err() {
            self.start_afresh();
        }
        symbol.ok().flatten()
    }

    /// Half-changed caches are not to be trusted.
    fn start_afresh(&mut self) {
        self.reader = Some(Reader::new(&self.origin));
    }
}

fn endless() -> Error {
    Error::new(ErrorKind::Timeout, "the unwind tables of the program come to no end")
}

impl Reader {
    fn new(origin: &Origin) -> Self {
        Self {
            modules: Modules::of(origin.clone()),
            walker: Walker::new(),
            executable: origin.executable.clone(),
        }
    }

    fn guarded<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> Result<T> {
        let what = self.executable.clone();
        symbols::guarded(&what, || run(self))
    }

    /// What there is to follow; looks at the mappings anew.
    fn copy(&mut self, image: &mut Image, wanted: impl Fn(i32) -> bool) -> Vec<Copied> {
        let Image { memory, threads, origin, .. } = image;
        let memory = memory.as_mut();
        let code = code_of(origin, memory);
        self.modules.update(code, &mut |to, from| match memory.read(from, to) {
            Ok(()) => to.len(),
            Err(_) => 0,
        });
        let threads = threads.iter().filter(|thread| wanted(thread.tid)).take(MAX_THREADS);
        let copied = threads.filter_map(|&ImageThread { tid, registers, .. }| {
            let registers = registers?;
            Some(Copied { tid, registers, bytes: stack_of(memory, registers) })
        });
        copied.collect()
    }

    fn follow(&mut self, copied: Vec<Copied>) -> Vec<(i32, Arc<Stack>)> {
        let stacks = copied.into_iter().map(|Copied { tid, registers, bytes }| {
            let walk = self.walker.walk(&self.modules, registers, &bytes);
            (tid, Arc::new(walk.stack(&mut self.modules)))
        });
        stacks.collect()
    }
}

/// Stacks of all threads of an image; for one image of a process.
///
/// # Errors
/// As [`NativeStacks::read`].
#[cfg(test)]
pub fn native_stacks(image: &mut Image) -> Result<Vec<(i32, Arc<Stack>)>> {
    NativeStacks::new(&image.origin).read(image, |_| true)
}

/// Mappings with code, without files that are here in another version than
/// the process had: their tables would lead astray.
fn code_of(origin: &Origin, memory: &mut dyn Memory) -> Vec<Mapping> {
    let mut others = HashSet::new();
    let mut asked = HashSet::new();
    for mapping in &origin.mappings {
        let Backing::File { path, deleted: false } = &mapping.backing else { continue };
        if mapping.file_offset != 0 || !asked.insert(path) || Some(path) == origin.named.as_ref() {
            continue;
        }
        let Some(there) = build_id::at(memory, mapping.range.start) else { continue };
        let here = Elf::open(&origin.file(path)).ok().and_then(|elf| elf.build_id);
        if here.is_some_and(|here| here != there) {
            others.insert(path);
        }
    }
    let mut code = maps::executable(origin.mappings.clone());
    for mapping in &mut code {
        if let Backing::File { path, deleted } = &mut mapping.backing {
            *deleted |= others.contains(path);
        }
    }
    code
}

/// A stack's bytes, from its pointer upward to the end of its mapping.
fn stack_of(memory: &mut dyn Memory, registers: Registers) -> Vec<u8> {
    let sp = registers.sp;
    let around = memory.writable().iter().find(|range| range.contains(&sp));
    let Some(len) = around.map(|range| (range.end - sp).min(MAX_STACK)) else {
        return Vec::new();
    };
    let mut bytes = vec![0; len as usize];
    match memory.read(sp, &mut bytes) {
        Ok(()) => bytes,
        Err(fault) => {
            // The part before it is there.
            bytes.truncate((fault.address - sp) as usize);
            match memory.read(sp, &mut bytes) {
                Ok(()) => bytes,
                Err(_) => Vec::new(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::inspect::image::{core, other};
    use crate::model::StackSource;
    use crate::sys::testing::{
        Role, let_anybody_trace, role, say, spin_under_an_endless_unwind_rule,
    };

    const ROLE: &str = "inspect::image::stacks::tests::play_a_role";
    static SPINS: AtomicBool = AtomicBool::new(false);

    #[test]
    #[ignore = "started by the tests below"]
    fn play_a_role() {
        if role().is_none() {
            return;
        }
        let_anybody_trace();
        let (tell, told) = std::sync::mpsc::channel();
        let mut threads = vec![];
        let again = tell.clone();
        threads.push(std::thread::spawn(move || sleeping_outer(&tell)));
        threads.push(std::thread::spawn(move || spinning_outer(&again)));
        told.iter().take(2).for_each(drop);
        if role().as_deref() == Some("endless") {
            threads.push(std::thread::spawn(|| spin_under_an_endless_unwind_rule(&SPINS)));
            while !SPINS.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
        say("ready");
        let _ = std::io::stdin().lock().lines().next();
        std::process::exit(0);
    }

    #[inline(never)]
    fn sleeping_outer(tell: &std::sync::mpsc::Sender<()>) {
        sleeping_inner(tell);
        std::hint::black_box(());
    }

    #[inline(never)]
    fn sleeping_inner(tell: &std::sync::mpsc::Sender<()>) {
        tell.send(()).unwrap();
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1000)); // asleep here
        }
    }

    #[inline(never)]
    fn spinning_outer(tell: &std::sync::mpsc::Sender<()>) {
        tell.send(()).unwrap();
        let mut turns = 0_u64;
        loop {
            turns = std::hint::black_box(turns.wrapping_add(1));
        }
    }

    fn take(pid: u32) -> Result<Image> {
        other::take(&other::Program::of(pid)?, other::Limits::default())
    }

    /// The stack that has this function: names, innermost first, and lines.
    fn with<'a>(stacks: &'a [(i32, Arc<Stack>)], function: &str) -> &'a Stack {
        let has =
            |stack: &Stack| stack.frames.iter().any(|frame| frame.function_full.contains(function));
        let found = stacks.iter().find(|(_, stack)| has(stack));
        &found.unwrap_or_else(|| panic!("no {function} in {stacks:#?}")).1
    }

    fn hold_to_the_truth(stacks: &[(i32, Arc<Stack>)]) {
        assert!(stacks.len() >= 3);
        let asleep = with(stacks, "sleeping_inner");
        assert_eq!(asleep.truncated, None, "{asleep:#?}");
        let place = |name: &str| {
            asleep.frames.iter().position(|frame| frame.function_full.contains(name)).unwrap()
        };
        assert!(place("sleeping_inner") < place("sleeping_outer"));
        let line = 1 + include_str!("stacks.rs")
            .lines()
            .position(|line| line.ends_with("// asleep here"))
            .unwrap();
        let location = asleep.frames[place("sleeping_inner")].location.as_ref().unwrap();
        assert!(location.file.ends_with("image/stacks.rs"), "{location}");
        assert_eq!(location.line as usize, line);
        let spins = with(stacks, "spinning_outer");
        assert_eq!(spins.truncated, None, "{spins:#?}");
        assert_eq!(spins.source, StackSource::Native);
    }

    #[test]
    fn threads_of_another_process_and_of_its_core_show_where_they_are() {
        let mut target = Role::start(ROLE, "target");
        target.hear();
        let mut image = take(target.pid()).unwrap();
        let mut reader = NativeStacks::new(&image.origin);
        hold_to_the_truth(&reader.read(&mut image, |_| true).unwrap());
        // Once more, with what was kept.
        let mut image = take(target.pid()).unwrap();
        hold_to_the_truth(&reader.read(&mut image, |_| true).unwrap());

        let folder = tempfile::tempdir().unwrap();
        let Some(path) = crate::sys::testing::core_of(&target, folder.path()) else { return };
        drop(target);
        let mut image = core::open(&path, &std::env::current_exe().unwrap()).unwrap();
        hold_to_the_truth(&native_stacks(&mut image).unwrap());
    }

    /// A table that sends whoever evaluates it round in circles.
    #[test]
    fn unwind_tables_without_end_cost_the_stacks_and_nothing_else() {
        let mut target = Role::start(ROLE, "endless");
        target.hear();
        let mut image = take(target.pid()).unwrap();
        let mut reader = NativeStacks::new(&image.origin);
        reader.patience = Duration::from_secs(2);
        let error = reader.read(&mut image, |_| true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        // At once from now on.
        reader.patience = Duration::MAX;
        assert_eq!(reader.read(&mut image, |_| true).unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(reader.symbol(0), None);
    }
}
