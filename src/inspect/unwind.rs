//! From registers and a copied stack to return addresses.
//!
//! framehop does the work where all three registers are known. The stack of a
//! thread asleep in a system call comes with two: the kernel shows its
//! instruction and stack pointer, but not its frame pointer. Code compiled
//! without frame pointers (libc) does not need it and often restores it on
//! the way. Where a frame does need it (the standard library is built with
//! frame pointers), there are two ways to it:
//!
//! 1. By the function's first instructions. The usual ones, `push rbp`,
//!    `mov rbp, rsp`, some more pushes, `sub rsp, N`, say how far the frame
//!    pointer is above the stack pointer.
//! 2. By search. A frame pointer points at a pair on the stack: the caller's
//!    frame pointer and a return address. Pairs whose second half follows a
//!    `call` instruction are tried, those first whose `call` provably calls
//!    the function in question, then the others, innermost first.
//!
//! Either is believed only if the whole stack then unwinds to the thread's
//! first function. A stale pair of an earlier call can pass that test too:
//! after a search (and only then) a stack may show one frame that has
//! returned already.

use std::sync::Arc;

use framehop::{
    CacheNative, Error as Failure, FrameAddress, MayAllocateDuringUnwind, UnwindRegsNative,
    Unwinder as _,
};

use super::machine_code::{call_before, frame_pointer_by_prologue};
use super::modules::Modules;
use crate::model::{Frame, Stack, StackSource};
use crate::sys::sampler::{self, Registers};

/// The most frames of a stack that are followed.
pub const MAX_FRAMES: usize = 512;
/// The most complete unwinds tried for one unknown frame pointer.
const MAX_TRIES: usize = 256;
/// Stands for an unknown frame pointer: no address of a user program, with
/// room for offsets on both sides.
const UNKNOWN: u64 = 0xffff_0bad_0bad_0000;
const UNKNOWN_REACH: u64 = 1 << 20;

/// A stack as addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Addresses inside the instruction that runs or calls, innermost first:
    /// the instruction pointer as it is, return addresses less one.
    pub addresses: Vec<u64>,
    /// Why outer frames are missing, if they are.
    pub truncated: Option<&'static str>,
}

impl Walk {
    /// Its frames by name.
    pub fn stack(&self, modules: &mut Modules) -> Stack {
        let mut frames: Vec<Frame> = Vec::with_capacity(self.addresses.len() * 2);
        for &address in &self.addresses {
            frames.extend_from_slice(&modules.frames(address));
        }
        Stack {
            source: StackSource::Native,
            frames,
            truncated: self.truncated.map(Arc::from),
            or_one_of: Vec::new(),
        }
    }
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At the thread's first function.
    Outermost,
    /// At a frame whose caller only the unknown frame pointer shows.
    NeedsFramePointer,
    /// At the end of the copied bytes.
    CopyEnded,
    /// At [`MAX_FRAMES`].
    TooMany,
    /// In data that is no stack, or code without unwind tables.
    Lost,
}

impl End {
    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Outermost => None,
            Self::NeedsFramePointer => {
                Some("the frame pointer of a sleeping thread could not be found")
            }
            Self::CopyEnded => Some("the stack is deeper than the part that was copied"),
            Self::TooMany => Some("more than 512 frames"),
            Self::Lost => Some("no unwind information for the next frame"),
        }
    }
}

/// Copied stack bytes at their addresses.
#[derive(Clone, Copy)]
struct View<'a> {
    start: u64,
    bytes: &'a [u8],
}

impl View<'_> {
    fn read(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let bytes = self.bytes.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }
}

/// Frames so far and where the walk stands.
struct State {
    frames: Vec<FrameAddress>,
    at: FrameAddress,
    registers: UnwindRegsNative,
}

type Cache = CacheNative<MayAllocateDuringUnwind>;

/// Walks stacks; remembers unwind rules.
pub struct Walker {
    cache: Cache,
}

impl Walker {
    /// A walker that remembers nothing yet.
    pub fn new() -> Self {
        Self { cache: Cache::new() }
    }

