//! What can be said on the command line, and its help.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::Failure;
use crate::attach::CopyLimits;
use crate::debuginfo::layout::{Cache, Options};

/// Where the real `console_subscriber` listens with `--console full`, and ours by default.
pub const CONSOLE_DEFAULT: &str = "127.0.0.1:6669";

/// The goroutine profile for tokio and tonic.
#[derive(Debug, Parser)]
#[command(
    name = "taskprof",
    version,
    about = "The goroutine profile for tokio and tonic: what every task and gRPC stream is doing now",
    after_help = "\
Examples:
  taskprof demo                       a server with trouble in it, and where to look
  taskprof serve --faults             the server alone, faults allowed
  taskprof load --scenario ping-pong  traffic for it
  taskprof dump --pid 4711            every task of any tokio process
  taskprof attach --pid 4711          the dashboard for it
  taskprof diff a.json b.json         what grew between two snapshots

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 a second Ctrl-C: it ended at once."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the reference server under real traffic, part of it stuck on purpose
    #[command(after_help = "\
Examples:
  taskprof demo
  taskprof demo --seconds 30
  taskprof demo --grpc 127.0.0.1:0 --http 127.0.0.1:0 --console off")]
    Demo(DemoArgs),
    /// Run the reference gRPC server alone
    #[command(after_help = "\
Examples:
  taskprof serve
  taskprof serve --faults --workers 4 --blocked-threshold 50ms
  taskprof serve --http 0.0.0.0:6060 --token-file ./token")]
    Serve(ServeArgs),
    /// Send gRPC traffic to a server
    #[command(after_help = "\
Examples:
  taskprof load --scenario list
  taskprof load --scenario ping-pong --streams 64 --seconds 10
  taskprof load --scenario unread-stream --grpc 127.0.0.1:50051")]
    Load(LoadArgs),
    /// Run every way to be stuck and check what is said of it
    #[command(after_help = "\
Examples:
  taskprof lab
  taskprof lab --case list
  taskprof lab --case unread-stream --case path-holds --format json
  taskprof lab --healthy 600

Each case is a server process and a client process, with a proxy, a signal or
network namespaces between them where the case needs it. The truth is known;
the table shows what each side says by itself, and after how long.")]
    Lab(LabArgs),
    /// Dump every task of a server, of any tokio process, or of a core dump
    #[command(after_help = "\
Examples:
  taskprof dump --url http://127.0.0.1:6060
  taskprof dump --pid 4711
  taskprof dump --pid 4711 --format html -o tasks.html
  taskprof dump --core core.4711 --exe ./server --format pprof -o tasks.pb.gz

A process is stopped for as long as its memory is copied; the first lines of
the text say for how long that was. It needs no preparation but debug information (debug = \"full\"),
in it, beside it, or as a layout file.")]
    Dump(DumpArgs),
    /// Compare two snapshots: what grew, what is new, what is gone
    #[command(after_help = "\
Examples:
  curl -s http://127.0.0.1:6060/debug/snapshot > before.json
  taskprof diff before.json after.json
  taskprof diff before.json http://127.0.0.1:6060
  taskprof diff --format json --limit 100 before.json after.json

Snapshots are what `/debug/snapshot`, the dashboard's Download and
`taskprof dump --format json` give. Tasks are grouped by place, wait and method,
live streams by method, phase and verdict, connections by address. Snapshots of
two processes can be compared as well, which is said.")]
    Diff(DiffArgs),
    /// Serve the dashboard and all endpoints for a process that knows nothing of taskprof
    #[command(after_help = "\
Examples:
  taskprof attach --pid 4711
  taskprof attach --pid $(pidof server) --http 127.0.0.1:6061

Each look at the page, and each request, stops the process for as long as its
memory is copied; `taskprof dump --pid` says for how long that is.")]
    Attach(AttachArgs),
    /// Save what dumps need of a program's debug information, for its stripped copy
    #[command(after_help = "\
Examples:
  taskprof index target/release/server
  taskprof index server -o server.taskprof --debug-file server.debug

Beside the stripped program as `PROGRAM.taskprof` it is found by itself; kept
elsewhere it is named with --layout. It belongs to this one build.")]
    Index(IndexArgs),
}

