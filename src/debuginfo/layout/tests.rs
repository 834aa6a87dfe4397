//! What the layouts say of this very test program.

use super::*;

#[test]
#[ignore = "probe"]
fn probe() {
    let path = std::env::var("PROBE").unwrap();
    let start = std::time::Instant::now();
    let mut layouts = Dwarf::open(std::path::Path::new(&path)).unwrap();
    println!(
        "{layouts:?} in {:?}, {} KiB, {:?}",
        start.elapsed(),
        layouts.table_bytes() / 1024,
        layouts.detail()
    );
    println!("context {:?}", layouts.context());
    let polls = layouts.task_polls();
    println!("{} polls", polls.len());
    let start = std::time::Instant::now();
    for &poll in polls.iter() {
        let tasks = layouts.task(poll);
        for task in tasks.iter() {
            let ty = layouts.ty(task.future).unwrap();
            let scheduler = layouts.ty(task.scheduler).unwrap();
            println!("{poll:#x} {} {} cell {:?} {}", &ty.name, &scheduler.name, task.cell, ty.size);
            println!("    {:?}", layouts.polled(task.future));
            if let Shape::Enum(variants) = &ty.shape {
                for variant in &variants.list {
                    println!("    {} {:?} {:?}", variant.name, variant.values, variant.place);
                }
            }
        }
    }
    println!("{:?} {layouts:?}", start.elapsed());
}
