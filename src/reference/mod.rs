//! The reference gRPC server, its traffic and its faults.
//!
//! A server worth watching: the example service and the interop service that
//! clients of every language know, health, reflection, and, only when asked
//! for, a service whose methods are ways to be stuck. [`load`] is the traffic.

mod compressed;
mod drain;
mod echo;
mod interop;
pub(crate) mod lab;
pub mod load;
mod metadata;
mod produce;
pub mod proxy;

use tonic::codec::CompressionEncoding::Gzip;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::channelz::Channelz;
use crate::error::{Error, ErrorKind, Result};
use crate::instrument::grpc::heartbeat;
use crate::pb;
use crate::pb::channelz::channelz_server::ChannelzServer;
use crate::pb::echo::echo_server::EchoServer;
use crate::pb::heartbeat::heartbeat_server::HeartbeatServer;
use crate::pb::lab::lab_server::LabServer;
use crate::pb::testing::test_service_server::TestServiceServer;

pub use drain::Drain;

/// Methods that are silent for long by design, besides the standard ones.
pub const IDLE_METHODS: [&str; 1] = ["/taskprof.lab.v1.Lab/LongPoll"];

/// The services, ready to be served, and the handle that ends them.
pub struct Reference {
    /// What to serve.
    pub routes: Routes,
    /// How to stop it.
    pub shutdown: Shutdown,
}

/// Ends the reference server's calls.
pub struct Shutdown {
    drain: Drain,
    health: HealthReporter,
    /// What health checks may ask for.
    names: Vec<&'static str>,
}

type Echo = EchoServer<echo::Echo>;
type Interop = metadata::EchoMetadata<compressed::SeeFlags<TestServiceServer<interop::Interop>>>;
type Heartbeat = HeartbeatServer<heartbeat::Heartbeat>;
type Lab = LabServer<lab::Lab>;
type Channels = ChannelzServer<Channelz>;

impl Reference {
    /// Puts the services together; `faults` adds the ways to be stuck.
    ///
    /// # Errors
    /// `Internal` if the checked-in descriptors are unreadable.
    pub async fn new(faults: bool) -> Result<Self> {
        Self::with(faults, None).await
    }

    /// The same with a profiler's channelz service.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn with(faults: bool, channelz: Option<Channels>) -> Result<Self> {
        let drain = Drain::default();
        let (health, health_service) = tonic_health::server::health_reporter();
        let mut names = vec![Echo::NAME, Interop::NAME, Heartbeat::NAME];
        let interop = TestServiceServer::new(interop::Interop::new(drain.clone()))
            .accept_compressed(Gzip)
            .send_compressed(Gzip)
            .max_decoding_message_size(interop::MAX_MESSAGE)
            .max_encoding_message_size(interop::MAX_MESSAGE);
        let mut routes = Routes::builder();
        routes
            .add_service(EchoServer::new(echo::Echo::new(drain.clone())))
            .add_service(metadata::EchoMetadata::new(compressed::SeeFlags::new(interop)))
            .add_service(heartbeat::service())
            .add_service(health_service);
        if let Some(channelz) = channelz {
            names.push(Channels::NAME);
            routes.add_service(channelz);
        }
        if faults {
            names.push(Lab::NAME);
            routes.add_service(LabServer::new(lab::Lab::new(drain.clone())));
        }
        let reflection = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name("grpc.health.v1.Health")
                .with_service_name("grpc.reflection.v1.ServerReflection")
                .with_service_name("grpc.reflection.v1alpha.ServerReflection");
            names.iter().fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let unreadable = |error| {
            Error::new(ErrorKind::Internal, "the services' descriptors are unreadable")
                .with_source(error)
        };
        routes
            .add_service(reflection().build_v1().map_err(unreadable)?)
            .add_service(reflection().build_v1alpha().map_err(unreadable)?);
        // The empty name is the server as a whole.
        names.push("");
        let shutdown = Shutdown { drain, health, names };
        shutdown.report(ServingStatus::Serving).await;
        Ok(Self { routes: routes.routes().prepare(), shutdown })
    }
}

impl Shutdown {
    /// Tells health checks that no more calls are wanted, ends the calls that
    /// could last, and waits for the tasks they left behind.
    ///
    /// Unary calls under way finish by themselves.
    pub async fn begin(&self) {
        self.report(ServingStatus::NotServing).await;
        self.drain.begin();
        self.drain.finished().await;
    }

    async fn report(&self, status: ServingStatus) {
        for name in &self.names {
            self.health.set_service_status(name, status).await;
        }
    }

    /// What handlers watch.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }
}
