//! What the layouts say of this very test program, beside what it knows of
//! itself: sizes and offsets by the compiler, lines by marks in this file.

use std::future::Future;
use std::mem::{offset_of, size_of, size_of_val};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll};

use super::*;

/// One pass for all tests: it takes seconds without optimisation.
fn own() -> MutexGuard<'static, Dwarf> {
    static OWN: OnceLock<Mutex<Dwarf>> = OnceLock::new();
    let own = OWN.get_or_init(|| Mutex::new(Dwarf::open(&program()).unwrap()));
    own.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn program() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

/// Line below the only mark of this name in this file.
fn line_of(mark: &str) -> u32 {
    let mark = format!("// mark: {mark}");
    let lines: Vec<_> = include_str!("tests.rs")
        .lines()
        .enumerate()
        .filter(|(_, line)| line.trim() == mark)
        .collect();
    assert_eq!(lines.len(), 1, "{mark}");
    lines[0].0 as u32 + 2
}

const HERE: &str = module_path!();

#[derive(Debug, Default)]
#[repr(C)]
struct Sample {
    flag: bool,
    number: u64,
    pair: (u16, u32),
    text: String,
    list: [u32; 5],
    next: Option<Box<Sample>>,
}

#[repr(u128)]
#[derive(Clone, Copy, Debug)]
enum Wide {
    Small = 3,
    Large = 1 << 100,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Signed {
    Minus = -2,
    Plus = 7,
}

#[derive(Debug)]
enum Fields {
    Unit,
    Named { at: u16, name: String },
    Niche(Box<u32>),
}

union Either {
    whole: u64,
    half: u32,
}

/// Written by hand, polled by a task.
struct Slow(tokio::sync::oneshot::Receiver<u32>);

impl Future for Slow {
    type Output = u32;

    // mark: slow poll
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
        Pin::new(&mut self.0).poll(context).map(|got| got.unwrap_or(0))
    }
}

struct Feed {
    lock: tokio::sync::Mutex<u32>,
}

impl Feed {
    // mark: watch
    async fn watch(&self, doors: &tokio::sync::Semaphore) -> u32 {
        // mark: watch lock
        let guard = self.lock.lock().await;
        // mark: watch acquire
        let permit = doors.acquire().await;
        drop(permit);
        *guard
    }
}

// mark: generic
async fn generic<T: Send>(value: T) -> T {
    // mark: generic yield
    tokio::task::yield_now().await;
    value
}

fn boxed(depth: u32) -> Pin<Box<dyn Future<Output = u32> + Send>> {
    // mark: boxed
    Box::pin(async move {
        // mark: boxed await
        if depth == 0 { 0 } else { boxed(depth - 1).await + 1 }
    })
}

/// The size of the future that `run` makes, without running it.
fn size_of_future<F: Future>(run: impl FnOnce() -> F) -> u64 {
    size_of_val(&run()) as u64
}

fn members(layouts: &mut impl Layouts, id: TypeId) -> Vec<(String, u64, Arc<Type>)> {
    let ty = layouts.ty(id).unwrap();
    let Shape::Struct(members) = &ty.shape else { panic!("{ty:?}") };
    members
        .iter()
        .map(|member| (member.name.to_string(), member.offset, layouts.ty(member.ty).unwrap()))
        .collect()
}

fn variants(layouts: &mut impl Layouts, id: TypeId) -> Variants {
    let ty = layouts.ty(id).unwrap();
    let Shape::Enum(variants) = &ty.shape else { panic!("{ty:?}") };
    variants.clone()
}

/// Uses everything, so that it is compiled.
fn run() -> u32 {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let (send, receive) = tokio::sync::oneshot::channel();
        let slow = tokio::spawn(Slow(receive));
        // mark: spawned
        let watch = tokio::spawn(async {
            let (feed, doors) = (Feed { lock: 4.into() }, tokio::sync::Semaphore::new(1));
            // mark: spawned await
            feed.watch(&doors).await
        });
        let text = tokio::spawn(generic("text".to_owned()));
        let number = tokio::spawn(generic(7_u8));
        let deep = tokio::spawn(boxed(2));
        let either = tokio::spawn(async {
            // mark: select
            tokio::select! {
                got = generic(1_u32) => got,
                () = tokio::time::sleep(std::time::Duration::from_secs(60)) => 0,
            }
        });
        send.send(5).unwrap();
        let text = text.await.unwrap().len() as u32;
        let sum = slow.await.unwrap() + watch.await.unwrap() + text + deep.await.unwrap();
        sum + u32::from(number.await.unwrap()) + either.await.unwrap()
    })
}

