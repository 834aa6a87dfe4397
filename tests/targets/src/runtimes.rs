//! More than one scheduler in a process.

use std::sync::mpsc;

use tokio::runtime::{Builder, Handle};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::stage::{HOUR, Stage, curtain, role};

async fn local_leaf(shared: std::rc::Rc<u32>) -> u32 {
    sleep(HOUR).await; // MARK: local_leaf
    *shared
}

async fn on_pool() {
    sleep(HOUR).await; // MARK: on_pool
}

/// Tasks of a `LocalSet` beside tasks of the runtime that it runs on.
fn set_local(stage: &mut Stage, names: [&'static str; 2], set: &LocalSet) {
    let shared = std::rc::Rc::new(1);
    let root = set.spawn_local(async move {
        let inner = tokio::task::spawn_local(local_leaf(shared.clone()));
        inner.await.expect("no panic") + *shared // MARK: local_root
    });
    stage.cast_local(role(names[0]).waits("join").path(&["local_root"]), &root);
    let sibling = set.spawn_local(local_leaf(std::rc::Rc::new(2)));
    stage.cast_local(role(names[1]).waits("sleep").path(&["local_leaf"]), &sibling);
    // The inner task exists once the root has run; it has no name of its own.
    stage.local_unnamed(1);
}

pub fn local_set() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
    let mut stage = Stage::new(runtime.handle().clone());
    let set = LocalSet::new();
    set_local(&mut stage, ["root", "sibling"], &set);
    set.block_on(&runtime, async {
        stage.spawn(role("beside").waits("sleep").path(&["on_pool"]), on_pool());
        curtain(stage).await
    });
}

/// Two multi-thread runtimes, a current-thread one and a `LocalSet`.
pub fn several() {
    let build = || Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let first = build().expect("runtime");
    let second = build().expect("runtime");
    let mut stage = Stage::new(first.handle().clone());
    for (runtime, name) in [(&first, "on_first"), (&second, "on_second")] {
        let _guard = runtime.enter();
        stage.spawn(role(name).waits("sleep").path(&["on_pool"]), on_pool());
    }
    stage.join(Stage::new(second.handle().clone()));
    stage.join(on_thread(|| {
        let mut stage = Stage::new(Handle::current());
        stage.spawn(role("on_current_thread").waits("sleep").path(&["on_pool"]), on_pool());
        (stage, None)
    }));
    stage.join(on_thread(|| {
        let mut stage = Stage::new(Handle::current());
        let set = LocalSet::new();
        set_local(&mut stage, ["local_root", "local_sibling"], &set);
        (stage, Some(set))
    }));
    first.block_on(curtain(stage))
}

/// A current-thread runtime on a thread of its own, which goes on for ever.
fn on_thread(play: impl FnOnce() -> (Stage, Option<LocalSet>) + Send + 'static) -> Stage {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
        let guard = runtime.enter();
        let (stage, set) = play();
        drop(guard);
        let _ = tell.send(stage);
        match set {
            Some(set) => set.block_on(&runtime, std::future::pending::<()>()),
            None => runtime.block_on(std::future::pending::<()>()),
        }
    });
    told.recv().expect("its stage")
}
