//! The seven calls.

use std::cmp::min;

use tonic::{Request, Response, Status};

use super::SnapshotFn;
use super::ids::Entity;
use super::{convert, socket};
use crate::model::{Endpoint, EndpointId, Side, Snapshot};
use crate::pb::channelz as pb;

/// Entries of a page, where the caller leaves it to us.
const PAGE: usize = 100;

/// And at most: an answer is held in memory whole.
const PAGE_MAX: usize = 1_000;

/// Answers what gRPC's tools ask of a process.
#[derive(Clone)]
pub struct Channelz {
    snapshots: SnapshotFn,
}

impl std::fmt::Debug for Channelz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channelz").finish_non_exhaustive()
    }
}

/// A snapshot, off the workers: it takes locks, and asks the kernel.
async fn now(snapshots: &SnapshotFn) -> Result<Snapshot, Status> {
    let snapshots = snapshots.clone();
    match tokio::task::spawn_blocking(move || snapshots()).await {
        Ok(Ok(shot)) => Ok(shot),
        Ok(Err(error)) => Err(Status::unavailable(error.to_string())),
        Err(_) => Err(Status::internal("no snapshot could be taken")),
    }
}

/// Of the entries from `start` on, in order, a page; and whether it is the last.
fn page<T>(
    entries: impl Iterator<Item = (i64, T)>,
    start: i64,
    max_results: i64,
) -> Result<(Vec<T>, bool), Status> {
    let wanted = match usize::try_from(max_results) {
        Ok(0) => PAGE,
        Ok(wanted) => min(wanted, PAGE_MAX),
        Err(_) => return Err(Status::invalid_argument("max_results must not be negative")),
    };
    if start < 0 {
        return Err(Status::invalid_argument("an id to start from must not be negative"));
    }
    let mut rest = entries.filter(|(id, _)| *id >= start).map(|(_, entry)| entry);
    let page = rest.by_ref().take(wanted).collect();
    Ok((page, rest.next().is_none()))
}

fn of_side(shot: &Snapshot, side: Side) -> impl Iterator<Item = &Endpoint> {
    shot.endpoints.iter().filter(move |endpoint| endpoint.side == side)
}

fn endpoint(shot: &Snapshot, id: EndpointId, side: Side) -> Option<&Endpoint> {
    of_side(shot, side).find(|endpoint| endpoint.id == id)
}

fn unknown(what: &str, id: i64) -> Status {
    Status::not_found(format!("no {what} has the id {id}"))
}

impl Channelz {
    pub(super) fn new(snapshots: SnapshotFn) -> Self {
        Self { snapshots }
    }

    fn server(shot: &Snapshot, id: i64) -> Result<&Endpoint, Status> {
        match Entity::of(id) {
            Some(Entity::Server(server)) => endpoint(shot, server, Side::Server),
            _ => None,
        }
        .ok_or_else(|| unknown("server", id))
    }
}

#[tonic::async_trait]
impl pb::channelz_server::Channelz for Channelz {
    async fn get_top_channels(
        &self,
        request: Request<pb::GetTopChannelsRequest>,
    ) -> Result<Response<pb::GetTopChannelsResponse>, Status> {
        let wanted = request.into_inner();
        let shot = now(&self.snapshots).await?;
        let all =
            of_side(&shot, Side::Client).map(|channel| (Entity::Channel(channel.id).id(), channel));
        let (page, end) = page(all, wanted.start_channel_id, wanted.max_results)?;
        let channel = page.into_iter().map(|one| convert::channel(&shot, one)).collect();
        Ok(Response::new(pb::GetTopChannelsResponse { channel, end }))
    }

    async fn get_servers(
        &self,
        request: Request<pb::GetServersRequest>,
    ) -> Result<Response<pb::GetServersResponse>, Status> {
        let wanted = request.into_inner();
        let shot = now(&self.snapshots).await?;
        let all =
            of_side(&shot, Side::Server).map(|server| (Entity::Server(server.id).id(), server));
        let (page, end) = page(all, wanted.start_server_id, wanted.max_results)?;
        let server = page.into_iter().map(|one| convert::server(&shot, one)).collect();
        Ok(Response::new(pb::GetServersResponse { server, end }))
    }

    async fn get_server(
        &self,
        request: Request<pb::GetServerRequest>,
    ) -> Result<Response<pb::GetServerResponse>, Status> {
        let id = request.into_inner().server_id;
        let shot = now(&self.snapshots).await?;
        let server = convert::server(&shot, Self::server(&shot, id)?);
        Ok(Response::new(pb::GetServerResponse { server: Some(server) }))
    }

    async fn get_server_sockets(
        &self,
        request: Request<pb::GetServerSocketsRequest>,
    ) -> Result<Response<pb::GetServerSocketsResponse>, Status> {
        let wanted = request.into_inner();
        let shot = now(&self.snapshots).await?;
        let server = Self::server(&shot, wanted.server_id)?;
        let all = convert::sockets(&shot, server)
            .map(|connection| (Entity::Connection(connection.id).id(), connection));
        let (page, end) = page(all, wanted.start_socket_id, wanted.max_results)?;
        let socket_ref = page.into_iter().map(convert::socket_ref).collect();
        Ok(Response::new(pb::GetServerSocketsResponse { socket_ref, end }))
    }

    async fn get_channel(
        &self,
        request: Request<pb::GetChannelRequest>,
    ) -> Result<Response<pb::GetChannelResponse>, Status> {
        let id = request.into_inner().channel_id;
        let shot = now(&self.snapshots).await?;
        let channel = match Entity::of(id) {
            Some(Entity::Channel(channel)) => endpoint(&shot, channel, Side::Client),
            _ => None,
        };
        let channel = channel.ok_or_else(|| unknown("channel", id))?;
        let channel = Some(convert::channel(&shot, channel));
        Ok(Response::new(pb::GetChannelResponse { channel }))
    }

    async fn get_subchannel(
        &self,
        request: Request<pb::GetSubchannelRequest>,
    ) -> Result<Response<pb::GetSubchannelResponse>, Status> {
        let id = request.into_inner().subchannel_id;
        let shot = now(&self.snapshots).await?;
        let channel = match Entity::of(id) {
            Some(Entity::Subchannel(channel)) => endpoint(&shot, channel, Side::Client),
            _ => None,
        };
        let channel = channel.ok_or_else(|| unknown("subchannel", id))?;
        let subchannel = Some(convert::subchannel(&shot, channel));
        Ok(Response::new(pb::GetSubchannelResponse { subchannel }))
    }

    async fn get_socket(
        &self,
        request: Request<pb::GetSocketRequest>,
    ) -> Result<Response<pb::GetSocketResponse>, Status> {
        let id = request.into_inner().socket_id;
        let shot = now(&self.snapshots).await?;
        let socket = match Entity::of(id) {
            Some(Entity::Connection(wanted)) => shot
                .connections
                .iter()
                .find(|connection| connection.id == wanted && !connection.closed)
                .map(|connection| socket::connection(&shot, connection)),
            Some(Entity::Listener(server)) => {
                endpoint(&shot, server, Side::Server).and_then(socket::listener)
            }
            _ => None,
        };
        let socket = Some(socket.ok_or_else(|| unknown("socket", id))?);
        Ok(Response::new(pb::GetSocketResponse { socket }))
    }
}