fn task_types(layouts: &mut impl Layouts) -> Vec<(u64, TaskType)> {
    let polls = layouts.task_polls();
    polls
        .iter()
        .flat_map(|&poll| layouts.task(poll).iter().map(|task| (poll, *task)).collect::<Vec<_>>())
        .collect()
}

/// The task whose future has this name.
fn task_of(layouts: &mut impl Layouts, name: &str) -> (u64, TaskType) {
    let found = task_types(layouts)
        .into_iter()
        .find(|(_, task)| &*layouts.ty(task.future).unwrap().name == name);
    found.unwrap_or_else(|| panic!("no task of {name}"))
}

fn variant<'v>(variants: &'v Variants, name: &str) -> &'v Variant {
    let found = variants.list.iter().find(|variant| &*variant.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {variants:?}"))
}

/// Where a coroutine is in a state, and that it is this file.
fn line_in(variants: &Variants, state: &str) -> u32 {
    let place = variant(variants, state).place.clone().unwrap();
    assert_eq!(&*place.file, file!());
    place.line
}

#[test]
fn the_program_does_what_the_tests_count_on() {
    assert_eq!(run(), 5 + 4 + 4 + 2 + 7 + 1);
    assert_eq!(format!("{:?}", Sample::default().pair), "(0, 0)");
    let kept =
        [Fields::Unit, Fields::Named { at: 1, name: String::new() }, Fields::Niche(Box::new(1))];
    let sum: u32 = kept
        .iter()
        .map(|fields| match fields {
            Fields::Unit => 0,
            Fields::Named { at, name } => u32::from(*at) + name.len() as u32,
            Fields::Niche(number) => **number,
        })
        .sum();
    assert_eq!(sum, 2);
    let wide = std::hint::black_box([Wide::Small, Wide::Large]);
    assert_eq!(format!("{wide:?}"), "[Small, Large]");
    assert_ne!(Signed::Minus, Signed::Plus);
    let either = [Either { whole: 1 }, Either { half: 1 }];
    assert_eq!(size_of_val(&either), 16);
}

#[test]
fn the_tables_fit_into_a_server() {
    let own = own();
    // Of some 40,000 types and as many namespaces: 2 MiB.
    assert!(own.table_bytes() < 8 << 20, "{}", own.table_bytes());
}

#[test]
fn structs_are_as_the_compiler_lays_them_out() {
    let mut own = own();
    assert_eq!(own.detail(), Detail::Full);
    let id = own.find(&format!("{HERE}::Sample")).unwrap();
    let ty = own.ty(id).unwrap();
    assert_eq!((&*ty.name, ty.size), (&*format!("{HERE}::Sample"), size_of::<Sample>() as u64));
    let found: Vec<(String, u64, u64)> = members(&mut *own, id)
        .into_iter()
        .map(|(name, offset, ty)| (name, offset, ty.size))
        .collect();
    let member =
        |name: &str, offset: usize, size: usize| (name.to_owned(), offset as u64, size as u64);
    assert_eq!(
        found,
        [
            member("flag", offset_of!(Sample, flag), 1),
            member("number", offset_of!(Sample, number), 8),
            member("pair", offset_of!(Sample, pair), size_of::<(u16, u32)>()),
            member("text", offset_of!(Sample, text), size_of::<String>()),
            member("list", offset_of!(Sample, list), 20),
            member("next", offset_of!(Sample, next), 8),
        ]
    );
    let list = &members(&mut *own, id)[4].2;
    assert!(matches!(list.shape, Shape::Array { count: 5, of } if own.ty(of).unwrap().size == 4));
    assert_eq!(&*list.name, "[u32; 5]");
    let pair = &members(&mut *own, id)[2].2;
    let Shape::Struct(parts) = &pair.shape else { panic!("{pair:?}") };
    assert!(parts.iter().any(|part| &*part.name == "__0"), "{parts:?}");
}

