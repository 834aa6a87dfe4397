//! Native stacks of the threads of an image: what each was doing at that
//! instant, functions and lines.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Image, ImageThread, Memory, Origin, build_id};
use crate::debuginfo::elf::Elf;
use crate::debuginfo::symbols;
use crate::error::Result;
use crate::inspect::maps::{self, Backing, Mapping};
use crate::inspect::modules::Modules;
use crate::inspect::unwind::Walker;
use crate::model::Stack;
use crate::sys::registers::Registers;

/// Threads whose stacks are read; tokio's blocking pool alone may have 512.
const MAX_THREADS: usize = 4096;
/// The most of a stack that is looked at.
const MAX_STACK: u64 = 1 << 20;

/// Reads native stacks; keeps unwind tables and debug information from one
/// image of a process to the next.
pub struct NativeStacks {
    modules: Modules,
    walker: Walker,
    /// Whose they are.
    origin: Origin,
}

impl NativeStacks {
    /// For images of that origin. Nothing is read yet.
    pub fn new(origin: &Origin) -> Self {
        let origin = Origin { mappings: Vec::new(), ..origin.clone() };
        Self { modules: Modules::of(origin.clone()), walker: Walker::new(), origin }
    }

    /// Stacks of those threads whose registers are known, by kernel id, in the
    /// order of `image.threads`; 4096 at most.
    ///
    /// # Errors
    /// `Internal` if a parser of foreign bytes panicked.
    pub fn read(&mut self, image: &mut Image) -> Result<Vec<(i32, Arc<Stack>)>> {
        let what = self.origin.executable.clone();
        let result = symbols::guarded(&what, || self.read_all(image));
        if result.is_err() {
            // Half-changed caches are not to be trusted.
            *self = Self::new(&self.origin);
        }
        result
    }

    fn read_all(&mut self, image: &mut Image) -> Vec<(i32, Arc<Stack>)> {
        let Image { memory, threads, origin, .. } = image;
        let memory = memory.as_mut();
        let code = code_of(origin, memory);
        self.modules.update(code, &mut |to, from| match memory.read(from, to) {
            Ok(()) => to.len(),
            Err(_) => 0,
        });
        let mut stacks = Vec::new();
        for thread in threads.iter().take(MAX_THREADS) {
            let ImageThread { tid, registers: Some(registers), .. } = thread else { continue };
            let bytes = stack_of(memory, *registers);
            let walk = self.walker.walk(&self.modules, *registers, &bytes);
            stacks.push((*tid, Arc::new(walk.stack(&mut self.modules))));
        }
        stacks
    }
}

/// Stacks of all threads of an image; for one image of a process.
///
/// # Errors
/// As [`NativeStacks::read`].
#[cfg(test)]
pub fn native_stacks(image: &mut Image) -> Result<Vec<(i32, Arc<Stack>)>> {
    NativeStacks::new(&image.origin.clone()).read(image)
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

    use super::*;
    use crate::inspect::image::{core, other};
    use crate::model::StackSource;
    use crate::sys::testing::{Role, let_anybody_trace, role, say};

    const ROLE: &str = "inspect::image::stacks::tests::play_a_role";

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
        hold_to_the_truth(&reader.read(&mut image).unwrap());
        // Once more, with what was kept.
        let mut image = take(target.pid()).unwrap();
        hold_to_the_truth(&reader.read(&mut image).unwrap());

        let folder = tempfile::tempdir().unwrap();
        let Some(path) = crate::sys::testing::core_of(&target, folder.path()) else { return };
        drop(target);
        let mut image = core::open(&path, &std::env::current_exe().unwrap()).unwrap();
        hold_to_the_truth(&native_stacks(&mut image).unwrap());
    }
}
