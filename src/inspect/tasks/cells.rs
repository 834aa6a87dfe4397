//! One task's cell: header, future, and what its vtable says of both.

use std::rc::Rc;
use std::sync::Arc;

use super::fields::{Types, active};
use super::hash::NumberMap;
use super::plan::Plans;
use super::tokio::{Offsets, STAGE};
use crate::debuginfo::layout::{Shape, TypeId, Variants};
use crate::inspect::image::Cached;
use crate::model::Location;

/// Bytes of a path in a `Location`.
const PATH: u64 = 4096;

/// What tasks with one vtable have in common.
pub struct Kind {
    /// More than one where the linker merged functions of equal code.
    pub futures: Vec<Future>,
    pub id: u64,
    pub spawned_at: Option<u64>,
}

/// Where the future is in a cell.
pub struct Future {
    pub ty: TypeId,
    pub name: Arc<str>,
    /// The stage: running, finished or consumed; from the header.
    stage: u64,
    stages: Variants,
    running: usize,
    /// From the header.
    pub at: u64,
}

impl Future {
    /// Whether the cell holds the future, and not its output or nothing.
    pub fn is_there(&self, memory: &mut Cached<'_>, header: u64) -> bool {
        active(memory, header.wrapping_add(self.stage), &self.stages) == Some(self.running)
    }
}

/// Kinds of tasks and places of spawning, each read once.
#[derive(Default)]
pub struct Kinds {
    by_vtable: NumberMap<u64, Option<Rc<Kind>>>,
    places: NumberMap<u64, Option<Arc<Location>>>,
}

impl Kinds {
    /// What a vtable says, if it is a task's.
    pub fn get(
        &mut self,
        memory: &mut Cached<'_>,
        plans: &mut Plans<'_>,
        offsets: &Offsets,
        bias: u64,
        vtable: u64,
    ) -> Option<Rc<Kind>> {
        if let Some(kind) = self.by_vtable.get(&vtable) {
            return kind.clone();
        }
        let kind = read(memory, plans, offsets, bias, vtable).map(Rc::new);
        self.by_vtable.insert(vtable, kind.clone());
        kind
    }

    /// The `Location` at an address.
    pub fn place(
        &mut self,
        memory: &mut Cached<'_>,
        types: &mut Types<'_>,
        at: u64,
    ) -> Option<Arc<Location>> {
        if let Some(place) = self.places.get(&at) {
            return place.clone();
        }
        let place = location(memory, types, at).map(Arc::new);
        self.places.insert(at, place.clone());
        place
    }
}

fn read(
    memory: &mut Cached<'_>,
    plans: &mut Plans<'_>,
    offsets: &Offsets,
    bias: u64,
    vtable: u64,
) -> Option<Kind> {
    let mut field = |offset: u64| memory.word(vtable.checked_add(offset)?).ok();
    let poll = field(offsets.poll)?.wrapping_sub(bias);
    let id = field(offsets.id_offset)?;
    let trailer = field(offsets.trailer_offset)?;
    let spawned_at = offsets.spawn_location_offset.and_then(field);
    let types = plans.types.layouts.task(poll);
    let mut futures: Vec<Future> = Vec::new();
    for task in types.iter() {
        let Some(future) = future(&mut plans.types, task.future, task.cell, trailer) else {
            continue;
        };
        if !futures.iter().any(|other| other.name == future.name) {
            futures.push(future);
        }
    }
    Some(Kind { futures, id, spawned_at })
}

/// Where a type of future is in its cell. `None` also if the cell does not fit
/// the vtable: then the task is of another type whose code is the same.
fn future(types: &mut Types<'_>, ty: TypeId, cell: Option<TypeId>, trailer: u64) -> Option<Future> {
    let name = types.get(ty)?.name.clone();
    let cell = cell?;
    let (trailer_at, _) = types.within(cell, "tokio::runtime::task::core::Trailer")?;
    if trailer_at != trailer {
        return None;
    }
    let (stage, stage_type) = types.within(cell, STAGE)?;
    let shape = types.get(stage_type)?;
    let Shape::Enum(stages) = &shape.shape else { return None };
    let running = stages.list.iter().position(|variant| &*variant.name == "Running")?;
    let variant = &stages.list[running];
    let inner = types.member(variant.payload, "__0")?;
    let at = stage.checked_add(variant.offset)?.checked_add(inner.offset)?;
    Some(Future { ty, name, stage, stages: stages.clone(), running, at })
}

/// A `core::panic::Location`: a path, which is a pointer and a length, with a
/// nul behind it in newer compilers, and two numbers.
fn location(memory: &mut Cached<'_>, types: &mut Types<'_>, at: u64) -> Option<Location> {
    let ty = types.layouts.find("core::panic::location::Location")?;
    let file = types.member(ty, "filename").or_else(|| types.member(ty, "file"))?;
    let (pointer, length) = {
        let (offset, fat) = types.unwrapped(file.ty)?;
        let data = types.member(fat, "data_ptr")?;
        let length = types.member(fat, "length")?;
        (file.offset + offset + data.offset, file.offset + offset + length.offset)
    };
    let mut number = |name: &str| {
        let member = types.member(ty, name)?;
        let value = memory.number(at.checked_add(member.offset)?, 4).ok()?;
        u32::try_from(value).ok()
    };
    let (line, column) = (number("line")?, number("col")?);
    let length = memory.word(at.checked_add(length)?).ok().filter(|&length| length <= PATH)?;
    let pointer = memory.word(at.checked_add(pointer)?).ok()?;
    let mut bytes = vec![0; length as usize];
    memory.read(pointer, &mut bytes).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?.trim_end_matches('\0');
    Some(Location { file: text.into(), line, column })
}
