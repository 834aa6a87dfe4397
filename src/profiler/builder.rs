//! Configuration of a [`Profiler`].

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::awaits::Awaits;
use super::names::Names;
use super::{Core, Profiler, Shared, bad_address};
#[cfg(feature = "console")]
use crate::console::{self, ConsoleConfig, ConsoleServer};
use crate::debuginfo::layout::Options;
use crate::error::{Error, ErrorKind, Result};
use crate::inspect::threads::StackReader;
#[cfg(feature = "grpc")]
use crate::instrument::grpc::MetadataKeys;
use crate::instrument::runtime_metrics::RuntimeFigures;
use crate::instrument::watchdog::Watchdog;
use crate::model::Process;
#[cfg(feature = "otel")]
use crate::otel::OtelConfig;
use crate::registry::streams::Bounds;
use crate::registry::tasks::DEFAULT_MAX_TASKS;
use crate::registry::{DEFAULT_BLOCKED_THRESHOLD, Registry, clock};
use crate::serve::{self, Listen, ServeConfig, Source, Token};

/// Below this the watchdog would report what is merely a busy machine.
const LEAST_THRESHOLD: Duration = Duration::from_millis(10);

/// Standard methods whose streams wait for what may never come.
#[cfg(feature = "grpc")]
const IDLE: [&str; 4] = [
    "/grpc.health.v1.Health/Watch",
    "/taskprof.heartbeat.v1.Heartbeat/Beat",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Configures a [`Profiler`]. Nothing listens unless asked to.
#[derive(Clone, Debug)]
pub struct Builder {
    http: Option<String>,
    unix: Option<PathBuf>,
    #[cfg(feature = "console")]
    console: Option<String>,
    token: Option<String>,
    hosts: Vec<String>,
    control: bool,
    threshold: Duration,
    max_tasks: usize,
    bounds: Bounds,
    await_chains: bool,
    debug_options: Options,
    #[cfg(feature = "grpc")]
    metadata: MetadataKeys,
    #[cfg(feature = "grpc")]
    descriptors: Vec<Vec<u8>>,
    #[cfg(feature = "grpc")]
    idle: Vec<String>,
    #[cfg(feature = "otel")]
    otel: Option<OtelConfig>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            http: None,
            unix: None,
            #[cfg(feature = "console")]
            console: None,
            token: None,
            hosts: Vec::new(),
            control: false,
            threshold: DEFAULT_BLOCKED_THRESHOLD,
            max_tasks: DEFAULT_MAX_TASKS,
            bounds: Bounds::default(),
            await_chains: true,
            debug_options: Options::default(),
            #[cfg(feature = "grpc")]
            metadata: MetadataKeys::default(),
            #[cfg(feature = "grpc")]
            descriptors: Vec::new(),
            #[cfg(feature = "grpc")]
            idle: IDLE.map(str::to_owned).to_vec(),
            #[cfg(feature = "otel")]
            otel: None,
        }
    }
}

impl Builder {
    /// Serves the dashboard and the debug endpoints on `IP:PORT`; port 0 takes
    /// a free one. An address that is not loopback needs a [`token`](Self::token).
    #[must_use]
    pub fn http(mut self, address: impl ToString) -> Self {
        self.http = Some(address.to_string());
        self
    }