#[test]
fn a_type_that_units_repeat_is_one() {
    let mut own = own();
    let id = own.find("alloc::string::String").unwrap();
    let sample = own.find(&format!("{HERE}::Sample")).unwrap();
    let Shape::Struct(members) = own.ty(sample).unwrap().shape.clone() else { panic!() };
    assert_eq!(members[3].ty, id);
    let again = own.find("alloc::string::String").unwrap();
    assert_eq!(again, id);
    assert!(own.find("alloc::string::Strin").is_none());
}

#[test]
fn enums_tell_their_variants_apart() {
    let mut own = own();
    let id = own.find(&format!("{HERE}::Fields")).unwrap();
    let fields = variants(&mut *own, id);
    assert_eq!(fields.list.len(), 3);
    // The name's capacity has room for the other two; all that they do not
    // claim is `Named`.
    assert!(fields.tag.is_some());
    assert!(variant(&fields, "Named").values.is_empty(), "{fields:?}");
    assert_eq!(variant(&fields, "Unit").values.len(), 1, "{fields:?}");
    let named = variant(&fields, "Named").payload;
    let names: Vec<String> = members(&mut *own, named).into_iter().map(|part| part.0).collect();
    assert_eq!(names, ["at", "name"]);
    assert_eq!(&*own.ty(named).unwrap().name, format!("{HERE}::Fields::Named"));

    let next = own.find(&format!(
        "core::option::Option<alloc::boxed::Box<{HERE}::Sample, alloc::alloc::Global>>"
    ));
    let next = variants(&mut *own, next.unwrap());
    assert_eq!(next.tag, Some(Tag { offset: 0, size: 8 }));
    assert_eq!(*variant(&next, "None").values, [(0, 0)]);
    assert!(variant(&next, "Some").values.is_empty());
}

#[test]
fn discriminants_have_their_own_width_and_no_sign() {
    let mut own = own();
    let wide = own.find(&format!("{HERE}::Wide")).unwrap();
    let wide = variants(&mut *own, wide);
    assert_eq!(wide.tag, Some(Tag { offset: 0, size: 16 }));
    assert_eq!(*variant(&wide, "Small").values, [(3, 3)]);
    assert_eq!(*variant(&wide, "Large").values, [(1 << 100, 1 << 100)]);
    let signed = own.find(&format!("{HERE}::Signed")).unwrap();
    let signed = variants(&mut *own, signed);
    assert_eq!(signed.tag, Some(Tag { offset: 0, size: 1 }));
    assert_eq!(*variant(&signed, "Minus").values, [(0xfe, 0xfe)]);
    assert_eq!(*variant(&signed, "Plus").values, [(7, 7)]);
}

#[test]
fn unions_and_pointers() {
    let mut own = own();
    let id = own.find(&format!("{HERE}::Either")).unwrap();
    let ty = own.ty(id).unwrap();
    let Shape::Union(members) = &ty.shape else { panic!("{ty:?}") };
    assert_eq!(members.iter().map(|member| member.offset).collect::<Vec<_>>(), [0, 0]);
    let id = own.find("alloc::boxed::Box<u32, alloc::alloc::Global>");
    // Thin boxes are pointers; rustc has no struct for them.
    assert!(id.is_none());
    let fields = own.find(&format!("{HERE}::Fields")).unwrap();
    let niche = variant(&variants(&mut *own, fields), "Niche").payload;
    let content = super::tests::members(&mut *own, niche);
    let Shape::Pointer(Some(to)) = content[0].2.shape else { panic!("{content:?}") };
    assert_eq!(&*own.ty(to).unwrap().name, "u32");
}

