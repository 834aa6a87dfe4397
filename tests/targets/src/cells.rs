//! Cells whose initialisers wait for each other.

use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio::time::sleep;

use crate::stage::{Gate, HOUR, Role, Stage, role};

type Cell = Arc<OnceCell<u32>>;

pub async fn circle(stage: &mut Stage) {
    let [a, b] = [Cell::default(), Cell::default()];
    let (begun, go) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let [left, right] = [from("left", "a", "b"), from("right", "b", "a")];
    stage.spawn(left, one_from_another(a.clone(), b.clone(), begun.clone(), go.clone()));
    stage.spawn(right, one_from_another(b, a, begun.clone(), go.clone()));
    begun.pass().await;
    begun.pass().await;
    go.let_one_pass();
    go.let_one_pass();
    stage.finding("deadlock", &["left", "right"]);
}

/// The second cell is initialised by a task that needs nothing of them.
pub async fn row(stage: &mut Stage) {
    let [a, b] = [Cell::default(), Cell::default()];
    let (begun, go) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let last = role("last").path(&["last_cell_fill", "last_cell"]).waits("sleep");
    stage.spawn(last.holds("permit", "b", "permit", "-"), slowly(b.clone(), begun.clone()));
    begun.pass().await;
    let left = from("left", "a", "b");
    stage.spawn(left, one_from_another(a.clone(), b, begun.clone(), go.clone()));
    begun.pass().await;
    go.let_one_pass();
}

/// A cell that needs itself.
pub async fn itself(stage: &mut Stage) {
    let selfish = from("selfish", "a", "a");
    let (a, gate) = (Cell::default(), Arc::new(Gate::default()));
    gate.let_one_pass();
    stage.spawn(selfish, one_from_another(a.clone(), a, Arc::default(), gate));
    stage.finding("deadlock", &["selfish"]);
}

fn from(name: &'static str, one: &str, other: &str) -> Role {
    let role = role(name).path(&["other_cell", "one_cell"]).waits("once_cell").on(other);
    role.queue(1).holds("permit", one, "permit", "-")
}

async fn one_from_another(one: Cell, other: Cell, begun: Arc<Gate>, go: Arc<Gate>) -> u32 {
    let fill = async || {
        begun.let_one_pass();
        go.pass().await;
        *other.get_or_init(async || 1).await // MARK: other_cell
    };
    *one.get_or_init(fill).await // MARK: one_cell
}

async fn slowly(cell: Cell, begun: Arc<Gate>) -> u32 {
    let fill = async || {
        begun.let_one_pass();
        sleep(HOUR).await; // MARK: last_cell_fill
        1
    };
    *cell.get_or_init(fill).await // MARK: last_cell
}
