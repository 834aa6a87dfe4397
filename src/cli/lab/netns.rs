//! Two network namespaces with a link between them, made and removed by us.
//!
//! Here packets can be lost for good, which no proxy can do: nobody
//! acknowledges them. It takes root and iproute2; nothing outside the two
//! namespaces is touched.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The server's address on the link; both namespaces are private.
pub const SERVER: &str = "10.207.0.1";
const CLIENT: &str = "10.207.0.2";
const DEVICE: &str = "link0";
/// A locally administered address that no device has.
const NOBODY: &str = "02:00:00:00:00:ff";

/// The two namespaces, removed when dropped.
pub struct Netns {
    /// Where the server runs.
    pub server: String,
    /// Where the client runs.
    pub client: String,
}

impl Netns {
    /// Makes them.
    ///
    /// # Errors
    /// Why there are none on this machine.
    pub fn make() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Relaxed);
        let name = |side| format!("taskprof-{}-{number}-{side}", std::process::id());
        // From here on its drop removes what there is of it.
        let pair = Self { server: name("s"), client: name("c") };
        for namespace in [&pair.server, &pair.client] {
            run("ip", &["netns", "add", namespace])?;
            run("ip", &["-n", namespace, "link", "set", "lo", "up"])?;
        }
        let (server, client) = (pair.server.as_str(), pair.client.as_str());
        let ends = ["netns", server, "type", "veth", "peer", "name", DEVICE, "netns", client];
        run("ip", &[&["link", "add", DEVICE], &ends[..]].concat())?;
        for (namespace, address) in [(server, SERVER), (client, CLIENT)] {
            run("ip", &["-n", namespace, "addr", "add", &format!("{address}/30"), "dev", DEVICE])?;
            run("ip", &["-n", namespace, "link", "set", DEVICE, "up"])?;
        }
        Ok(pair)
    }

    /// From now on every packet is lost, both ways: each side sends to a
    /// hardware address that nobody listens to.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn blackhole(&self) -> Result<(), String> {
        for (namespace, peer) in [(&self.server, CLIENT), (&self.client, SERVER)] {
            let entry = [peer, "lladdr", NOBODY, "dev", DEVICE, "nud", "permanent"];
            run("ip", &[&["-n", namespace, "neigh", "replace"], &entry[..]].concat())?;
        }
        Ok(())
    }

    /// From now on the link drops what exceeds 2 Mbit/s, both ways.
    ///
    /// # Errors
    /// What `tc` says.
    pub fn drop_excess(&self) -> Result<(), String> {
        for namespace in [&self.server, &self.client] {
            let shape = ["rate", "2mbit", "burst", "8kb", "limit", "12kb"];
            let qdisc = ["-n", namespace, "qdisc", "add", "dev", DEVICE, "root", "tbf"];
            run("tc", &[&qdisc[..], &shape[..]].concat())?;
        }
        Ok(())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            // The link goes with them. What was never made cannot be removed.
            let _ = run("ip", &["netns", "del", namespace]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.map_err(|error| format!("cannot run `{program}`: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let said = said.lines().next().unwrap_or("it failed");
    Err(format!("`{program} {}`: {said}", arguments.join(" ")))
}