#[test]
fn an_async_fn_is_suspended_where_it_awaits() {
    let mut own = own();
    let id = own.find(&format!("{HERE}::{{impl#3}}::watch::{{async_fn_env#0}}"));
    let id = id.or_else(|| {
        // The number of the impl block changes with the file.
        (0..40).find_map(|n| own.find(&format!("{HERE}::{{impl#{n}}}::watch::{{async_fn_env#0}}")))
    });
    let id = id.unwrap();
    let (feed, doors) = (Feed { lock: 4.into() }, tokio::sync::Semaphore::new(1));
    assert_eq!(own.ty(id).unwrap().size, size_of_future(|| feed.watch(&doors)));
    let states = variants(&mut *own, id);
    assert_eq!(states.list.len(), 5, "{states:?}");
    assert_eq!(states.tag.unwrap().size, 1);
    assert_eq!(line_in(&states, "Unresumed"), line_of("watch"));
    assert_eq!(line_in(&states, "Suspend0"), line_of("watch lock"));
    assert_eq!(line_in(&states, "Suspend1"), line_of("watch acquire"));
    let first = members(&mut *own, variant(&states, "Suspend0").payload);
    let awaitee = first.iter().find(|member| member.0 == "__awaitee").unwrap();
    assert!(awaitee.2.name.ends_with("::lock::{async_fn_env#0}<u32>"), "{}", awaitee.2.name);
    let second = members(&mut *own, variant(&states, "Suspend1").payload);
    let guard = second.iter().find(|member| member.0 == "guard").unwrap();
    assert_eq!(&*guard.2.name, "tokio::sync::mutex::MutexGuard<u32>");

    let polled = own.polled(id).unwrap();
    assert!(polled.coroutine);
    assert_eq!(&*polled.function, format!("{HERE}::Feed::watch"));
    assert_eq!(polled.place.as_ref().unwrap().line, line_of("watch"));
    assert_eq!(&*polled.place.as_ref().unwrap().file, file!());
}

#[test]
fn tasks_are_found_by_their_poll_functions() {
    let mut own = own();
    let polls = own.task_polls();
    assert!(polls.is_sorted() && polls.len() > 5, "{polls:?}");
    let (poll, slow) = task_of(&mut *own, &format!("{HERE}::Slow"));
    let scheduler = own.ty(slow.scheduler).unwrap();
    assert!(scheduler.name.starts_with("alloc::sync::Arc<tokio::runtime::scheduler::"));
    let cell = own.ty(slow.cell.unwrap()).unwrap();
    assert!(cell.name.starts_with("tokio::runtime::task::core::Cell<"), "{}", cell.name);
    let polled = own.polled(slow.future).unwrap();
    assert_eq!(
        *polled,
        Polled {
            function: format!("<{HERE}::Slow as core::future::future::Future>::poll").into(),
            place: Some(Place { file: file!().into(), line: line_of("slow poll") }),
            coroutine: false,
        }
    );
    assert!(own.task(poll + 1).is_empty() && own.task(0).is_empty());

    // The other way of reading the same file agrees on what the address is.
    let mut symbols = crate::debuginfo::symbols::Symbols::open(&program(), true).unwrap();
    let frames = symbols.frames(poll);
    assert!(frames.last().unwrap().function_full.contains("runtime::task::raw::poll"));

    for of in ["alloc::string::String", "u8"] {
        let name = format!("{HERE}::generic::{{async_fn_env#0}}<{of}>");
        let (_, task) = task_of(&mut *own, &name);
        let states = variants(&mut *own, task.future);
        assert_eq!(line_in(&states, "Suspend0"), line_of("generic yield"));
        assert_eq!(&*own.polled(task.future).unwrap().function, format!("{HERE}::generic"));
    }
    let size = own.find(&format!("{HERE}::generic::{{async_fn_env#0}}<u8>")).unwrap();
    assert_eq!(own.ty(size).unwrap().size, size_of_future(|| generic(7_u8)));
}

#[test]
fn a_merged_vtable_is_of_all_its_types() {
    let mut own = own();
    let futures: Vec<_> =
        own.vtables().into_iter().filter(|&(_, of)| own.polled(of).is_some()).collect();
    let [(first, one), .., (second, other)] = futures[..] else { panic!("two futures") };
    own.with_merged(first, second, |own| {
        let mut both = own.behind(first);
        both.sort_unstable();
        let mut expected = [one, other];
        expected.sort_unstable();
        assert_eq!(both, expected);
        let (file, _) = saved::write(own, "test").unwrap();
        assert_eq!(saved::Saved::from_bytes(&file).unwrap().behind(first).len(), 2);
    });
}

