//! What each endpoint answers.

use super::fixture::*;

#[test]
fn tasks_as_json() {
    let target = busy();
    let all = target.get("/debug/tasks");
    assert_eq!((all.status, all.header("content-type")), (200, Some("application/json")));
    let all = all.json();
    assert_eq!(all["schema"], 1);
    assert_eq!(all["tasks"].as_array().unwrap().len(), 6);
    assert_eq!(all["coverage"]["missing"][0]["reason"], "no_await_chain");
    assert_eq!(all["tasks"][0]["id"], "10");
}

#[test]
fn the_goroutine_profile_in_three_forms() {
    let target = busy();
    let profile = target.get("/debug/pprof/goroutine");
    assert_eq!(profile.header("content-type"), Some("application/octet-stream"));
    assert_eq!(profile.header("content-disposition"), Some("attachment; filename=\"goroutine\""));
    let profile = crate::render::pprof::decode(&profile.body);
    assert_eq!(profile.sample.iter().map(|sample| sample.value[1]).sum::<i64>(), 6);
    let text = target.get("/debug/pprof/goroutine?debug=1");
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(text.text().starts_with("goroutine profile: total 6\n"));
    assert!(
        target.get("/debug/pprof/goroutine?debug=2").text().starts_with("goroutine 10 [idle, 41s]")
    );
}