/// Options of whatever runs a server.
#[derive(Clone, Debug, Args)]
pub struct Listen {
    /// Where gRPC is served; port 0 takes any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051", value_parser = address)]
    pub grpc: SocketAddr,

    /// Where the dashboard, the JSON and pprof are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6060", value_parser = address)]
    pub http: SocketAddr,

    /// Serve them on a Unix socket as well
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,

    /// Ask every HTTP request for the token in this file (needed off loopback)
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,

    /// Where tokio-console attaches: an address, `off`, or `full`
    ///
    /// With an address the console is served from the records that are kept
    /// anyway. `full` runs the real console_subscriber layer on 127.0.0.1:6669
    /// instead, for resources and async operations; measured, it costs about 3
    /// to 5 times the CPU of each message and 54 KB for each live task. It
    /// needs a build with `--features console-full`.
    #[arg(long, value_name = "ADDR|off|full", default_value = CONSOLE_DEFAULT)]
    pub console: Console,

    /// Polls longer than this count as blocking their worker
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
    pub blocked_threshold: Duration,

    /// End a stream whose client sends no message for so long [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub recv_timeout: Option<Duration>,

    /// End a stream whose client takes no message for so long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub send_timeout: Option<Duration>,

    /// Streams a second that one connection may start; more are refused
    #[arg(long, value_name = "N", default_value = "50000")]
    pub stream_rate: Option<NonZeroU32>,

    /// Messages a second that one connection may send; more wait [default: no limit]
    #[arg(long, value_name = "N")]
    pub message_rate: Option<NonZeroU32>,

    /// Streams a second of one method, whoever starts them; more are refused [default: no limit]
    #[arg(long, value_name = "N")]
    pub method_stream_rate: Option<NonZeroU32>,

    /// Messages a second to one method, whoever sends them; more wait [default: no limit]
    #[arg(long, value_name = "N")]
    pub method_message_rate: Option<NonZeroU32>,

    /// Streams at once on a connection; a client's others wait for a slot
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,

    /// How often a connection is pinged
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub keepalive: Duration,

    /// Close a connection whose peer does not answer a ping for so long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub keepalive_timeout: Duration,

    /// Export a span for each stream by OTLP/gRPC, such as to http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,

    /// Export a span for each stream to Zipkin, such as http://127.0.0.1:9411
    #[arg(long, value_name = "URL")]
    pub zipkin: Option<String>,

    /// Worker threads of the server's runtime [default: one for each processor, in the demo at least 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,

    /// Stop by itself after so many seconds [default: run until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub seconds: Option<u64>,
}

/// The largest window of HTTP/2 (RFC 9113, section 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// A year; longer is a typing error, and would overflow clocks.
const SECONDS_MAX: u64 = 366 * 24 * 3600;

#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub listen: Listen,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub listen: Listen,

    /// Also serve taskprof.lab.v1.Lab, whose methods block, leak and flood on purpose
    #[arg(long)]
    pub faults: bool,
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// What to do; `list` shows all scenarios
    #[arg(long, value_name = "NAME", default_value = "mix")]
    pub scenario: String,

    /// The server to talk to
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051", value_parser = address)]
    pub grpc: SocketAddr,

    /// Calls under way at one time [default: depends on the scenario]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub streams: Option<u32>,

    /// Connections to spread them over
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub connections: u32,

    /// For how long; Ctrl-C ends it earlier
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX)
    )]
    pub seconds: u64,

    /// Watch the client as well: serve its dashboard, the JSON and pprof there
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub http: Option<SocketAddr>,

    /// The same on a Unix socket
    #[arg(long, value_name = "PATH")]
    pub unix: Option<PathBuf>,

    /// How often a connection is pinged
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub keepalive: Duration,

    /// How long block-thread and busy-loop take a worker at a time
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub hold: Duration,

    /// How often an application heartbeat goes to the server [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub heartbeat: Option<Duration>,

    /// Receive window of a stream, in bytes [default: hyper's, 2 MiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(WINDOW_MAX)))]
    pub stream_window: Option<u32>,

    /// Receive window of a connection, in bytes [default: hyper's, 5 MiB]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(WINDOW_MAX)))]
    pub connection_window: Option<u32>,
}