#[test]
fn what_a_dyn_future_is_is_known_by_its_vtable() {
    let mut own = own();
    let vtables = own.vtables();
    assert!(vtables.is_sorted_by_key(|vtable| vtable.0));
    let name = format!("{HERE}::boxed::{{async_block_env#0}}");
    let wanted = own.find(&name).unwrap();
    let &(address, _) = vtables.iter().find(|vtable| vtable.1 == wanted).unwrap();
    assert_eq!(own.behind(address), [wanted]);
    assert_eq!(own.behind(address + 1), []);
    assert_eq!(own.behind(0), []);
    let states = variants(&mut *own, wanted);
    assert_eq!(line_in(&states, "Suspend0"), line_of("boxed await"));
    let polled = own.polled(wanted).unwrap();
    assert_eq!(&*polled.function, format!("{HERE}::boxed::{{async_block#0}}"));
    assert_eq!(polled.place.as_ref().unwrap().line, line_of("boxed"));
    let inside = members(&mut *own, variant(&states, "Suspend0").payload);
    let awaitee = &inside.iter().find(|member| member.0 == "__awaitee").unwrap().2;
    assert!(awaitee.name.starts_with("core::pin::Pin<alloc::boxed::Box<(dyn "), "{}", awaitee.name);
}

#[test]
fn tokios_context_is_a_thread_local_of_the_program() {
    let mut own = own();
    let (offset, of) = own.context().unwrap();
    if cfg!(target_arch = "x86_64") {
        assert!(offset < 0, "{offset}");
    }
    let ty = own.ty(of).unwrap();
    assert!(ty.name.contains("tokio::runtime::context::Context"), "{}", ty.name);
    assert!(ty.size > 8 && ty.size < 4096, "{}", ty.size);
}

#[test]
fn what_is_no_future_is_not_polled() {
    let mut own = own();
    for name in ["alloc::string::String", "tokio::runtime::task::core::Header"] {
        let id = own.find(name).unwrap();
        assert_eq!(own.polled(id), None, "{name}");
    }
    let select = own.find("tokio::time::sleep::Sleep").unwrap();
    assert!(own.polled(select).is_some());
    assert!(own.ty(TypeId(u32::MAX)).is_err());
    assert_eq!(own.polled(TypeId(u32::MAX)), None);
}

#[test]
fn every_type_of_the_program_can_be_read() {
    let mut own = own();
    let all = own.all("").unwrap();
    assert!(all.len() > 10_000, "{}", all.len());
    let mut coroutines = 0;
    for id in all {
        let ty = own.ty(id).unwrap();
        if let Shape::Enum(variants) = &ty.shape {
            for variant in &variants.list {
                let payload = own.ty(variant.payload).unwrap();
                let end = variant.offset.saturating_add(payload.size);
                assert!(end <= ty.size, "{} in {ty:?}", variant.name);
                assert!(variant.values.is_sorted(), "{ty:?}");
            }
            if polled::is_coroutine(&ty.name) {
                coroutines += 1;
                assert!(variants.list.iter().all(|state| state.place.is_some()), "{ty:?}");
                assert!(own.polled(id).is_some_and(|polled| polled.coroutine), "{ty:?}");
            }
        }
    }
    assert!(coroutines > 100, "{coroutines}");
}

/// A shape with its types by name, so that those of two layouts compare.
fn told(layouts: &mut dyn Layouts, ty: &Type, known: &dyn Fn(&str) -> bool) -> String {
    let mut name = |id: TypeId| {
        let ty = layouts.ty(id).unwrap();
        if known(&ty.name) { format!("{}: {}", ty.name, ty.size) } else { "..".to_owned() }
    };
    let mut list = |members: &[Member]| -> Vec<String> {
        let told =
            |member: &Member| format!("{} {} {}", member.name, member.offset, name(member.ty));
        members.iter().map(told).collect()
    };
    match &ty.shape {
        Shape::Struct(members) => format!("struct {:?}", list(members)),
        Shape::Union(members) => format!("union {:?}", list(members)),
        Shape::Pointer(to) => format!("pointer {:?}", to.map(name)),
        Shape::Array { of, count } => format!("array {} {count}", name(*of)),
        Shape::Opaque => "opaque".to_owned(),
        Shape::Enum(variants) => {
            let list: Vec<String> = variants
                .list
                .iter()
                .map(|variant| {
                    let Variant { name: own, values, payload, offset, place } = variant;
                    format!("{own} {values:?} {} {offset} {place:?}", name(*payload))
                })
                .collect();
            format!("enum {:?} {list:?}", variants.tag)
        }
    }
}

