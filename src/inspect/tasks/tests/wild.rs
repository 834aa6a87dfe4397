//! Nonsense ends in bounded time, without a panic.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::Notify;

use super::own::{self, layouts, runtime};
use crate::inspect::image::{Fault, Image, Memory};
use crate::inspect::tasks::wild::{any_patches, patched};
use crate::inspect::tasks::{Limits, Roots, read};

/// This process, with some of its words replaced by others.
struct Wild {
    own: Box<dyn Memory + Send>,
    seed: u64,
    /// One word in so many is another.
    rarity: u64,
    targets: Vec<u64>,
}

impl Memory for Wild {
    fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault> {
        self.own.read(address, to)?;
        for (index, word) in to.chunks_exact_mut(8).enumerate() {
            let at = address.wrapping_add(index as u64 * 8);
            let dice = mix(at ^ self.seed);
            if dice.is_multiple_of(self.rarity) {
                let other = match dice >> 60 {
                    0..8 => self.targets[(dice >> 8) as usize % self.targets.len()],
                    8..12 => dice >> 56,
                    _ => mix(dice),
                };
                word.copy_from_slice(&other.to_le_bytes());
            }
        }
        Ok(())
    }

    fn writable(&self) -> &[Range<u64>] {
        self.own.writable()
    }
}

/// splitmix64's finaliser: the same for an address whenever it is read.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[test]
fn damaged_memory_is_read_as_far_as_it_goes() {
    let runtime = runtime();
    let notify = Arc::new(Notify::new());
    for _ in 0..20 {
        let notify = notify.clone();
        runtime.spawn(async move {
            let all = (0..4).map(|_| Box::pin(notify.notified()));
            futures_util::future::join_all(all).await;
        });
    }
    let whole = own::at_rest(&[runtime.handle()], false);
    let targets: Vec<u64> = whole
        .owners
        .iter()
        .map(|owner| owner.address)
        .chain([Arc::as_ptr(&notify) as u64, std::ptr::from_ref(runtime.handle()) as u64])
        .collect();
    let limits = Limits { list: 1_000, tasks: 10_000, ..Limits::default() };
    let handles = vec![std::ptr::from_ref(runtime.handle()) as u64];
    let roots = Roots { handles, ..Roots::default() };
    proptest!(ProptestConfig::with_cases(64), |(seed: u64, rarity in 2_u64..200)| {
        let Image { memory, .. } = own::image();
        let memory = Box::new(Wild { own: memory, seed, rarity, targets: targets.clone() });
        let mut image = Image { memory, ..own::image() };
        let read = read(&mut image, &mut *layouts(), &roots, &limits).unwrap();
        prop_assert!(read.tasks.len() <= limits.tasks);
    });
}

/// `fuzz/` has more of this.
#[test]
fn any_patches_are_read_within_all_bounds() {
    proptest!(ProptestConfig::with_cases(64), |(bytes in prop::collection::vec(any::<u8>(), 0..600))| {
        any_patches(&bytes);
    });
}

#[test]
fn the_corpus_is_harmless() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tasks");
    let mut inputs = 0;
    for input in std::fs::read_dir(folder).unwrap() {
        any_patches(&std::fs::read(input.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 4, "{inputs} inputs");
}

/// Wherever the allocator has put them: some patch of each word there is hits
/// what tasks are read by.
#[test]
fn patches_reach_the_tasks() {
    // What of a reading is the same each time.
    let told = |bytes: &[u8]| {
        let read = patched(bytes);
        let stacks = read.tasks.iter().map(|task| task.stack.as_ref().map(|it| it.frames.len()));
        let waits = read.tasks.iter().map(|task| task.wait.as_ref().map(|wait| wait.kind));
        let ids = read.tasks.iter().map(|task| task.id);
        (ids.collect::<Vec<_>>(), stacks.collect::<Vec<_>>(), waits.collect::<Vec<_>>())
    };
    let whole = told(&[]);
    assert!(whole.0.len() > 10, "{whole:?}");
    // Half a page of zeros at a time.
    let zeros = |piece: u8, half: u16| -> Vec<u8> {
        let patch = |word: u16| {
            let [low, high] = word.to_le_bytes();
            [piece, low, high, 0, 0, 0]
        };
        std::iter::once(0).chain((half * 256..half * 256 + 256).flat_map(patch)).collect()
    };
    let halves = (0..=u8::MAX).flat_map(|piece| [(piece, 0), (piece, 1)]);
    let others = halves.filter(|&(piece, half)| told(&zeros(piece, half)) != whole).take(5).count();
    assert_eq!(others, 5, "halves of pages that changed what is read");
}

#[test]
fn a_bound_is_counted() {
    let runtime = runtime();
    let notify = Arc::new(Notify::new());
    for _ in 0..10 {
        let notify = notify.clone();
        runtime.spawn(async move { notify.notified().await });
    }
    own::at_rest(&[runtime.handle()], false);
    let limits = Limits { tasks: 4, ..Limits::default() };
    let handles = vec![std::ptr::from_ref(runtime.handle()) as u64];
    let roots = Roots { handles, ..Roots::default() };
    let read = read(&mut own::image(), &mut *layouts(), &roots, &limits).unwrap();
    assert_eq!(read.tasks.len(), 4);
    let [missing] = &*read.missing else { panic!("{:?}", read.missing) };
    assert_eq!((missing.reason, missing.count), (crate::model::Reason::BoundReached, 6));
}
