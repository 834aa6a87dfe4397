//! A search of the heap for tasks that nothing else led to: of runtimes whose
//! handles are nowhere at hand, and of `LocalSet`s.
//!
//! A task's header points at its vtable, and a vtable begins with one of the
//! program's `poll` functions. What looks like a header is taken for one only
//! if its scheduler's list has the id that the header names.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use object::pod::bytes_of_slice_mut;

use super::fields::Types;
use super::owners::Owners;
use super::tokio::{Offsets, state};
use crate::debuginfo::layout::TypeId;
use crate::inspect::image::Cached;
use crate::sys::thread;

/// Read at once.
const PIECE: usize = 256 * 1024;
/// The most a program spans from its first byte: further words are no vtables.
const SPAN: u64 = 1 << 31;
/// Words that look like vtables and are none: a bound on what is remembered.
const REMEMBERED: usize = 1 << 20;

/// Where a search found a list of tasks: it need not be searched for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    scheduler: TypeId,
    address: u64,
    id: u64,
}

/// Adds what earlier searches found, as far as it is still there.
pub fn again(
    memory: &mut Cached<'_>,
    types: &mut Types<'_>,
    owners: &mut Owners,
    strays: &[Stray],
) -> Vec<Stray> {
    let mut there = Vec::new();
    for stray in strays {
        let Some(list) = owners.list(types, stray.scheduler) else { continue };
        let id = stray.address.checked_add(list.id).and_then(|at| memory.word(at).ok());
        if id == Some(stray.id) {
            owners.add(memory, stray.address, &list);
            there.push(*stray);
        }
    }
    there
}

/// What a search went through.
#[derive(Debug, Default)]
pub struct Searched {
    pub bytes: u64,
    /// Bytes left out because of the bound or the time.
    pub left: u64,
    /// What it found that was not known.
    pub strays: Vec<Stray>,
}

/// Searches the writable regions and adds the owners of what it finds. Ends
/// early once it is too `late`.
pub fn search(
    memory: &mut Cached<'_>,
    types: &mut Types<'_>,
    offsets: &Offsets,
    bias: u64,
    owners: &mut Owners,
    bound: u64,
    late: &mut dyn FnMut() -> bool,
) -> Searched {
    let polls = types.layouts.task_polls();
    let mut hunt = Hunt {
        offsets,
        bias,
        polls: &polls,
        vtables: HashMap::new(),
        schedulers: HashSet::new(),
        strays: Vec::new(),
    };
    let range = Sweep { polls: &polls, bias, bound, piece: PIECE };
    let mut searched = sweep(memory, &range, late, &mut |memory, word, place| {
        hunt.word(memory, types, owners, word, place);
    });
    searched.strays = hunt.strays;
    searched
}

/// What to sweep for, and how much at most.
pub struct Sweep<'s> {
    /// The program's task `poll` functions as linked, ascending.
    pub polls: &'s [u64],
    pub bias: u64,
    /// Bytes.
    pub bound: u64,
    /// Bytes read at once.
    pub piece: usize,
}

/// Tells every word in writable memory that may point at a task's vtable, and
/// where it is. Ends early once it is too `late`.
pub fn sweep<'m>(
    memory: &mut Cached<'m>,
    range: &Sweep<'_>,
    late: &mut dyn FnMut() -> bool,
    each: &mut dyn FnMut(&mut Cached<'m>, u64, u64),
) -> Searched {
    let mut searched = Searched::default();
    let (Some(first), Some(last)) = (range.polls.first(), range.polls.last()) else {
        return searched;
    };
    let low = range.bias.wrapping_add(*first).saturating_sub(SPAN);
    let high = range.bias.wrapping_add(*last).saturating_add(SPAN);
    let mut piece = vec![0_u64; range.piece / 8];
    let regions = memory.memory().writable().to_vec();
    // Vtables are constants: no word that points into writable memory is one,
    // unless the program's own data could not be made read-only. That is the
    // first writable region behind its code.
    let code = range.bias.wrapping_add(*last);
    let data = regions.iter().find(|region| region.start >= code).cloned().unwrap_or(0..0);
    let heaps: Vec<Range<u64>> =
        regions.iter().filter(|&region| *region != data).cloned().collect();
    for region in regions {
        let mut at = region.start.next_multiple_of(8);
        while at < region.end {
            let len = (region.end - at).min(range.piece as u64) as usize & !7;
            if len == 0 {
                break;
            }
            if searched.bytes >= range.bound || late() {
                searched.left += region.end - at;
                break;
            }
            thread::give_way();
            searched.bytes += len as u64;
            let words = &mut piece[..len / 8];
            if memory.memory().search(at, bytes_of_slice_mut(words)).is_ok() {
                // Kept plain: without optimisation an iterator here takes
                // longer than all the rest of a dump.
                let mut index = 0;
                while index < words.len() {
                    let word = words[index];
                    // Nearly every word ends here.
                    if word.wrapping_sub(low) < high - low
                        && word.is_multiple_of(8)
                        && !is_within(&heaps, word)
                    {
                        each(memory, word, at + index as u64 * 8);
                    }
                    index += 1;
                }
            }
            at += len as u64;
        }
    }
    searched
}

