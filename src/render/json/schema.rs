//! The JSON Schema of all answers, made from their types.

use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::answers::{
    ConnectionsAnswer, CountersEvent, FindingsAnswer, HealthAnswer, LogAnswer, ProblemAnswer,
    StreamAnswer, StreamsAnswer, TaskAnswer, TaskGroupsAnswer, TasksAnswer, WorkersAnswer,
};
use crate::model::Snapshot;

/// One document; each answer is `#/$defs/<its name>`.
pub fn schema() -> Value {
    // Answers are written by us and read by others: describe what is written.
    let mut generator =
        SchemaGenerator::new(schemars::generate::SchemaSettings::draft2020_12().for_serialize());
    macro_rules! add {
        ($($answer:ty),*) => { $(generator.subschema_for::<$answer>();)* };
    }
    add!(
        TasksAnswer,
        TaskGroupsAnswer,
        TaskAnswer,
        StreamsAnswer,
        StreamAnswer,
        ConnectionsAnswer,
        WorkersAnswer,
        FindingsAnswer,
        CountersEvent,
        HealthAnswer,
        LogAnswer,
        ProblemAnswer,
        Snapshot
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "taskprof",
        "description": "The JSON answers of taskprof's debug server.",
        "$defs": generator.take_definitions(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_schema_is_fresh() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema.json");
        let made = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("TASKPROF_REGENERATE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &made).unwrap();
        }
        let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            made == checked_in,
            "docs/schema.json is stale; TASKPROF_REGENERATE=1 writes it anew"
        );
    }
}
