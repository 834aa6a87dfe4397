//! The scenes of `tests/targets` in a process that embeds taskprof.

mod calls;
#[path = "../../../../targets/src/churn.rs"]
#[allow(dead_code)]
mod churn;
#[path = "../../../../targets/src/deadlock.rs"]
#[allow(dead_code)]
mod deadlock;
#[path = "../../../../targets/src/futurelock.rs"]
#[allow(dead_code)]
mod futurelock;
#[path = "../../../../targets/src/leaked.rs"]
mod leaked;
#[path = "../../../../targets/src/runtimes.rs"]
#[allow(dead_code)]
mod runtimes;
#[path = "../../../../targets/src/shapes.rs"]
mod shapes;
#[path = "../../../../targets/src/shapes_many.rs"]
mod shapes_many;
#[path = "../../../../targets/src/stage.rs"]
#[allow(dead_code)] // what other scenes need
mod stage;
#[path = "../../../../targets/src/waits.rs"]
mod waits;
#[path = "../../../../targets/src/waits_io.rs"]
mod waits_io;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = taskprof::Profiler::builder().http("127.0.0.1:0");
    if let Some(folder) = std::env::args().nth(2) {
        builder = builder.debug_folder(folder);
    }
    let profiler = builder.start()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    let runtime = profiler.runtime(builder).build()?;
    println!("http listening on {}", profiler.http_addr().ok_or("no address")?);

    let scene = std::env::args().nth(1).unwrap_or_default();
    if scene == "several" {
        // Runtimes and a `LocalSet` that the profiler was told nothing of.
        runtimes::several();
        return Ok(());
    }
    let mut stage = stage::Stage::new(runtime.handle().clone());
    runtime.block_on(async {
        match scene.as_str() {
            "waits" => {
                waits::play(&mut stage).await;
                waits_io::play(&mut stage).await;
            }
            "shapes" => {
                shapes::play(&mut stage).await;
                shapes_many::play(&mut stage).await;
            }
            "churn" => churn::play(&mut stage).await,
            "deadlock" => deadlock::two(&mut stage).await,
            "leaked" => calls::cancelled(&mut stage, profiler.clone(), false).await,
            "leaked-healthy" => calls::cancelled(&mut stage, profiler.clone(), true).await,
            "futurelock-held" => futurelock::held(&mut stage).await,
            other => return Err(format!("no scene {other:?}").into()),
        }
        stage::curtain(stage).await
    })
}
