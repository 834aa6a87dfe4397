//! `grpc.testing.TestService`: what gRPC's public interop description asks of a server.
//!
//! Where tonic sets a limit: `ResponseParameters.compressed` cannot be honoured.
//! The responses of a stream are compressed if the client accepts gzip, and no
//! handler has a say in it.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Drain;
use super::compressed::Flags;
use super::drain::Ends;
use super::produce::{Outlet, produce};
use crate::pb::testing::{
    BoolValue, EchoStatus, Empty, Payload, PayloadType, ResponseParameters, SimpleRequest,
    SimpleResponse, StreamingInputCallRequest, StreamingInputCallResponse,
    StreamingOutputCallRequest, StreamingOutputCallResponse, test_service_server,
};

/// Largest message taken and made. The largest interop case asks for 314,159
/// bytes; whoever asks for gigabytes does not test interoperation.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Responses that one request may ask for, so that a half-duplex call cannot
/// make the server remember without limit.
const MAX_RESPONSES: usize = 65_536;

/// Longest pause between two responses.
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// The service.
#[derive(Debug)]
pub struct Interop {
    drain: Drain,
}

impl Interop {
    pub fn new(drain: Drain) -> Self {
        Self { drain }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send>>;

#[tonic::async_trait]
impl test_service_server::TestService for Interop {
    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let compressed = Flags::of(&request).next();
        let request = request.into_inner();
        as_expected(request.expect_compressed, compressed)?;
        fail_as_asked(request.response_status)?;
        let mut response = Response::new(SimpleResponse {
            payload: Some(payload(request.response_size)?),
            server_id: if request.fill_server_id { "taskprof".into() } else { String::new() },
            ..Default::default()
        });
        if !asks(request.response_compressed) {
            response.disable_compression();
        }
        Ok(response)
    }

    async fn cacheable_unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let mut response = self.unary_call(request).await?;
        let value = "max-age=60, public".parse().expect("a header value");
        response.metadata_mut().insert("cache-control", value);
        Ok(response)
    }

    type StreamingOutputCallStream = Responses;

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Responses>, Status> {
        let request = request.into_inner();
        let ends = self.drain.ends();
        let responses = produce(|mut out| async move { answer(request, &mut out, &ends).await });
        Ok(Response::new(responses.boxed()))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let flags = Flags::of(&request);
        let mut requests = request.into_inner();
        let ends = self.drain.ends();
        let mut size = 0_i32;
        while let Some(request) = receive(&mut requests, &ends).await? {
            as_expected(request.expect_compressed, flags.next())?;
            let body = request.payload.map_or(0, |payload| payload.body.len());
            size = i32::try_from(body)
                .ok()
                .and_then(|body| size.checked_add(body))
                .ok_or_else(|| Status::out_of_range("more than 2 GiB in one call"))?;
        }
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size: size }))
    }

    type FullDuplexCallStream = Responses;

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let mut requests = request.into_inner();
        let ends = self.drain.ends();
        Ok(Response::new(
            produce(|mut out| async move {
                while let Some(request) = receive(&mut requests, &ends).await? {
                    answer(request, &mut out, &ends).await?;
                }
                Ok(())
            })
            .boxed(),
        ))
    }

    type HalfDuplexCallStream = Responses;

    async fn half_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let mut requests = request.into_inner();
        let ends = self.drain.ends();
        Ok(Response::new(
            produce(|mut out| async move {
                let mut wanted = Vec::new();
                while let Some(mut request) = receive(&mut requests, &ends).await? {
                    request.payload = None; // not needed for the answer, only large
                    wanted.push(request);
                    if wanted.len() > MAX_RESPONSES {
                        return Err(Status::resource_exhausted("too many requests to remember"));
                    }
                }
                for request in wanted {
                    answer(request, &mut out, &ends).await?;
                }
                Ok(())
            })
            .boxed(),
        ))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("this method is unimplemented on purpose"))
    }
}

/// The next request; `None` once the client has ended its stream.
async fn receive<T>(requests: &mut Streaming<T>, ends: &Ends) -> Result<Option<T>, Status> {
    tokio::select! {
        request = requests.message() => request,
        status = ends.come() => Err(status),
    }
}

/// Sends the responses that a request asks for, at the pace it asks for.
async fn answer(
    request: StreamingOutputCallRequest,
    out: &mut Outlet<StreamingOutputCallResponse>,
    ends: &Ends,
) -> Result<(), Status> {
    fail_as_asked(request.response_status)?;
    if request.response_parameters.len() > MAX_RESPONSES {
        return Err(Status::invalid_argument("at most 65,536 responses to one request"));
    }
    for ResponseParameters { size, interval_us, .. } in request.response_parameters {
        let pause = Duration::from_micros(u64::try_from(interval_us).unwrap_or(0));
        if !pause.is_zero() {
            tokio::select! {
                () = sleep(pause.min(MAX_INTERVAL)) => {}
                status = ends.come() => return Err(status),
            }
        }
        out.send(StreamingOutputCallResponse { payload: Some(payload(size)?) }).await;
    }
    Ok(())
}

/// The status that the client asks the call to end with, if it does.
fn fail_as_asked(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(EchoStatus { code, message }) if code != 0 => {
            Err(Status::new(Code::from_i32(code), message))
        }
        _ => Ok(()),
    }
}

/// Refuses a message that came plain and says that it should not have.
fn as_expected(expect: Option<BoolValue>, compressed: bool) -> Result<(), Status> {
    if asks(expect) && !compressed {
        return Err(Status::invalid_argument("the request was expected to be compressed"));
    }
    Ok(())
}

fn asks(flag: Option<BoolValue>) -> bool {
    flag.is_some_and(|flag| flag.value)
}

fn payload(size: i32) -> Result<Payload, Status> {
    let size = usize::try_from(size)
        .ok()
        .filter(|size| *size < MAX_MESSAGE - 1024)
        .ok_or_else(|| Status::invalid_argument("response sizes go from 0 to just below 16 MiB"))?;
    Ok(Payload { r#type: PayloadType::Compressable.into(), body: vec![0; size].into() })
}
