//! Calls that are cancelled, and the tasks that they have spawned.

use std::sync::Arc;

use futures_util::stream::Empty;
use taskprof::Profiler;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::Id;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::leaked;
use crate::stage::{Stage, until};

/// Answers nothing, and spawns a task at each call.
struct Spawns {
    spawned: mpsc::UnboundedSender<Id>,
    word: Arc<Notify>,
    /// Within the call's scope, so that the task ends with it.
    scoped: bool,
}

#[tonic::async_trait]
impl Health for Spawns {
    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let work = leaked::left_by_call(self.word.clone());
        let id = if self.scoped {
            let scope = taskprof::scope::current().expect("within a call");
            scope.spawn(work).id()
        } else {
            tokio::spawn(work).id()
        };
        let _ = self.spawned.send(id);
        std::future::pending().await
    }

    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("only checks"))
    }
}

/// A call that is cancelled once it has spawned its task.
pub async fn cancelled(stage: &mut Stage, profiler: Profiler, scoped: bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let (spawned, mut ids) = mpsc::unbounded_channel();
    let word = Arc::new(Notify::new());
    let service = Spawns { spawned, word: word.clone(), scoped };
    let routes = Routes::new(HealthServer::new(service));
    tokio::spawn(async move { profiler.serve(routes, listener).await });
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{address}"));
    let channel = endpoint.expect("an address").connect().await.expect("connect");
    let mut client = HealthClient::new(channel);
    let id = tokio::select! {
        answer = client.check(HealthCheckRequest::default()) => panic!("{answer:?}"),
        id = ids.recv() => id.expect("a task"),
    };
    // The connection stays: what ends is the call.
    std::mem::forget(client);
    if scoped {
        // It has ended once the service and this are the only ones left.
        until(|| Arc::strong_count(&word) == 2).await;
    } else {
        stage.enter(leaked::left(), id);
        stage.finding("leaked_task", &["left_by_call"]);
    }
}
