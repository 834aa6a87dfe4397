//! What the command line keeps of debug information that it has read.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde_json::Value;

use super::targets::{Made, Target};
use super::truth::must_agree;

fn dump(target: &Target, caches: &Path, more: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_taskprof"))
        .args(["dump", "--format", "json", "--pid", &target.pid().to_string()])
        .args(more)
        .env("XDG_CACHE_HOME", caches)
        .stdin(Stdio::null())
        .output()
        .expect("taskprof starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_second_dump_reads_what_the_first_has_kept() {
    let made = Made::new();
    let caches = made.path("caches");
    for scene in ["waits", "shapes"] {
        let mut target = Target::dev(scene);
        let _ = fs::remove_dir_all(&caches);
        must_agree(&target.truth, &dump(&target, &caches, &["--no-cache"]));
        assert!(!caches.exists(), "nothing is kept that is not wanted");
        must_agree(&target.truth, &dump(&target, &caches, &[]));
        let mut kept = fs::read_dir(caches.join("taskprof")).expect("its folder");
        let file = kept.next().expect("a file").expect("an entry").path();
        assert!(kept.next().is_none(), "one program, one file");
        // A file that is used is a young one.
        let old = File::options().write(true).open(&file).expect("it opens");
        old.set_modified(SystemTime::UNIX_EPOCH).expect("its time");
        must_agree(&target.truth, &dump(&target, &caches, &[]));
        let used = file.metadata().and_then(|it| it.modified()).expect("its time");
        assert!(used > SystemTime::UNIX_EPOCH, "it was read");
        target.must_be_well();
    }
}