#[test]
fn saved_layouts_say_the_same() {
    let mut own = own();
    let (file, written) = write(&mut own, "key").unwrap();
    let mut saved = Saved::from_bytes(&file).unwrap();
    assert_eq!(saved.key(), "key");
    assert_eq!(saved.detail(), own.detail());
    assert_eq!(saved.task_polls(), own.task_polls());
    // All the debug information there is, of which this is a hundredth or less.
    let whole = std::fs::metadata(program()).unwrap().len() as usize;
    assert!(file.len() < whole / 50, "{} of {whole}", file.len());
    assert!(written.types > 1000 && written.futures > 100 && written.tasks > 5, "{written:?}");

    let mut queue = Vec::new();
    for &poll in own.task_polls().iter() {
        let (ours, theirs) = (own.task(poll), saved.task(poll));
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs.iter()) {
            queue.push((ours.future, theirs.future));
            queue.push((ours.scheduler, theirs.scheduler));
            queue.extend(ours.cell.zip(theirs.cell));
        }
    }
    let (ours, theirs) = (own.context().unwrap(), saved.context().unwrap());
    assert_eq!(ours.0, theirs.0);
    queue.push((ours.1, theirs.1));
    let (mut polled, mut owners) = (0, 0);
    for (address, of) in own.vtables() {
        let name = own.ty(of).unwrap().name.clone();
        let mut theirs = saved.behind(address).into_iter();
        let there = theirs.find(|&their| saved.ty(their).unwrap().name == name);
        match (own.polled(of), there) {
            (Some(_), None) => panic!("{name} polls and is left out"),
            (Some(_), Some(_)) => polled += 1,
            (None, Some(_)) => owners += 1,
            (None, None) => {}
        }
        queue.extend(there.map(|there| (of, there)));
    }
    // Not all that a program has `dyn`, but what polls, and what owns that.
    let all = own.vtables().len();
    assert!(polled > 5 && owners > 0 && owners < all / 2, "{polled}, {owners} of {all}");

    let mut seen = std::collections::HashSet::new();
    while let Some((ours, theirs)) = queue.pop() {
        if !seen.insert(theirs) {
            continue;
        }
        let (ty, other) = (own.ty(ours).unwrap(), saved.ty(theirs).unwrap());
        assert_eq!((&ty.name, ty.size), (&other.name, other.size));
        assert_eq!(own.polled(ours), saved.polled(theirs), "{}", ty.name);
        // What was cut is cut on purpose; all else is the same.
        let named: std::cell::RefCell<&mut Saved> = (&mut saved).into();
        let kept = |name: &str| named.borrow_mut().find(name).is_some();
        let ours = told(&mut *own, &ty, &kept);
        let theirs = told(&mut saved, &other, &|name| name != "..");
        if !matches!(ty.shape, Shape::Pointer(_)) {
            assert_eq!(ours, theirs, "{}", ty.name);
        }
        if let (Shape::Struct(ours), Shape::Struct(theirs)) = (&ty.shape, &other.shape) {
            queue.extend(ours.iter().zip(theirs).map(|(ours, theirs)| (ours.ty, theirs.ty)));
        }
        if let (Shape::Enum(ours), Shape::Enum(theirs)) = (&ty.shape, &other.shape) {
            let pairs = ours.list.iter().zip(&theirs.list);
            queue.extend(pairs.map(|(ours, theirs)| (ours.payload, theirs.payload)));
        }
        if let (Shape::Pointer(Some(ours)), Shape::Pointer(Some(theirs))) =
            (&ty.shape, &other.shape)
        {
            queue.push((*ours, *theirs));
        }
    }
    assert!(seen.len() > 1000, "{}", seen.len());
}
