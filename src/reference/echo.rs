//! `grpc.examples.echo.Echo`: one method of each of the four kinds.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

use super::Drain;
use super::produce::produce;
use crate::pb::echo::{EchoRequest, EchoResponse, echo_server};

/// Messages that one request to `ServerStreamingEcho` gets back.
const REPEATS: usize = 10;

/// The service.
#[derive(Debug)]
pub struct Echo {
    drain: Drain,
}

impl Echo {
    pub fn new(drain: Drain) -> Self {
        Self { drain }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<EchoResponse, Status>> + Send>>;

#[tonic::async_trait]
impl echo_server::Echo for Echo {
    async fn unary_echo(
        &self,
        request: Request<EchoRequest>,
    ) -> Result<Response<EchoResponse>, Status> {
        Ok(Response::new(EchoResponse { message: request.into_inner().message }))
    }

    type ServerStreamingEchoStream = Responses;

    async fn server_streaming_echo(
        &self,
        request: Request<EchoRequest>,
    ) -> Result<Response<Responses>, Status> {
        let message = request.into_inner().message;
        Ok(Response::new(Box::pin(produce(|mut out| async move {
            for _ in 0..REPEATS {
                out.send(EchoResponse { message: message.clone() }).await;
            }
            Ok(())
        }))))
    }

    async fn client_streaming_echo(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoResponse>, Status> {
        let mut requests = request.into_inner();
        let mut message = String::new();
        let ends = self.drain.ends();
        let come = ends.come();
        tokio::pin!(come);
        loop {
            tokio::select! {
                next = requests.next() => match next {
                    Some(request) => message = request?.message,
                    None => return Ok(Response::new(EchoResponse { message })),
                },
                status = &mut come => return Err(status),
            }
        }
    }

    type BidirectionalStreamingEchoStream = Responses;

    /// No task and no channel between the request and the response: each poll
    /// of the response reads the request. Ends at once when the
    /// server drains, or the stream is over before its request is.
    async fn bidirectional_streaming_echo(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (ends, until) = (self.drain.ends(), self.drain.ends());
        let end = stream::once(async move { ends.came().map(Err) });
        let echoes = request
            .into_inner()
            .map(|request| request.map(|EchoRequest { message }| EchoResponse { message }))
            .take_until(async move { drop(until.come().await) });
        Ok(Response::new(Box::pin(echoes.chain(end.filter_map(std::future::ready)))))
    }
}