    /// Follows a copied stack to its outermost frame.
    pub fn walk(&mut self, modules: &Modules, registers: Registers, stack: &[u8]) -> Walk {
        let view = View { start: registers.sp, bytes: stack };
        let at = FrameAddress::from_instruction_pointer(registers.ip);
        let bp = registers.bp.unwrap_or(UNKNOWN);
        let mut state = State {
            frames: vec![at],
            at,
            registers: UnwindRegsNative::new(registers.ip, registers.sp, bp),
        };
        let mut end = self.follow(modules, &view, &mut state);
        // Where it is known, such a number was found in memory by chance.
        if end == End::NeedsFramePointer
            && registers.bp.is_none()
            && let Some((found, its_end)) = self.search(modules, &view, &state)
        {
            state.frames.extend(found);
            end = its_end;
        }
        Walk {
            addresses: state.frames.iter().map(|frame| frame.address_for_lookup()).collect(),
            truncated: end.reason(),
        }
    }

    /// Goes from caller to caller as far as it leads.
    fn follow(&mut self, modules: &Modules, view: &View<'_>, state: &mut State) -> End {
        let mut read = |address| view.read(address).ok_or(());
        loop {
            if state.frames.len() >= MAX_FRAMES {
                return End::TooMany;
            }
            // A failed step may leave the registers half changed.
            let before = state.registers;
            let step = modules.unwinder().unwind_frame(
                state.at,
                &mut state.registers,
                &mut self.cache,
                &mut read,
            );
            let next = match step {
                Ok(Some(next)) => next,
                Ok(None) | Err(Failure::ReturnAddressIsNull) => return End::Outermost,
                Err(failure) => {
                    state.registers = before;
                    // After a failure framehop may remember a fallback rule
                    // for this place that only the missing data called for.
                    self.cache = Cache::new();
                    return end_of(failure, before, view);
                }
            };
            let Some(address) = FrameAddress::from_return_address(next) else {
                return End::Outermost;
            };
            if modules.find(address.address_for_lookup()).is_none() {
                state.registers = before;
                return if before.bp() == UNKNOWN { End::NeedsFramePointer } else { End::Lost };
            }
            state.frames.push(address);
            state.at = address;
        }
    }

    /// The frames beyond one that needs an unknown frame pointer.
    fn search(
        &mut self,
        modules: &Modules,
        view: &View<'_>,
        stuck: &State,
    ) -> Option<(Vec<FrameAddress>, End)> {
        let here = stuck.at.address_for_lookup();
        let function = modules.find(here).and_then(|module| module.function_start(here));
        let sp = stuck.registers.sp();
        let told = function.and_then(|start| frame_pointer_by_prologue(start, here, sp));
        if let Some(guess) =
            told.and_then(|frame_pointer| candidate(modules, view, frame_pointer, function))
            && let Some(found) = self.attempt(modules, view, stuck, &guess)
        {
            return Some(found);
        }
        let mut doubtful = Vec::new();
        let mut tries = 0;
        for candidate in candidates(modules, view, sp, function) {
            if !candidate.certain {
                doubtful.push(candidate);
                continue;
            }
            tries += 1;
            if let Some(found) = self.attempt(modules, view, stuck, &candidate) {
                return Some(found);
            }
            if tries == MAX_TRIES {
                return None;
            }
        }
        // Innermost first: a frame too many misleads less than frames missing.
        doubtful
            .iter()
            .take(MAX_TRIES - tries)
            .find_map(|candidate| self.attempt(modules, view, stuck, candidate))
    }

    /// Unwinds from a guess; `None` if it leads nowhere.
    fn attempt(
        &mut self,
        modules: &Modules,
        view: &View<'_>,
        stuck: &State,
        guess: &Candidate,
    ) -> Option<(Vec<FrameAddress>, End)> {
        let mut registers = stuck.registers;
        registers.set_bp(guess.frame_pointer);
        // The frames so far count towards the limit.
        let mut state = State { frames: stuck.frames.clone(), at: stuck.at, registers };
        let end = self.follow(modules, view, &mut state);
        let found = state.frames.split_off(stuck.frames.len());
        let complete = match end {
            End::Outermost | End::TooMany => true,
            // So long a chain does not come about by chance.
            End::CopyEnded => found.len() > 8,
            End::NeedsFramePointer | End::Lost => false,
        };
        let as_guessed = found.first().is_some_and(|first| first.address() == guess.returns_to);
        (complete && as_guessed).then_some((found, end))
    }
}