    /// Serves them on a unix socket, mode 0600; with or without [`http`](Self::http).
    #[must_use]
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix = Some(path.into());
        self
    }

    /// Lets `tokio-console` attach on a loopback `IP:PORT`. It shows the tasks
    /// that tokio's hooks tell of, and so none without `--cfg tokio_unstable`.
    #[cfg(feature = "console")]
    #[must_use]
    pub fn console(mut self, address: impl ToString) -> Self {
        self.console = Some(address.to_string());
        self
    }

    /// Asks clients for `Authorization: Bearer` with this secret of 32 bytes or more.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// A further host name (without port) under which clients may reach the
    /// server. Loopback names and the bound address are always allowed.
    #[must_use]
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Offers `POST /debug/log`, which turns the logging of single streams on
    /// and off. Without it the server changes nothing. Default: off.
    #[must_use]
    pub fn control(mut self, on: bool) -> Self {
        self.control = on;
        self
    }

    /// Polls longer than this count as blocked. Default: 100 ms.
    #[must_use]
    pub fn blocked_threshold(mut self, threshold: Duration) -> Self {
        self.threshold = threshold;
        self
    }

    /// Live tasks held at most, besides up to 256 new ones of each worker; more
    /// are counted, not listed. Default: 200,000.
    #[must_use]
    pub fn max_tasks(mut self, tasks: usize) -> Self {
        self.max_tasks = tasks;
        self
    }

    /// Live streams held at most; more are counted, not listed. Default: 100,000.
    #[must_use]
    pub fn max_streams(mut self, streams: u32) -> Self {
        self.bounds.live = streams;
        self
    }

    /// Ended streams kept for looking back. Default: 1,000.
    #[must_use]
    pub fn ended_streams(mut self, streams: usize) -> Self {
        self.bounds.ended = streams;
        self
    }

    /// Reads the await chain of every task for each dump, from a copy-on-write
    /// image of this process. Default: on. Off, dumps show spawn places and the
    /// native stacks of running tasks only, and never fork.
    #[must_use]
    pub fn await_chains(mut self, on: bool) -> Self {
        self.await_chains = on;
        self
    }

    /// Where to look for layout files (`*.taskprof`, of whatever name: the
    /// build id in them tells) and debug information (`xx/yyyy.debug` by build
    /// id, the name in `.gnu_debuglink`, `EXE.debug`, `EXE.dwp`, `.dwo` files)
    /// of a stripped executable, besides the places beside it and
    /// `/usr/lib/debug`. May be called again for further folders.
    #[must_use]
    pub fn debug_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.debug_options.folders.push(folder.into());
        self
    }

    /// Request metadata to keep with a stream and to show. Default: none.
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn metadata(mut self, keys: MetadataKeys) -> Self {
        self.metadata = keys;
        self
    }

    /// An encoded `FileDescriptorSet`, from which the kind of each method
    /// (unary, bidi, ...) is learned.
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn descriptors(mut self, set: &[u8]) -> Self {
        self.descriptors.push(set.to_vec());
        self
    }

    /// Methods, written `/package.Service/Method`, whose streams are silent for
    /// long by design: that is then no sign of trouble. They are added to
    /// `Watch` of gRPC's health service and to server reflection.
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn idle_methods(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.idle.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Exports one OpenTelemetry span for each stream that begins from now on,
    /// from a thread of its own. Default: off, and free. See
    /// `docs/standards.md`.
    #[cfg(feature = "otel")]
    #[must_use]
    pub fn otel(mut self, config: OtelConfig) -> Self {
        self.otel = Some(config);
        self
    }

    /// Starts the watchdog and the servers that were asked for.
    ///
    /// # Errors
    /// `InvalidInput` for an address or token that makes no sense, `Unsafe` for
    /// an address that others can reach without a token, `Bind` if an address
    /// is in use, `Io` if threads cannot be had. Nothing is left behind.
    pub fn start(self) -> Result<Profiler> {
        if self.threshold < LEAST_THRESHOLD {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("the blocked threshold is {:?}; at least 10ms make sense", self.threshold),
            ));
        }
        let listen = self.listen()?;
        clock::calibrate();
        let registry = Arc::new(self.registry()?);
        let stacks = Arc::new(StackReader::new()?);
        let panics = Arc::new(AtomicU64::new(0));
        let names = Arc::new(Names::new(stacks.clone()));
        let watchdog = {
            let names = names.clone();
            let capture = Box::new(move |tid| names.captured(tid));
            Watchdog::start(registry.clone(), capture, panics.clone())?
        };
        // Of its own: a builder may be cloned, and started twice.
        let warming = Warming::default();
        let options = Options { stop: warming.stop.clone(), ..self.debug_options.clone() };
        let awaits = Arc::new(Awaits::new(self.await_chains.then_some(options)));
        warming.begin(stacks.clone(), awaits.clone())?;
        let core = Arc::new(Core {
            process: this_process(&stacks),
            registry,
            figures: RuntimeFigures::default(),
            stacks,
            names,
            awaits,
            since: Mutex::default(),
            trend: Mutex::default(),
            started: clock::now(),
            panics,
            #[cfg(feature = "grpc")]
            metadata: self.metadata,
        });
        let http = listen
            .into_iter()
            .map(|config| serve::start(config, core.clone() as Arc<dyn Source>))
            .collect::<Result<Vec<_>>>()?;
        #[cfg(feature = "console")]
        let console = match &self.console {
            Some(text) => {
                let addr = text.parse().map_err(|_| bad_address("tokio-console", text))?;
                if cfg!(not(tokio_unstable)) {
                    tracing::warn!(
                        "tokio-console will show an empty list: tokio tells of its tasks only \
                         to programs built with --cfg tokio_unstable"
                    );
                }
                let core = core.clone();
                let snapshots = Arc::new(move || core.snapshot(serve::Want::TASKS));
                Some(console::start(ConsoleConfig::new(addr), snapshots)?)
            }
            None => None,
        };
        #[cfg(feature = "otel")]
        let otel = self.otel.as_ref().map(|config| core.export_spans(config)).transpose()?;
        Ok(Profiler {
            shared: Arc::new(Shared {
                http_addr: http.iter().find_map(serve::Server::local_addr),
                http: Mutex::new(http),
                #[cfg(feature = "console")]
                console_addr: console.as_ref().map(ConsoleServer::local_addr),
                #[cfg(feature = "console")]
                console: Mutex::new(console),
                #[cfg(feature = "otel")]
                otel: Mutex::new(otel),
                _watchdog: watchdog,
                _warming: warming,
                core,
            }),
        })
    }

    /// What to listen on, checked before anything is bound.
    fn listen(&self) -> Result<Vec<ServeConfig>> {
        let mut listen = Vec::new();
        if let Some(text) = &self.http {
            listen.push(Listen::Tcp(text.parse().map_err(|_| bad_address("HTTP", text))?));
        }
        if let Some(path) = &self.unix {
            listen.push(Listen::Unix(path.clone()));
        }
        let token = self.token.as_deref().map(Token::new).transpose()?;
        let configs = listen.into_iter().map(|listen| {
            let mut config = ServeConfig::new(listen);
            config.token.clone_from(&token);
            config.hosts.clone_from(&self.hosts);
            config.control = self.control;
            config.check().map(|()| config)
        });
        configs.collect()
    }

    fn registry(&self) -> Result<Registry> {
        let registry = Registry::new(self.bounds, self.max_tasks, self.threshold);
        #[cfg(feature = "grpc")]
        for set in &self.descriptors {
            crate::instrument::grpc::declare(&registry, set)?;
        }
        #[cfg(feature = "grpc")]
        for path in &self.idle {
            if !path.starts_with('/') {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("a method is written /package.Service/Method, not {path:?}"),
                ));
            }
            registry.streams.declare_idle(path);
        }
        Ok(registry)
    }
}