fn is_within(regions: &[Range<u64>], word: u64) -> bool {
    let next = regions.partition_point(|region| region.end <= word);
    regions.get(next).is_some_and(|region| region.start <= word)
}

struct Hunt<'h> {
    offsets: &'h Offsets,
    bias: u64,
    polls: &'h [u64],
    /// Candidates, with the type of scheduler of those that are vtables.
    vtables: HashMap<u64, Option<(TypeId, u64)>>,
    /// Scheduler pointers that have been looked at.
    schedulers: HashSet<(TypeId, u64)>,
    strays: Vec<Stray>,
}

impl Hunt<'_> {
    fn word(
        &mut self,
        memory: &mut Cached<'_>,
        types: &mut Types<'_>,
        owners: &mut Owners,
        word: u64,
        place: u64,
    ) {
        let vtable = match self.vtables.get(&word) {
            Some(known) => *known,
            None => {
                let vtable = self.vtable(memory, types, word);
                if self.vtables.len() < REMEMBERED {
                    self.vtables.insert(word, vtable);
                }
                vtable
            }
        };
        if let Some((scheduler, offset)) = vtable
            && let Some(header) = place.checked_sub(self.offsets.vtable)
        {
            self.header(memory, types, owners, scheduler, offset, header);
        }
    }

    fn vtable(
        &self,
        memory: &mut Cached<'_>,
        types: &mut Types<'_>,
        at: u64,
    ) -> Option<(TypeId, u64)> {
        let poll = memory.word(at.checked_add(self.offsets.poll)?).ok()?.wrapping_sub(self.bias);
        self.polls.binary_search(&poll).ok()?;
        let offset = memory.word(at.checked_add(self.offsets.scheduler_offset)?).ok()?;
        let task = *types.layouts.task(poll).first()?;
        Some((task.scheduler, offset))
    }

    fn header(
        &mut self,
        memory: &mut Cached<'_>,
        types: &mut Types<'_>,
        owners: &mut Owners,
        scheduler: TypeId,
        offset: u64,
        header: u64,
    ) -> Option<()> {
        let at = header.checked_add(offset)?;
        let handle = memory.word(at).ok()?;
        if self.schedulers.contains(&(scheduler, handle)) {
            return None;
        }
        let bits = memory.word(header.checked_add(self.offsets.state)?).ok()?;
        let owner_id = memory.word(header.checked_add(self.offsets.owner_id)?).ok()?;
        if bits < state::REF_ONE || owner_id == 0 {
            return None;
        }
        let list = owners.list(types, scheduler)?;
        let address = list.route.follow(memory, at)?;
        if memory.word(address.checked_add(list.id)?).ok()? == owner_id {
            self.schedulers.insert((scheduler, handle));
            if owners.add(memory, address, &list) {
                self.strays.push(Stray { scheduler, address, id: owner_id });
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::tasks::parked::{image, layouts};

    /// How much of this process a search goes through that is late from a look
    /// at the clock on, and how much it leaves out.
    fn searched(late_after: u32) -> (u64, u64) {
        let (mut image, mut layouts) = (image(), layouts());
        let mut types = Types::new(&mut *layouts);
        let offsets = Offsets::find(&mut types).unwrap();
        let mut memory = Cached::new(image.memory.as_mut(), u64::MAX).unwrap();
        let mut looks = 0;
        let mut late = || {
            looks += 1;
            looks > late_after
        };
        let owners = &mut Owners::default();
        let found =
            search(&mut memory, &mut types, &offsets, image.bias, owners, u64::MAX, &mut late);
        (found.bytes, found.left)
    }

    #[test]
    fn a_search_ends_when_its_time_is_over() {
        let (bytes, left) = searched(3);
        assert!(bytes <= 3 * PIECE as u64, "{bytes}");
        assert!(left > 0, "what is left out is told");
    }
}