#[derive(Debug, Args)]
pub struct LabArgs {
    /// Run only this case; may be given more than once; `list` shows all cases
    #[arg(long = "case", value_name = "NAME")]
    pub cases: Vec<String>,

    /// How to write the result
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LabFormat::Table)]
    pub format: LabFormat,

    /// Instead of the cases: healthy traffic of all kinds for so many seconds,
    /// in which there must be no alarm [default: 600]
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "600",
        conflicts_with = "cases",
        value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX)
    )]
    pub healthy: Option<u64>,

    /// How many times as long as usual a verdict may take, for a machine that
    /// is busy with other things
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub patience: u8,

    /// Cases that run at one time; those that compute run alone
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub jobs: u8,
}

/// How `taskprof lab` writes its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LabFormat {
    /// A table for the terminal
    Table,
    /// All of it, with the streams as they were seen
    Json,
    /// A table for a document, with the evidence
    Markdown,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("of").required(true).args(["url", "pid", "core"]))]
pub struct DumpArgs {
    /// A server that embeds taskprof, by its HTTP address, such as http://127.0.0.1:6060
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// Any running tokio program built with debug information, by its process id
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,

    /// A core dump of a tokio program; give --exe as well
    #[arg(long, value_name = "FILE", requires = "exe")]
    pub core: Option<PathBuf>,

    /// The program that left the core dump
    #[arg(long, value_name = "FILE", requires = "core")]
    pub exe: Option<PathBuf>,

    #[command(flatten)]
    pub debug: DebugArgs,

    #[command(flatten)]
    pub copy: CopyArgs,

    /// What to write
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,

    /// Write to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Send the token in this file, with --url
    #[arg(long, value_name = "PATH", requires = "url")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The first snapshot: a file, or a server's HTTP address, such as
    /// http://127.0.0.1:6060, which is then asked for one
    #[arg(value_name = "BEFORE")]
    pub before: String,

    /// The second
    #[arg(value_name = "AFTER")]
    pub after: String,

    /// How to write the result
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = DiffFormat::Text)]
    pub format: DiffFormat,

    /// Groups to list of each kind; the others are counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,

    /// Send the token in this file to servers
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
}

/// How `taskprof diff` writes its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiffFormat {
    /// One line for each group that changed
    Text,
    /// All of each group, with its stack and some ids
    Json,
}

/// Where the debug information of a stripped program is.
#[derive(Clone, Debug, Args)]
pub struct DebugArgs {
    /// A file with the program's debug information (`.debug` or `.dwp`)
    #[arg(long, value_name = "FILE")]
    pub debug_file: Option<PathBuf>,

    /// A layout file that `taskprof index` made of the program before it was stripped
    #[arg(long, value_name = "FILE")]
    pub layout: Option<PathBuf>,

    /// A folder with layout files or debug information of this build among
    /// others; may be given several times
    #[arg(long, value_name = "DIR")]
    pub debug_folder: Vec<PathBuf>,

    /// Read the debug information itself, and keep nothing of it below
    /// ~/.cache/taskprof for the next dump
    #[arg(long)]
    pub no_cache: bool,
}

impl DebugArgs {
    /// Whether anything was given.
    pub fn any(&self) -> bool {
        self.debug_file.is_some() || self.layout.is_some() || !self.debug_folder.is_empty()
    }

    /// Where to look.
    ///
    /// # Errors
    /// For a folder that cannot be listed: what lies in it would be missed in
    /// silence.
    pub fn options(&self) -> Result<Options, Failure> {
        for folder in &self.debug_folder {
            std::fs::read_dir(folder).map_err(|error| {
                Failure::usage(format!("cannot read the folder {}: {error}", folder.display()))
            })?;
        }
        Ok(Options {
            debug_file: self.debug_file.clone(),
            layout: self.layout.clone(),
            folders: self.debug_folder.clone(),
            cache: if self.no_cache { None } else { Cache::of_user() },
            ..Options::default()
        })
    }
}

/// What copying another process may cost.
#[derive(Clone, Copy, Debug, Args)]
pub struct CopyArgs {
    /// The most memory of another process that is copied, in GiB. The process
    /// is stopped for it, up to half a second for each
    #[arg(long, value_name = "GIB", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub max_memory: u16,
}