/// Reads debug information in the background, so that the first stack does not
/// have to wait for it. When this is dropped the reading ends soon, with the
/// unit or the file that it is at.
#[derive(Debug, Default)]
pub(super) struct Warming {
    stop: Arc<AtomicBool>,
}

impl Warming {
    fn begin(&self, stacks: Arc<StackReader>, awaits: Arc<Awaits>) -> Result<()> {
        let stop = self.stop.clone();
        std::thread::Builder::new()
            .name("taskprof-warm".into())
            .spawn(move || {
                awaits.warm_up();
                if !stop.load(Ordering::Relaxed) {
                    stacks.warm_up();
                }
            })
            .map(drop)
            .map_err(|error| Error::io("cannot start a thread", error))
    }
}

impl Drop for Warming {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn this_process(stacks: &StackReader) -> Process {
    let executable = std::env::current_exe().unwrap_or_default();
    let name = executable.file_name().unwrap_or_default().to_string_lossy();
    Process {
        name: name.as_ref().into(),
        pid: std::process::id(),
        boot_id: boot_id().into(),
        build_id: stacks.build_id().map(Into::into),
        executable: executable.to_string_lossy().into(),
        uptime_ns: 0,
    }
}

/// 64 random bits in hexadecimal. The standard library seeds its hashers from
/// the system's random source; nothing secret hangs on it.
fn boot_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}
