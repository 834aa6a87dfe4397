//! `/debug/tasks` and `/debug/tasks/{id}`

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::Uri;

use super::params::{Params, id};
use super::{Answer, long_answer};
use crate::analyze::Judge;
use crate::model::{Snapshot, Task, TaskId};
use crate::render::json::{self, Head, Json, TaskAnswer, TaskGroupsAnswer, TaskRef, TasksAnswer};
use crate::render::select::{
    GroupSort, TASK_FILTER, TaskSort, group_tasks, select_tasks, task_filter,
};
use crate::serve::flight::{Held, call};
use crate::serve::problem::Problem;
use crate::serve::server::Shared;
use crate::serve::source::Want;

/// Relatives listed with one task; the count says how many there are.
pub const RELATIVES: usize = 1_000;

#[derive(Default)]
enum Group {
    #[default]
    None,
    Stack,
}

pub async fn list(State(shared): State<Shared>, uri: Uri) -> Answer {
    let params = Params::parse(&uri, &["group", "filter", "sort", "limit", "cursor"])?;
    let group = params.choice("group", "stack or none", |word| match word {
        "none" => Some(Group::None),
        "stack" => Some(Group::Stack),
        _ => None,
    })?;
    let filter = task_filter(params.get("filter").unwrap_or_default())
        .map_err(|error| Problem::bad(error, TASK_FILTER))?;
    let limit = params.limit()?;
    match group {
        Group::None => {
            let sort = params.choice("sort", TaskSort::WORDS, TaskSort::parse)?;
            let after = params.cursor(sort.number())?;
            let held = shared.flight.snapshot(Want::ALL).await?;
            let chunks = call(&shared.stats, move || {
                let page = select_tasks(&held, &filter, sort, after, limit);
                let head = TasksAnswer {
                    head: Head::of(&held),
                    total: held.tasks.len() as u64,
                    matched: page.matched,
                    next_cursor: page.next.map(|next| next.to_string()),
                    tasks: Vec::new(),
                };
                let rows = page.rows;
                Ok(Json::list(&head, rows.len(), move |row, out| {
                    json::append(&held.tasks[rows[row]], out)
                }))
            });
            Ok(long_answer(&shared, chunks.await?))
        }
        Group::Stack => {
            let sort = params.choice("sort", GroupSort::WORDS, GroupSort::parse)?;
            let after = params.cursor(sort.number())?;
            let held = shared.flight.snapshot(Want::ALL).await?;
            let chunks = call(&shared.stats, move || {
                let page = group_tasks(&held, &filter, sort, after, limit);
                let head = TaskGroupsAnswer {
                    head: Head::of(&held),
                    total: held.tasks.len() as u64,
                    matched: page.matched,
                    groups_total: page.total,
                    next_cursor: page.next.map(|next| next.to_string()),
                    groups: Vec::new(),
                };
                let groups = page.groups;
                Ok(Json::list(&head, groups.len(), move |row, out| json::append(&groups[row], out)))
            });
            Ok(long_answer(&shared, chunks.await?))
        }
    }
}

pub async fn one(State(shared): State<Shared>, Path(wanted): Path<String>, uri: Uri) -> Answer {
    Params::parse(&uri, &[])?;
    let wanted: TaskId = id(&wanted, "task")?;
    let held = shared.flight.snapshot(Want::ALL).await?;
    let body = call(&shared.stats, move || {
        let Some(task) = find(&held, wanted) else { return Ok(None) };
        let children = || held.tasks.iter().filter(|child| child.parent == Some(wanted));
        let stream = task.stream.and_then(|stream| {
            held.streams.iter().chain(&held.ended_streams).find(|candidate| candidate.id == stream)
        });
        Ok(Some(json::to_vec(&TaskAnswer {
            head: Head::of(&held),
            task: task.clone(),
            parent: task.parent.and_then(|parent| find(&held, parent)).map(TaskRef::from),
            children_total: children().count() as u64,
            children: children().take(RELATIVES).map(TaskRef::from).collect(),
            stream: stream.cloned(),
            verdict: stream.map(|stream| Judge::new(&held).verdict(stream)),
            blocked: held.blocked.iter().filter(|it| it.task == Some(wanted)).cloned().collect(),
        })))
    });
    match body.await? {
        Some(body) => Ok(super::json_body(body.into())),
        None => Err(Problem::not_found(format!("there is no live task {wanted}"))),
    }
}

/// Tasks are listed by id.
fn find(snapshot: &Snapshot, id: TaskId) -> Option<&Task> {
    snapshot
        .tasks
        .binary_search_by_key(&id, |task| task.id)
        .ok()
        .map(|index| &snapshot.tasks[index])
}

/// Keeps the signature of what renderers hold in one place.
pub fn shot(held: Arc<Held>) -> crate::render::Shot {
    held
}