fn end_of(failure: Failure, registers: UnwindRegsNative, view: &View<'_>) -> End {
    if registers.bp() == UNKNOWN {
        return End::NeedsFramePointer;
    }
    match failure {
        Failure::CouldNotReadStack(address) if address.abs_diff(UNKNOWN) < UNKNOWN_REACH => {
            End::NeedsFramePointer
        }
        Failure::CouldNotReadStack(address)
            if address >= view.end().saturating_sub(8)
                && view.bytes.len() >= sampler::MAX_STACK / 2 =>
        {
            End::CopyEnded
        }
        // Threads begin with a frame pointer of zero.
        Failure::FramepointerUnwindingMovedBackwards | Failure::CouldNotReadStack(_)
            if registers.bp() == 0 =>
        {
            End::Outermost
        }
        _ => End::Lost,
    }
}

/// A pair on the stack that may be a frame's end.
struct Candidate {
    frame_pointer: u64,
    returns_to: u64,
    /// The call before `returns_to` calls the function in question. Otherwise
    /// it may: through a register, or through a function that jumped there.
    certain: bool,
}

/// The pair at `frame_pointer`, if its second half follows a call.
fn candidate(
    modules: &Modules,
    view: &View<'_>,
    frame_pointer: u64,
    function: Option<u64>,
) -> Option<Candidate> {
    let returns_to = view.read(frame_pointer.checked_add(8)?)?;
    let target = call_before(modules, returns_to)?;
    let certain = target.is_some() && target == function;
    Some(Candidate { frame_pointer, returns_to, certain })
}

/// All such pairs from `sp` upward.
fn candidates(
    modules: &Modules,
    view: &View<'_>,
    sp: u64,
    function: Option<u64>,
) -> impl Iterator<Item = Candidate> {
    let places = (sp.next_multiple_of(8)..view.end()).step_by(8);
    places.filter_map(move |place| candidate(modules, view, place, function))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::inspect::maps;

    /// A word of a stack that leads a walk on, or astray.
    #[derive(Clone, Debug)]
    enum Word {
        Any(u64),
        /// So far from the start of our code.
        Code(u64),
        /// So many words above the stack pointer.
        Stack(u64),
    }

    fn word() -> impl Strategy<Value = Word> {
        prop_oneof![
            any::<u64>().prop_map(Word::Any),
            any::<u64>().prop_map(Word::Code),
            (0_u64..600).prop_map(Word::Stack),
        ]
    }

    #[test]
    fn any_registers_and_stack_are_harmless() {
        let mut modules = Modules::new();
        modules.refresh().unwrap();
        let here = any_registers_and_stack_are_harmless as *const () as u64;
        let mut code = maps::executable(maps::own().unwrap()).into_iter();
        let code = code.find(|mapping| mapping.range.contains(&here)).unwrap().range;
        let in_code = |at: u64| code.start + at % (code.end - code.start);
        let deeper = Cell::new(0);
        proptest!(|(
            words in proptest::collection::vec(word(), 0..512),
            cut in 0_usize..8,
            sp: u64,
            ip in word(),
            bp in proptest::option::of(word()),
        )| {
            // Stacks do not wrap around the address space.
            let sp = sp >> 1;
            let number = |word: &Word| match *word {
                Word::Any(any) => any,
                Word::Code(at) => in_code(at),
                Word::Stack(at) => sp + at * 8,
            };
            let mut stack: Vec<u8> =
                words.iter().flat_map(|word| number(word).to_le_bytes()).collect();
            stack.truncate(stack.len().saturating_sub(cut));
            let registers = Registers { ip: number(&ip), sp, bp: bp.as_ref().map(number) };
            let walk = Walker::new().walk(&modules, registers, &stack);
            prop_assert!(!walk.addresses.is_empty());
            deeper.set(deeper.get() + u32::from(walk.addresses.len() > 1));
        });
        assert!(deeper.get() > 0, "unwind tables were followed");
    }
}
