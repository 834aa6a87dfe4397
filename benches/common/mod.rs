//! What the benches share: paired rounds, medians, figures of a process.
#![allow(dead_code)] // each bench uses a part

use std::time::Duration;

/// The median of some figures; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        n if n % 2 == 1 => figures[n / 2],
        n => (figures[n / 2 - 1] + figures[n / 2]) / 2.0,
    }
}

/// Smallest and largest.
pub fn spread(figures: &[f64]) -> (f64, f64) {
    figures.iter().fold((f64::MAX, f64::MIN), |(low, high), f| (low.min(*f), high.max(*f)))
}

/// One line: what, the median of the pairwise ratios, their spread, the goal.
pub fn print_ratio(what: &str, ratios: &[f64], goal: &str) {
    let (low, high) = spread(ratios);
    println!("  {what:<44} {:>6.3}  ({low:.3} to {high:.3})  goal {goal}", median(ratios.to_vec()));
}

/// User and system time that this process has used.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc");
    // The name may hold spaces; fields count from after its parenthesis.
    let fields: Vec<&str> = stat[stat.rfind(')').expect("name") + 2..].split(' ').collect();
    let ticks: u64 =
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    // USER_HZ is 100 on every Linux that Rust supports.
    Duration::from_millis(ticks * 10)
}

/// Resident memory of this process in bytes.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).expect("figure").parse().expect("number");
    kib * 1024
}

/// Runs this very program again in another role and returns what it prints.
pub fn again(role: &str, args: &[&str]) -> String {
    let exe = std::env::current_exe().expect("own path");
    let output = std::process::Command::new(exe)
        .arg(role)
        .args(args)
        .stderr(std::process::Stdio::inherit())
        .output()
        .expect("run again");
    assert!(output.status.success(), "role {role} failed: {}", output.status);
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// The role given on the command line, if any. `cargo bench` adds `--bench`.
pub fn role() -> Option<(String, Vec<String>)> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let role = args.next()?;
    Some((role, args.collect()))
}
