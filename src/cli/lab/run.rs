//! One case from its start to its verdicts.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cases::{Case, Fault, Mark, Truth};
use super::look::{self, Row};
use super::netns::{self, Netns};
use super::process::{Member, PING_EVERY};
use crate::reference::proxy::{Path as ProxyPath, Proxy};

/// How long a worker is taken: longer than any case looks.
const HOLD: &str = "30s";
/// Between two looks at a side.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long streams may take to be there.
const APPEAR: Duration = Duration::from_secs(20);
/// How long streams run undisturbed before something is done to them.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How long one that is to go on again stands still.
const FROZEN_FOR: Duration = Duration::from_secs(3);
/// A verdict counts once it has stood for so long.
const STANDS: Duration = Duration::from_millis(800);
/// How much longer one looks, to tell a late verdict from none.
const LATE: Duration = Duration::from_secs(3);
/// How long the healthy cases are looked at.
const QUIET: Duration = Duration::from_secs(4);

/// How a side did.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it should have said.
    pub truth: Truth,
    /// It said so, and nothing wrong before.
    pub right: bool,
    /// From the stall to the right verdict, which then stood.
    pub after: Option<Duration>,
    /// The row that speaks for the side: the first wrong one, or the last.
    pub row: Option<Box<Row>>,
    /// Why it is not right, where the row does not say.
    pub note: Option<String>,
}

/// How a case went.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Both sides were asked.
    Done {
        /// What the server said.
        server: Told,
        /// What the client said.
        client: Told,
    },
    /// It cannot be run here.
    Skipped(String),
    /// It did not come to that.
    Failed(String),
}

impl Outcome {
    /// Both sides right; true as well for what was skipped.
    pub fn is_right(&self) -> bool {
        match self {
            Self::Done { server, client } => server.right && client.right,
            Self::Skipped(_) => true,
            Self::Failed(_) => false,
        }
    }
}

/// Runs it. Dropping the future ends its processes.
pub async fn run(case: &'static Case, folder: &Path, patience: u32) -> Outcome {
    let net = match case.fault {
        Fault::Blackhole | Fault::Loss => match Netns::make() {
            Ok(net) => Some(net),
            Err(why) => return Outcome::Skipped(why),
        },
        _ => None,
    };
    let scene = match Scene::start(case, folder, net.as_ref()).await {
        Ok(scene) => scene,
        Err(why) => return Outcome::Failed(why),
    };
    match scene.play(net.as_ref(), patience).await {
        Ok((server, client)) => Outcome::Done { server, client },
        Err(Trouble::Here(why)) => Outcome::Skipped(why),
        Err(Trouble::Failed(why)) => Outcome::Failed(why),
    }
}

