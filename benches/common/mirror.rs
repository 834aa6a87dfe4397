//! The service that the gRPC benches call.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use taskprof::pb::echo::echo_server::Echo;
use taskprof::pb::echo::{EchoRequest, EchoResponse};
use tonic::{Request, Response, Status, Streaming};

/// Echoes what it is sent on a bidirectional stream, and nothing else.
pub struct Mirror;

type Echoes = Pin<Box<dyn Stream<Item = Result<EchoResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for Mirror {
    type ServerStreamingEchoStream = Echoes;
    type BidirectionalStreamingEchoStream = Echoes;

    async fn unary_echo(&self, _: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn server_streaming_echo(
        &self,
        _: Request<EchoRequest>,
    ) -> Result<Response<Echoes>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn client_streaming_echo(
        &self,
        _: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn bidirectional_streaming_echo(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Echoes>, Status> {
        let echo = |request: Result<EchoRequest, Status>| {
            request.map(|EchoRequest { message }| EchoResponse { message })
        };
        Ok(Response::new(Box::pin(request.into_inner().map(echo))))
    }
}