impl CopyArgs {
    /// The same as bounds of a copy.
    pub fn limits(self) -> CopyLimits {
        CopyLimits::of_gib(self.max_memory)
    }
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The process to look at: a tokio program built with debug information
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: i32,

    /// Where the dashboard, the JSON and pprof are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6060", value_parser = address)]
    pub http: SocketAddr,

    /// Ask every HTTP request for the token in this file (needed off loopback)
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,

    #[command(flatten)]
    pub debug: DebugArgs,

    #[command(flatten)]
    pub copy: CopyArgs,

    /// Stop by itself after so many seconds [default: run until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    pub seconds: Option<u64>,
}

#[derive(Debug, Args)]
pub struct IndexArgs {
    /// The program, built with `debug = 2`
    #[arg(value_name = "EXE")]
    pub program: PathBuf,

    /// Where to write the layouts [default: EXE.taskprof]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// The program's debug information, if it is in a file of its own and not found
    #[arg(long, value_name = "FILE")]
    pub debug_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// What is wrong, then one paragraph for each task, as Go prints goroutines
    Text,
    /// The whole snapshot
    Json,
    /// A gzip-compressed profile for `go tool pprof` and its like
    Pprof,
    /// One page to keep or to send
    Html,
    /// What is wrong now, as JSON
    Findings,
}

/// What `--console` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Console {
    /// Nothing to attach to.
    Off,
    /// Our own records on the console's wire.
    At(SocketAddr),
    /// The real `console_subscriber`.
    Full,
}

impl FromStr for Console {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "full" => Ok(Self::Full),
            other => address(other)
                .map(Self::At)
                .map_err(|_| "expected an address such as 127.0.0.1:6669, `off` or `full`".into()),
        }
    }
}

impl fmt::Display for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Full => f.write_str("full"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// `IP:PORT` or `localhost:PORT`. Other names are refused: where a debug
/// server listens should not depend on a name server.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let expected = || String::from("expected IP:PORT, such as 127.0.0.1:6060 or [::1]:0");
    if let Some(port) = text.strip_prefix("localhost:") {
        let port: u16 = port.parse().map_err(|_| expected())?;
        let mut found = ("127.0.0.1", port).to_socket_addrs().map_err(|_| expected())?;
        return found.next().ok_or_else(expected);
    }
    text.parse().map_err(|_| expected())
}

/// A number with its unit: `250us`, `100ms`, `1.5s`, `2m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || String::from("expected a time with its unit, such as 100ms, 1.5s or 2m");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| expected())?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(expected()),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && duration <= Duration::from_secs(3600) => {
            Ok(duration)
        }
        _ => Err("expected a time above 0 and up to 60m".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_need_a_unit_and_sense() {
        for (text, ms) in [("100ms", 100), ("1.5s", 1_500), ("2m", 120_000), ("5000us", 5)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "ms", "-1s", "0s", "61m", "1h", "nans", "1e99s", "s5"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_is_served_to_others_unless_asked() {
        for command in ["serve", "demo"] {
            let listen = match Cli::try_parse_from(["taskprof", command]).unwrap().command {
                Command::Serve(args) => args.listen,
                Command::Demo(args) => args.listen,
                other => panic!("{other:?}"),
            };
            let of = |port| SocketAddr::from(([127, 0, 0, 1], port));
            assert_eq!((listen.grpc, listen.http), (of(50_051), of(6_060)), "{command}");
            // tokio-console looks there by default.
            assert_eq!(listen.console, Console::At(of(6_669)), "{command}");
            assert_eq!((listen.unix, listen.otlp, listen.zipkin), (None, None, None), "{command}");
        }
    }

    #[test]
    fn consoles_and_addresses() {
        assert_eq!("off".parse(), Ok(Console::Off));
        assert_eq!("full".parse(), Ok(Console::Full));
        assert_eq!("127.0.0.1:1".parse(), Ok(Console::At(([127, 0, 0, 1], 1).into())));
        assert_eq!("localhost:1".parse(), Ok(Console::At(([127, 0, 0, 1], 1).into())));
        assert!("fulll".parse::<Console>().is_err());
        assert!(address("example.org:80").is_err());
        assert!(address("127.0.0.1").is_err());
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in ".{0,40}") {
            let _ = duration(&text);
            let _ = address(&text);
            let _ = text.parse::<Console>();
        }
    }
}