/// Why a case has no verdicts.
enum Trouble {
    /// This machine cannot do what it takes.
    Here(String),
    Failed(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

struct Scene {
    case: &'static Case,
    // In the order of their end: the client first.
    client: Member,
    proxy: Option<Proxy>,
    server: Member,
}

impl Scene {
    async fn start(
        case: &'static Case,
        folder: &Path,
        net: Option<&Netns>,
    ) -> Result<Self, String> {
        let cannot = |error| format!("cannot start a process: {error}");
        let host = if net.is_some() { netns::SERVER } else { "127.0.0.1" };
        let listen = format!("{host}:0");
        let common = ["--keepalive", PING_EVERY, "--http", "127.0.0.1:0"];
        let serve = ["serve", "--faults", "--grpc", &listen, "--console", "off"];
        let mut server = Member::start(
            folder,
            &format!("{}.server", case.name),
            &[&serve[..], &common[..], case.server_args].concat(),
            net.map(|net| net.server.as_str()),
        )
        .map_err(cannot)?;
        let address = server.grpc().await.map_err(|why| format!("the server: {why}"))?;
        server.warmed().await.map_err(|why| format!("the server: {why}"))?;
        look::streams(&server.socket, None).await.map_err(|why| format!("the server: {why}"))?;
        let proxy = match case.fault {
            Fault::Path(_) | Fault::Cut | Fault::Vanish => {
                Some(Proxy::start(address).await.map_err(|error| error.to_string())?)
            }
            _ => None,
        };
        let target = proxy.as_ref().map_or(address, |proxy| proxy.address).to_string();
        let load = ["load", "--scenario", case.scenario, "--grpc", &target];
        let more = ["--seconds", "600", "--heartbeat", PING_EVERY, "--hold", HOLD];
        let client = Member::start(
            folder,
            &format!("{}.client", case.name),
            &[&load[..], &more[..], &common[..], case.client_args].concat(),
            net.map(|net| net.client.as_str()),
        )
        .map_err(cannot)?;
        Ok(Self { case, client, proxy, server })
    }

    async fn play(mut self, net: Option<&Netns>, patience: u32) -> Result<(Told, Told), Trouble> {
        let case = self.case;
        let mut server = Watcher::new(case, case.server);
        let mut client = Watcher::new(case, case.client);
        let born = self.appear(&mut server, &mut client).await?;
        let stall = if case.fault == Fault::None {
            born
        } else {
            // Until then all is well, and nothing else may be said.
            let settled = Instant::now() + SETTLE;
            while Instant::now() < settled {
                self.look(&mut server, &mut client, None).await?;
                sleep(LOOK_EVERY).await;
            }
            self.inject(net).await?;
            Instant::now()
        };
        let within = case.within * patience;
        let least = if server.quiet() || client.quiet() { QUIET } else { Duration::ZERO };
        loop {
            self.look(&mut server, &mut client, Some(stall)).await?;
            let elapsed = stall.elapsed();
            let over = server.is_over() && client.is_over();
            if elapsed >= (within + LATE).max(least) || (over && elapsed >= least) {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        if let Some(proxy) = self.proxy.take() {
            self.client.kill();
            proxy.end().await;
        }
        Ok((server.told(within), client.told(within)))
    }

    /// Waits until each side that is asked knows streams of the method; since
    /// when the youngest runs.
    async fn appear(
        &mut self,
        server: &mut Watcher,
        client: &mut Watcher,
    ) -> Result<Instant, Trouble> {
        let began = Instant::now();
        let mut born = None;
        for (member, watcher, who) in
            [(&mut self.server, server, "server"), (&mut self.client, client, "client")]
        {
            if watcher.truth == Truth::Unasked {
                continue;
            }
            loop {
                member.lives().map_err(|why| format!("the {who}: {why}"))?;
                if let Ok(rows) = look::streams(&member.socket, Some(self.case.method)).await
                    && let Some(youngest) = rows.iter().map(|row| row.stream.age_ns).min()
                {
                    let since = Instant::now() - Duration::from_nanos(youngest);
                    born = born.max(Some(since));
                    break;
                }
                if watcher.quiet() && began.elapsed() > SETTLE {
                    break; // gone before anybody could look, which is fine
                }
                if began.elapsed() > APPEAR {
                    let method = self.case.method;
                    return Err(Trouble::Failed(format!("the {who} never shows a {method}")));
                }
                sleep(LOOK_EVERY / 2).await;
            }
        }
        Ok(born.unwrap_or(began))
    }

    async fn inject(&mut self, net: Option<&Netns>) -> Result<(), Trouble> {
        match self.case.fault {
            Fault::None => {}
            Fault::Path(path) => {
                if let Some(proxy) = &self.proxy {
                    proxy.set(path);
                }
            }
            Fault::Cut => {
                if let Some(proxy) = &self.proxy {
                    proxy.cut();
                }
            }
            Fault::Vanish => {
                if let Some(proxy) = &self.proxy {
                    proxy.set(ProxyPath { hides_ends: true, ..ProxyPath::default() });
                }
                self.client.kill();
            }
            Fault::FreezeServer => self.server.freeze()?,
            Fault::FreezeClient => self.client.freeze()?,
            Fault::Thaw => {
                self.client.freeze()?;
                sleep(FROZEN_FOR).await;
                self.client.thaw()?;
                sleep(SETTLE).await;
            }
            Fault::KillClient => self.client.kill(),
            Fault::Blackhole => {
                if let Some(net) = net {
                    net.blackhole().map_err(Trouble::Here)?;
                }
            }
            Fault::Loss => {
                if let Some(net) = net {
                    net.drop_excess().map_err(Trouble::Here)?;
                }
            }
        }
        Ok(())
    }

    async fn look(
        &mut self,
        server: &mut Watcher,
        client: &mut Watcher,
        stall: Option<Instant>,
    ) -> Result<(), Trouble> {
        let (one, two) = tokio::join!(
            server.look(&self.server.socket, stall),
            client.look(&self.client.socket, stall),
        );
        one.map_err(|why| format!("the server: {why}"))?;
        two.map_err(|why| format!("the client: {why}"))?;
        Ok(())
    }
}

/// What has been seen of one side.
struct Watcher {
    case: &'static Case,
    truth: Truth,
    /// Since when all has been right.
    right_since: Option<Instant>,
    after: Option<Duration>,
    wrong: Option<Row>,
    last: Option<Row>,
    last_look: Option<Instant>,
}

impl Watcher {
    fn new(case: &'static Case, truth: Truth) -> Self {
        Self {
            case,
            truth,
            right_since: None,
            after: None,
            wrong: None,
            last: None,
            last_look: None,
        }
    }

    fn quiet(&self) -> bool {
        self.truth == Truth::Quiet
    }

    /// Nothing more is to be learned from it.
    fn is_over(&self) -> bool {
        let stands = self
            .right_since
            .zip(self.last_look)
            .is_some_and(|(since, last)| last.duration_since(since) >= STANDS);
        self.truth == Truth::Unasked || self.wrong.is_some() || stands
    }

    /// Before the stall (`None`) there is nothing to be right about, only
    /// something to be wrong about.
    async fn look(&mut self, socket: &Path, stall: Option<Instant>) -> Result<(), String> {
        if self.truth == Truth::Unasked {
            return Ok(());
        }
        if self.is_over() && !self.quiet() {
            return Ok(());
        }
        let was_right = self.wrong.is_none();
        self.judge(socket, stall).await?;
        let first_wrong = self.wrong.as_mut().filter(|_| was_right);
        if let Some(row) = first_wrong.or(self.last.as_mut()) {
            row.connection = look::connection(socket, row).await?;
        }
        Ok(())
    }

    async fn judge(&mut self, socket: &Path, stall: Option<Instant>) -> Result<(), String> {
        let rows = look::streams(socket, Some(self.case.method)).await?;
        let now = Instant::now();
        self.last_look = Some(now);
        let Some(stall) = stall else {
            self.accuse(rows.into_iter().filter(is_live), Truth::Quiet);
            return Ok(());
        };
        let right = match self.truth {
            Truth::Gone => !rows.iter().any(is_live),
            Truth::LeftAs(_) | Truth::Some(_) => {
                let right = |row: &Row| mark(self.truth, row) == Mark::Right;
                let best = rows.iter().position(right);
                self.last = best.or(rows.len().checked_sub(1)).map(|at| rows[at].clone());
                if let Truth::Some(_) = self.truth {
                    self.accuse(rows.into_iter().filter(is_live), self.truth);
                }
                best.is_some()
            }
            _ => {
                let live: Vec<Row> = rows.into_iter().filter(is_live).collect();
                let all = live.iter().all(|row| mark(self.truth, row) == Mark::Right);
                let worst = live.iter().find(|row| mark(self.truth, row) != Mark::Right);
                if let Some(row) = worst.or(live.first()) {
                    self.last = Some(row.clone());
                }
                let none = live.is_empty();
                self.accuse(live.into_iter(), self.truth);
                all && (!none || self.quiet())
            }
        };
        if !right {
            (self.right_since, self.after) = (None, None);
        } else if self.right_since.is_none() {
            (self.right_since, self.after) = (Some(now), Some(now.duration_since(stall)));
        }
        Ok(())
    }

    /// Remembers the first verdict that accuses somebody falsely.
    fn accuse(&mut self, mut rows: impl Iterator<Item = Row>, truth: Truth) {
        if self.wrong.is_none() {
            self.wrong = rows.find(|row| mark(truth, row) == Mark::Wrong);
        }
    }

    fn told(self, within: Duration) -> Told {
        let in_time = self.quiet() || self.after.is_some_and(|after| after <= within);
        let asked = self.truth != Truth::Unasked;
        let right = !asked || (self.wrong.is_none() && self.after.is_some() && in_time);
        let note = match (&self.wrong, self.after) {
            _ if right => None,
            (Some(_), _) => Some("wrong".to_owned()),
            (None, Some(after)) => Some(format!("late: {:.1} s", after.as_secs_f64())),
            (None, None) if self.last.is_none() => Some("no such stream".to_owned()),
            (None, None) => Some("not told".to_owned()),
        };
        Told {
            truth: self.truth,
            right,
            after: self.after,
            row: self.wrong.or(self.last).map(Box::new),
            note,
        }
    }
}

fn is_live(row: &Row) -> bool {
    row.stream.ended_ago_ns.is_none()
}

fn mark(truth: Truth, row: &Row) -> Mark {
    truth.mark(row.verdict.kind, &row.verdict.or)
}
